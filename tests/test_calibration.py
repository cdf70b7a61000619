"""The promised false-alarm rate, held on fresh normals; p-values that are uniform; honesty about too few images."""

import numpy as np
import pytest
from scipy import stats

from raydiff.errors import DataError
from raydiff.model.calibration import PRIOR, Calibration, CategoryCalibration
from raydiff.selection.calibrate import MadeAlarms, hardly_any


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


def test_a_small_category_borrows_from_all():
    scores = {"nut": list(np.linspace(0, 1, 99)), "rare": [0.5, 3.0]}
    calibration = Calibration.fit(scores, 0.01)
    assert calibration.of("nut").normals == 99
    assert calibration.is_own("nut")
    assert calibration.of("rare").normals == 101
    assert not calibration.is_own("rare")
    assert calibration.of("never seen").scores == calibration.all.scores
    sentences = calibration.sentences()
    assert any("rare: 2 normal images are too few" in line and "of all 101 normal images" in line for line in sentences)


def test_a_standing_is_told_by_the_other_images_of_the_category():
    """One score by hand: Student's distribution of a fresh score, given the others."""
    scores = {"nut": [1.0, 2.0, 4.0], "bolt": [10.0, 30.0]}
    calibration = Calibration.fit(scores, 0.3)
    typical = np.sqrt(np.sqrt(np.var(scores["nut"], ddof=1) * np.var(scores["bolt"], ddof=1)))
    wanted = []
    for found in scores.values():
        for score in found:
            others = np.array([other for other in found if other != score])
            n = len(others)
            deviation = np.sqrt((((others - others.mean()) ** 2).sum() + PRIOR * typical**2) / (n - 1 + PRIOR))
            t = (score - others.mean()) / (deviation * np.sqrt(1 + 1 / n))
            wanted.append(stats.norm.ppf(stats.t.cdf(t, n - 1 + PRIOR)))
    np.testing.assert_allclose(calibration.standing, sorted(wanted), rtol=1e-6)


# where categories' normal scores lie, and how far apart
UNLIKE = ((13.0, 1.7), (7.0, 0.5), (7.5, 0.5), (50.0, 2.0), (1.0, 0.3))


def observed(draw, sizes, rate, repeats=250):
    """Rates of false alarms by category, with their standard error, and of defects found, by `borrowed` and by all."""
    alarms, found, found_by_all = [], [], []
    for _ in range(repeats):
        sets = zip(UNLIKE, sizes, strict=True)
        fresh = [(centre + spread * draw(size), centre + spread * draw(400)) for (centre, spread), size in sets]
        calibration = Calibration.fit({str(number): held.tolist() for number, (held, _) in enumerate(fresh)}, rate)
        alarms.append([])
        for number, (_, normals) in enumerate(fresh):
            threshold = calibration.of(str(number)).threshold
            alarms[-1].append((normals > threshold).mean())
            defects = normals + 8 * UNLIKE[number][1]
            found.append((defects > threshold).mean())
            found_by_all.append((defects > calibration.all.threshold).mean())
    return np.mean(alarms, 0), np.std(alarms, 0) / np.sqrt(repeats), np.mean(found), np.mean(found_by_all)


@pytest.mark.parametrize("rate", [0.01, 0.05])
@pytest.mark.parametrize("sizes", [(5, 8, 12, 20, 60), (8, 40, 58, 8, 8)])
@pytest.mark.parametrize("shape", ["normal", "gamma", "lognormal"])
def test_few_normals_a_category_keep_the_rate_and_still_alarm(shape, sizes, rate):
    rng = np.random.default_rng(0)
    draw = {
        "normal": lambda size: rng.normal(size=size),
        "gamma": lambda size: (rng.gamma(2, size=size) - 2) / np.sqrt(2),
        "lognormal": lambda size: (np.exp(rng.normal(0, 0.5, size)) - 1.13) / 0.6,
    }[shape]
    alarms, error, found, found_by_all = observed(draw, sizes, rate)
    assert alarms.mean() <= rate + 3 * np.sqrt((error**2).sum()) / len(sizes)
    assert alarms.mean() >= 0.5 * rate
    assert (alarms <= 1.5 * rate + 3 * error).all()  # of skewed scores, the smallest category's
    # all categories' raw scores together find the defects of the one whose scores are highest
    assert found > 0.6
    assert found > found_by_all + 0.2


def test_a_category_with_heavier_tails_than_the_others_alarms_more_often():
    """What the assumption is worth: with Student's t of 3 degrees of freedom twice the rate, not ten times."""
    rng = np.random.default_rng(0)
    rates = []
    for _ in range(300):
        scores = {"a": rng.normal(size=60), "b": rng.normal(size=60), "heavy": rng.standard_t(3, size=20)}
        calibration = Calibration.fit({name: each.tolist() for name, each in scores.items()}, 0.01)
        rates.append((rng.standard_t(3, size=400) > calibration.of("heavy").threshold).mean())
    assert 0.01 < np.mean(rates) < 0.03


def test_borrowed_p_values_are_no_smaller_than_they_should_be():
    rng = np.random.default_rng(0)
    found = []
    for _ in range(300):
        scores = {str(number): rng.normal(10 * number, 1 + number, size) for number, size in enumerate((8, 30, 40))}
        calibration = Calibration.fit({name: each.tolist() for name, each in scores.items()}, 0.02)
        own = calibration.of("0")
        assert not calibration.is_own("0")
        for score in rng.normal(0, 1, 20):
            found.append(own.p_value(score))
            assert (score > own.threshold) == (found[-1] <= 0.02)
    for level in (0.02, 0.05, 0.2, 0.5):
        assert np.mean(np.array(found) <= level) <= level + 4 * np.sqrt(level / 6000) + 0.1 * level


def test_equal_scores_have_a_threshold():
    calibration = Calibration.fit({"nut": [3.0] * 5, "bolt": [4.0] * 20}, 0.05)
    assert calibration.of("nut").threshold == pytest.approx(3.0)
    assert np.isfinite(calibration.of("nut").p_value(3.5))
    assert calibration.of("nut").p_value(3.5) <= 0.05


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


@pytest.mark.parametrize(("alarms", "loud"), [(0, True), (2, True), (3, False), (40, False)])
def test_a_threshold_that_made_anomalies_hardly_exceed_is_said_loudly(alarms, loud):
    said = hardly_any("nut", MadeAlarms(40, alarms), 0.01)
    assert bool(said) == loud
    if loud:
        assert said.startswith(
            "nut: next to no made anomaly raises an alarm, so expect next to no defect to do so; give"
        )
        assert "(it is 1.00%)" in said
