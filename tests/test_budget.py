"""Thresholds from a budget of alarms, held against looking at every threshold there is."""

import json
import math

import numpy as np
import pyarrow as pa
import pytest
from conftest import fitted, made_images, tiny_score
from made_archive import calibration, score_rows, write_archive
from scipy.stats import binomtest
from typer.testing import CliRunner

from raydiff import cli, storage
from raydiff.errors import DataError, SettingsError
from raydiff.images.table import PART
from raydiff.model.calibration import Calibration
from raydiff.model.description import describe
from raydiff.model.folder import Model, load
from raydiff.model.interval import clopper_pearson
from raydiff.scoring import bulk, parts_table, table
from raydiff.selection import budget
from raydiff.selection import calibrate as calibrating
from raydiff.selection.budget import Budget
from raydiff.verdicts import table as verdicts

CALIBRATION = calibration(("bolt", "cloth", "nut"))
DAYS = 28


@pytest.fixture(scope="module")
def rows():
    """Some images of a category that the model does not know, some that it took for a known one, some of no day."""
    rows = score_rows(6000, CALIBRATION, DAYS)
    rng = np.random.default_rng(3)
    category = np.array(rows["category"].to_pylist(), object)
    guessed = np.full(6000, None, object)
    category[rng.random(6000) < 0.05] = "screw"
    taken = (category == "screw") & (rng.random(6000) < 0.5)
    guessed[taken] = "bolt"
    undated = rng.random(6000) < 0.02
    day = pa.array(rows["day"].to_pylist(), pa.date32())
    replaced = {
        "category": pa.array(category),
        "category_guessed": pa.array(guessed, pa.string()),
        "day": pa.array(
            [None if none else each for none, each in zip(undated, day.to_pylist(), strict=True)], pa.date32()
        ),
    }
    for name, column in replaced.items():
        rows = rows.set_column(rows.column_names.index(name), name, column)
    return rows


@pytest.fixture(scope="module")
def out(tmp_path_factory, rows):
    return write_archive(tmp_path_factory.mktemp("scores"), rows, CALIBRATION)


def by_hand(rows, found, dated=True):
    """Of each image that counts: uri, day and whether it raises an alarm."""
    return [
        (row["uri"], row["day"], row["score"] > found.of(row["category_guessed"] or row["category"]).threshold)
        for row in rows.to_pylist()
        if row["score"] is not None and (row["day"] is not None or not dated)
    ]


@pytest.mark.parametrize("alarms_per_day", [0.02, 0.5, 1, 1.5, 2.13, 4, 12, 40])
def test_the_archive_raises_what_the_budget_allows(rows, out, alarms_per_day):
    found = budget.fit(out, CALIBRATION, Budget(alarms_per_day), 0.01)
    told = by_hand(rows, found.calibration)
    alarms = [(uri, day) for uri, day, alarm in told if alarm]
    assert found.alarms == len(alarms) == math.floor(alarms_per_day * DAYS)  # no two distances are equal
    assert (found.images, found.days, found.without_day) == (len(told), DAYS, rows["day"].null_count)
    days = [day for _, day in alarms]
    assert found.most_in_a_day == max((days.count(day) for day in set(days)), default=0)
    assert found.alarms_before == sum(alarm for *_, alarm in by_hand(rows, CALIBRATION))
    for name, own in found.calibration.categories.items():
        above = sum(score > own.threshold for score in own.scores)
        assert found.categories[name][:2] == (above, 400)
    assert found.normals.alarms == sum(each.alarms for each in found.categories.values())


def test_the_rule_is_the_largest_distance_that_leaves_room(rows, out):
    """The farthest images alarm, by a distance worked out image by image."""
    found = budget.fit(out, CALIBRATION, Budget(1), 0.01).calibration
    distance = {}
    for row in rows.to_pylist():
        if row["score"] is not None and row["day"] is not None:
            own = CALIBRATION.of(row["category_guessed"] or row["category"])
            middle = sorted(own.scores)[len(own.scores) // 2]
            distance[row["uri"]] = (row["score"] - middle) / (own.threshold - middle)
    farthest = sorted(distance, key=distance.get)[::-1]
    assert {uri for uri, _, alarm in by_hand(rows, found) if alarm} == set(farthest[:DAYS])
    assert distance[farthest[DAYS]] < found.all.reach < distance[farthest[DAYS - 1]]


def test_a_rate_is_raised_only_as_far_as_it_must(out):
    few, many = (budget.fit(out, CALIBRATION, Budget(each), 0.01).calibration for each in (1, 40))
    assert few.rate == 0.01
    assert few.all.reach > 1
    assert many.rate > 0.01
    enough = [rate for rate in budget.RATES if rate >= 0.01 and _alarms_at(out, rate) >= 40 * DAYS]
    assert many.rate == enough[0]
    assert many.all.reach >= 1
    with pytest.raises(DataError, match="even at a false-alarm rate of 50% no more than"):
        budget.fit(out, CALIBRATION, Budget(190), 0.01)


def _alarms_at(out, rate):
    moved = Calibration.fit({name: own.scores for name, own in CALIBRATION.categories.items()}, rate)
    return sum(alarm for *_, alarm in by_hand(table.read(out), moved))


def test_no_threshold_is_below_that_of_the_rate(out):
    found = budget.fit(out, CALIBRATION, Budget(0.5), 0.02).calibration
    lowest = CALIBRATION.at(0.02)
    for name in (*CALIBRATION.categories, "screw"):
        assert found.of(name).threshold > lowest.of(name).threshold
        assert found.of(name).promised


def test_images_per_day_stand_in_for_days(tmp_path, rows):
    place = rows.column_names.index("day")
    out = write_archive(tmp_path, rows.set_column(place, "day", pa.nulls(len(rows), pa.date32())), CALIBRATION)
    with pytest.raises(DataError, match="knows no image's day; give --images-per-day"):
        budget.fit(out, CALIBRATION, Budget(3), 0.01)
    found = budget.fit(out, CALIBRATION, Budget(3, 500), 0.01)
    assert (found.days, found.alarms, found.most_in_a_day, found.without_day) == (12, 36, None, 0)
    assert "36 of 5,9" in found.sentences()[0]


def test_equal_scores_alarm_together_or_not_at_all(tmp_path):
    rows = score_rows(100, calibration(("bolt",)), days=1)
    scores = pa.array([50.0] * 5 + [40.0] * 7 + [0.0] * 88)
    rows = rows.set_column(rows.column_names.index("score"), "score", scores)
    out = write_archive(tmp_path, rows, CALIBRATION)
    alarms = {allowed: budget.fit(out, CALIBRATION, Budget(allowed), 0.01).alarms for allowed in (0.5, 4, 5, 8, 11, 12)}
    assert alarms == {0.5: 0, 4: 0, 5: 5, 8: 5, 11: 5, 12: 12}


def test_recall_is_counted_on_the_verdicts_that_count(tmp_path, rows):
    out = write_archive(tmp_path, rows, CALIBRATION)
    assert budget.fit(out, CALIBRATION, Budget(1), 0.01).defects is None
    rng = np.random.default_rng(5)
    uris = rng.choice(rows["uri"].to_pylist(), 900, replace=False).tolist()
    noon = np.datetime64("2026-05-07T12:00").item()
    said = rng.choice(verdicts.VERDICTS, (2, 900))
    for hour, each in enumerate(said):
        given = [
            verdicts.Verdict(uri, str(one), "ada", noon.replace(hour=12 + hour))
            for uri, one in zip(uris, each, strict=True)
        ]
        verdicts.append(out, verdicts.of(given))
    found = budget.fit(out, CALIBRATION, Budget(12), 0.01)
    last = dict(zip(uris, said[1].tolist(), strict=True))
    for name, share in (("defect", found.defects), ("normal", found.judged_normals)):
        mine = [alarm for uri, _, alarm in by_hand(rows, found.calibration) if last.get(uri) == name]
        assert share[:2] == (sum(mine), len(mine))
        assert share[2:] == pytest.approx(binomtest(sum(mine), len(mine)).proportion_ci(0.95, "exact"))


@pytest.mark.parametrize(
    "given",
    [
        *(Budget(0), Budget(-1), Budget(math.nan), Budget(math.inf), Budget(1, 0), Budget(1, math.inf)),
        *(Budget(1e9), Budget(1, 1e-9), Budget(1, 5e-324)),
    ],
)
def test_a_budget_that_is_none_is_refused(out, given):
    with pytest.raises(SettingsError, match=r"per-day are numbers above 0|more than 1,000,000"):
        budget.fit(out, CALIBRATION, given, 0.01)


@pytest.mark.parametrize("given", [Budget(1), Budget(1, 500)])
def test_an_archive_without_rows_has_no_budget(tmp_path, rows, given):
    table.write(table.part_uri(str(tmp_path), "0"), rows.slice(0, 0))
    with pytest.raises(DataError, match="holds no images; score some first"):
        budget.fit(str(tmp_path), CALIBRATION, given, 0.01)


@pytest.mark.parametrize(("hits", "of"), [(0, 0), (0, 7), (7, 7), (1, 400), (17, 40), (3, 10**6)])
def test_the_interval_is_clopper_and_pearsons(hits, of):
    expected = binomtest(hits, of).proportion_ci(0.95, "exact") if of else (0, 1)
    assert clopper_pearson(hits, of) == pytest.approx(tuple(expected), rel=1e-9)


def test_a_fresh_archive_of_the_same_kind_raises_as_many_in_the_mean(tmp_path):
    allowed, counts = 40, []
    for seed in range(30):
        first, second = (score_rows(2000, CALIBRATION, days=4, seed=1000 * half + seed) for half in (1, 2))
        out = str(tmp_path / f"{seed}")
        table.write(table.part_uri(out, "0"), first)
        found = budget.fit(out, CALIBRATION, Budget(allowed / 4), 0.01).calibration
        counts.append(sum(alarm for *_, alarm in by_hand(second, found)))
    # Of 2,000 images another lies above the middle between the 40th and the 41st with a chance of 40.5 in 2,001; the
    # count on the first archive and on the second both vary as a Poisson distribution's.
    assert abs(np.mean(counts) - 40.5) < 4 * math.sqrt(2 * allowed / 30)


# The reach of a calibration


def test_a_reach_survives_its_json_and_is_not_there_without_one():
    moved = CALIBRATION.at(0.02, 1.25)
    again = Calibration.parse(json.loads(json.dumps(moved.model_dump(mode="json"))))
    assert again == moved
    assert again.of("bolt").threshold == moved.of("bolt").threshold
    assert "reach" not in json.dumps(CALIBRATION.model_dump(mode="json"))
    assert CALIBRATION.at(CALIBRATION.rate) == CALIBRATION
    assert "thresholds lie 1.25 times as far" in moved.sentences()[-1]
    with pytest.raises(SettingsError, match="reach"):
        Calibration.parse({**moved.model_dump(), "all": {"scores": [1], "rate": 0.1, "reach": 0.9}})


@pytest.mark.parametrize("seed", range(3))
def test_fresh_normals_raise_no_more_than_the_rate_whatever_the_archive_was(tmp_path, seed):
    """Normals of a few images a category (which borrow their tail), an archive of other scores, many fresh normals."""
    rng = np.random.default_rng(seed)
    found = []
    for number in range(60):
        normals = {name: (5 * place + rng.normal(size=120)).tolist() for place, name in enumerate("ab")}
        calibrated = Calibration.fit(normals, 0.05)
        rows = score_rows(400, calibrated, days=4, seed=seed)
        place = rows.column_names.index("score")
        wild = rng.normal(size=400) + np.where(rng.random(400) < 0.2, 2.0, 0) + 5 * (np.array(rows["category"]) == "b")
        out = str(tmp_path / f"{number}")
        table.write(table.part_uri(out, "0"), rows.set_column(place, "score", pa.array(wild)))
        fitted = budget.fit(out, calibrated, Budget(3), 0.05).calibration
        assert fitted.rate == 0.05
        found += [
            float(np.mean(5 * at + rng.normal(size=2000) > fitted.of(name).threshold)) for at, name in enumerate("ab")
        ]
    assert np.mean(found) <= 0.05


# Parts


def test_a_part_alarms_where_its_worst_view_is_above_the_threshold(tmp_path):
    reached = CALIBRATION.at(0.01, 1.6)
    rows = score_rows(3000, reached)
    part = pa.array([f"{number // 3}" if number % 2 else None for number in range(3000)])
    rows = rows.append_column(PART, part)
    alarms = {}
    for name, calibrated in (("reached", reached), ("plain", CALIBRATION)):
        out = write_archive(tmp_path / name, rows, calibrated)
        found = table.read_file(parts_table.table_uri(out), ["uri", "views", "score", "threshold", "is_anomalous"])
        told = [row for row in found.to_pylist() if row["is_anomalous"]]
        alarms[name] = {row["uri"] for row in told}
        if name == "reached":
            assert all(row["score"] > row["threshold"] for row in told)
            single = {row["uri"] for row in found.to_pylist() if row["views"] == 1}
            images = {row["uri"] for row in rows.to_pylist() if row["is_anomalous"]}
            assert alarms[name] & single == images & single
    assert alarms["reached"] < alarms["plain"]


# The step


@pytest.fixture
def run(tmp_path):
    """A run with a calibrated model, and its URI."""
    out = tmp_path / "run"
    model = Model(fitted("nearest_patch", made_images(6))[0], tiny_score("nearest_patch"), CALIBRATION)
    model.card["made_anomalies"] = {"bolt": {"made": 4, "alarms": 3}}
    model.save(str(out / "models/nearest_patch"))
    storage.write_bytes(str(out / "images.parquet"), b"")
    return str(out)


def archive_of(run, folder, rows):
    """An archive of these rows that the run's model has scored, as the job keeps it, and how a budget is asked for."""
    place = f"{run}/models/nearest_patch"
    out = write_archive(folder, rows, CALIBRATION)
    storage.write_json(storage.join(out, "run.json"), {"model_id": describe(place)["id"]})
    storage.write_json(storage.join(out, "model.json"), describe(place))
    return out, ["calibrate", "--out", run, "--model", "nearest_patch", "--archive", out]


def test_the_command_sets_a_models_thresholds(tmp_path, rows, run):
    place = f"{run}/models/nearest_patch"
    out = write_archive(tmp_path / "scores", rows, CALIBRATION)
    asked = ["calibrate", "--out", run, "--model", "nearest_patch", "--alarms-per-day", "2", "--archive", out]
    refused = CliRunner().invoke(cli.app, asked)
    assert isinstance(refused.exception, DataError)
    assert "holds the scores of another model" in str(refused.exception)
    for name in ("run.json", "model.json"):  # as the job keeps them, of this model
        described = {"model_id": describe(place)["id"]} if name == "run.json" else describe(place)
        storage.write_json(storage.join(out, name), described)
    before = describe(place)["id"]
    document = json.loads(CliRunner().invoke(cli.app, [*asked, "--json"]).stdout)
    assert document["budget"]["alarms"] == 2 * DAYS
    model = load(place, "cpu")
    assert document["id"] == model.id == describe(place)["id"] != before
    assert sum(alarm for *_, alarm in by_hand(rows, model.calibration)) == 2 * DAYS
    assert document["categories"]["bolt"]["threshold"] == model.calibration.of("bolt").threshold
    assert model.card["made_anomalies"] == {}
    assert (model.card["budget"]["alarms_per_day"], model.card["budget"]["archive"]) == (2, out)
    # Of the archive's own model it is still known, though its thresholds have changed, and the rule is the same.
    again = CliRunner().invoke(cli.app, asked)
    assert again.exit_code == 0
    assert "2 alarms a day on the archive (56 of" in again.stdout
    assert "by the thresholds of before 2." in again.stdout
    assert describe(place)["id"] == document["id"]


@pytest.mark.parametrize("given", [["--alarms-per-day", "2"], ["--archive", "x"], ["--images-per-day", "9"]])
def test_half_a_budget_is_refused(run, given):
    done = CliRunner().invoke(cli.app, ["calibrate", "--out", run, "--model", "nearest_patch", *given])
    assert isinstance(done.exception, SettingsError)
    assert "a budget is --alarms-per-day together with --archive" in str(done.exception)


def test_a_model_that_is_not_calibrated_has_no_budget(tmp_path, rows, run):
    place = f"{run}/models/nearest_patch"
    model = load(place, "cpu")
    model.calibration = None
    model.save_description(place)
    out = write_archive(tmp_path / "scores", rows, CALIBRATION)
    storage.delete(storage.join(out, "model.json"))
    storage.write_json(storage.join(out, "run.json"), {"model_id": model.id})
    asked = ["calibrate", "--out", run, "--model", "nearest_patch", "--alarms-per-day", "2", "--archive", out]
    done = CliRunner().invoke(cli.app, asked)
    assert isinstance(done.exception, DataError)
    assert "is not calibrated; run `raydiff calibrate" in str(done.exception)


@pytest.mark.parametrize("manifest", [None, {"complete": False, "shards": {}}])
def test_a_half_scored_archive_is_refused(tmp_path, rows, run, manifest):
    out, asked = archive_of(run, tmp_path / "scores", rows)
    place = storage.join(out, table.MANIFEST)
    if manifest is None:
        storage.delete(place)
    else:
        storage.write_json(place, manifest)
    done = CliRunner().invoke(cli.app, [*asked, "--alarms-per-day", "2"])
    assert isinstance(done.exception, DataError)
    assert "is not scored to its end; score the rest first with jobs/score_archive.py" in str(done.exception)


def test_a_budget_starts_from_the_rate_that_was_last_asked_for(tmp_path, rows, run):
    place = f"{run}/models/nearest_patch"
    model = load(place, "cpu")
    model.calibration = CALIBRATION.at(0.002)
    model.save_description(place)
    _, asked = archive_of(run, tmp_path / "scores", rows)
    rates = []
    # 40 a day raise the rate, whose place the one asked for keeps.
    for more in (["1"], ["40"], ["1"], ["1", "--false-alarm-rate", "0.005"], ["1"]):
        assert CliRunner().invoke(cli.app, [*asked, "--alarms-per-day", *more]).exit_code == 0
        model = load(place, "cpu")
        rates.append((model.card["budget"]["asked_rate"], model.calibration.rate > model.card["budget"]["asked_rate"]))
    assert rates == [(0.002, False), (0.002, True), (0.002, False), (0.005, False), (0.005, False)]


def test_made_anomalies_have_no_place_in_a_budget(run):
    asked = ["calibrate", "--out", run, "--model", "nearest_patch", "--alarms-per-day", "2", "--archive", "x"]
    done = CliRunner().invoke(cli.app, [*asked, "--pseudo-images", "9"])
    assert isinstance(done.exception, SettingsError)
    assert "leave out --pseudo-images" in str(done.exception)


def test_a_plain_calibration_forgets_the_budget(tmp_path, rows, run, monkeypatch):
    place = f"{run}/models/nearest_patch"
    _, asked = archive_of(run, tmp_path / "scores", rows)
    assert CliRunner().invoke(cli.app, [*asked, "--alarms-per-day", "2"]).exit_code == 0
    assert "budget" in load(place, "cpu").card
    monkeypatch.setattr(bulk, "score_table", lambda *_, **__: None)  # the scores are there
    monkeypatch.setattr(calibrating, "_made_anomalies", lambda *_: {})
    scores = str(tmp_path / "normals")
    table.write(table.part_uri(scores, "0"), rows)
    calibrating.calibrate(None, place, "", scores)
    model = load(place, "cpu")
    assert "budget" not in model.card
    assert model.calibration.all.reach == 1
