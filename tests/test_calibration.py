"""The promised false-alarm rate, held on fresh normals; p-values that are uniform; honesty about too few images."""

import numpy as np
import pytest

from raydiff.errors import DataError
from raydiff.selection.calibration import Calibration, CategoryCalibration


@pytest.mark.parametrize(("normals", "rate"), [(19, 0.05), (99, 0.01), (150, 0.1), (400, 0.02)])
def test_the_promised_rate_holds_on_fresh_normals(normals, rate):
    rng = np.random.default_rng(0)
    rates = []
    for _ in range(3000):
        scores = rng.gamma(2, size=normals)
        threshold = CategoryCalibration(scores=tuple(sorted(scores)), rate=rate).threshold
        rates.append((rng.gamma(2, size=50) > threshold).mean())
    # the mean over calibrations is what split-conformal promises; its expectation is floor(rate (n + 1)) / (n + 1)
    expected = np.floor(rate * (normals + 1) + 1e-9) / (normals + 1)
    assert np.mean(rates) == pytest.approx(expected, abs=4 * np.std(rates) / np.sqrt(3000))
    assert np.mean(rates) <= rate + 4 * np.std(rates) / np.sqrt(3000)


def test_the_p_value_is_the_rank_among_the_normals():
    found = CategoryCalibration(scores=(1.0, 2.0, 2.0, 5.0), rate=0.5)
    assert [found.p_value(score) for score in (0, 1, 2, 3, 5, 6)] == [1.0, 1.0, 0.8, 0.4, 0.4, 0.2]


def test_p_value_and_threshold_agree():
    rng = np.random.default_rng(1)
    found = CategoryCalibration(scores=tuple(sorted(rng.normal(size=199))), rate=0.05)
    for score in rng.normal(size=2000):
        assert (score > found.threshold) == (found.p_value(score) <= 0.05)


def test_too_few_normals_promise_nothing_and_say_so():
    calibration = Calibration.fit({"nut": list(range(10))}, 0.01)
    nut = calibration.of("nut")
    assert not nut.promised
    assert nut.threshold == 9
    assert nut.lowest_rate == pytest.approx(1 / 11)
    (sentence,) = calibration.sentences()
    assert "10 normal images are too few to promise 1.00%" in sentence
    assert "at least 99" in sentence


def test_a_small_category_falls_back_to_all():
    scores = {"nut": list(np.linspace(0, 1, 99)), "rare": [0.5, 3.0]}
    calibration = Calibration.fit(scores, 0.01)
    assert calibration.of("nut").normals == 99
    assert calibration.of("rare").normals == 101
    assert calibration.of("never seen").normals == 101
    sentences = calibration.sentences()
    assert any("rare: 2 normal images are too few" in line and "all 101 images" in line for line in sentences)


def test_shared_categories_are_named():
    calibration = Calibration.fit({"nut": [1.0] * 30}, 0.1, shared_with_tuning=["nut"])
    assert any("tuning saw the same" in line for line in calibration.sentences())


def test_nothing_to_calibrate_on_is_an_error():
    with pytest.raises(DataError, match="no held-out normal"):
        Calibration.fit({"nut": []}, 0.01)


def test_it_survives_its_own_json():
    calibration = Calibration.fit({"nut": [3.0, 1.0, 2.0]}, 0.25, ["nut"])
    assert Calibration.parse(calibration.model_dump(mode="json")) == calibration


def test_the_colours_begin_at_normal_scores():
    low, high = CategoryCalibration(scores=tuple(range(1, 102)), rate=0.1).colour_scale()
    assert low == 51
    assert (low + high) / 2 == pytest.approx(92)


def test_many_scores_are_thinned_without_bias():
    rng = np.random.default_rng(0)
    calibration = Calibration.fit({"nut": list(rng.uniform(size=60_000))}, 0.1)
    assert calibration.of("nut").normals == 10_000
    assert calibration.of("nut").threshold == pytest.approx(0.9, abs=0.02)
