"""False alarms of parts with several views: simulated with views that depend on one another in many ways."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from scipy.stats import binom

from raydiff.model import part_alarm
from raydiff.model.calibration import Calibration, CategoryCalibration

RATE = 0.05
TRIALS = 4000  # each with a calibration of its own, as the promise is one in the mean over calibrations
MOST = int(binom.ppf(0.9999, TRIALS, RATE))  # alarms of so many, where each has a chance of RATE


def scores(rng: np.random.Generator, parts: int, views: int, kind: str) -> np.ndarray:
    """(parts, views): each view for itself has the same distribution, whatever the kind of dependence."""
    own = rng.normal(size=(parts, views))
    common = rng.normal(size=(parts, 1))
    if kind == "same":
        return np.repeat(common, views, 1)
    if kind == "alike":
        return np.sqrt(0.7) * common + np.sqrt(0.3) * own
    if kind == "opposed":  # one view is high where the others are low: as many false alarms as there can be
        own = own - own.mean(1, keepdims=True)
        return own / np.sqrt(1 - 1 / views)
    return own


def alarmed(normals: np.ndarray, part: np.ndarray) -> tuple[bool, bool]:
    """Whether a part alarms, and whether one of its images does by itself."""
    own = CategoryCalibration(scores=tuple(np.sort(normals).tolist()), rate=RATE)
    p_values = np.array([own.p_value(score) for score in part.tolist()])
    count, sizes = np.array([len(part)]), np.array([len(normals)])
    found = part_alarm.alarms(part_alarm.corrected(p_values.min(keepdims=True), count), sizes, RATE)
    return bool(found[0]), bool((part > own.threshold).any())


@pytest.mark.parametrize("kind", ["apart", "alike", "same", "opposed"])
def test_the_promised_rate_holds_for_parts_however_their_views_depend_on_one_another(kind):
    rng = np.random.default_rng(1)
    found = [alarmed(rng.normal(size=239), scores(rng, 1, 4, kind)[0]) for _ in range(TRIALS)]
    parts, any_image = (sum(each) for each in zip(*found, strict=True))
    assert parts <= MOST
    if kind != "same":  # what is promised of images alone does not hold for parts, or this would show nothing
        assert any_image > MOST
    if kind in ("apart", "opposed"):  # and it is no empty promise: 12 / 240 are wanted
        assert parts > binom.ppf(0.001, TRIALS, 0.04)


@pytest.mark.parametrize("kind", ["apart", "alike", "same"])
def test_it_holds_where_calibration_has_seen_parts_of_several_views_too(kind):
    """Thirty parts of four views each are no hundred and twenty normals, as far as an image alone is concerned."""
    rng = np.random.default_rng(2)
    parts = images = 0
    for _ in range(TRIALS):
        drawn = scores(rng, 31, 4, kind)
        parts += alarmed(drawn[1:].ravel(), drawn[0])[0]
        images += alarmed(drawn[1:].ravel(), drawn[0, :1])[0]
    assert parts <= MOST
    if kind == "same":  # an alarm is a score above all parts but one: 2 / 31
        assert images > MOST


@pytest.mark.parametrize("rate", [0.01, 0.05, 0.1, 0.3])
@pytest.mark.parametrize("normals", [1, 9, 19, 20, 99, 100, 599, 10_000])
def test_a_part_of_one_view_alarms_where_its_image_does(normals, rate):
    own = Calibration.fit({"nut": np.arange(normals, dtype=float).tolist()}, rate).of("nut")
    for score in np.unique(np.linspace(-1, normals, 300).round(1)).tolist():
        p_value = np.array([own.p_value(score)])
        found = part_alarm.alarms(part_alarm.corrected(p_value, np.array([1])), np.array([own.normals]), rate)
        assert bool(found[0]) == (score > own.threshold)


@pytest.mark.parametrize("rate", ["0.01", "0.05", "0.1", "0.3"])
@pytest.mark.parametrize("views", [1, 2, 3, 6, 24])
def test_how_many_normals_it_takes(views, rate):
    needed = part_alarm.normals_needed(views, float(rate))
    assert Fraction(views, needed + 1) <= Fraction(rate) < Fraction(views, needed)
    for normals in (needed - 1, needed):
        enough = part_alarm.decidable(np.array([views]), np.array([normals]), float(rate))
        # With too few normals for the rate an image alarms all the same, at the lowest rate that they can promise.
        assert bool(enough[0]) == (normals == needed or views == 1)
    assert part_alarm.views_decided(needed, float(rate)) == views
    assert part_alarm.views_decided(needed - 1, float(rate)) == max(1, views - 1)
