"""Dry runs: the arithmetic of a plan, its storage against what is really written, and that nothing is written."""

from __future__ import annotations

import runpy
from collections import Counter
from itertools import repeat
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
import typer
from conftest import calibrated_model, fitted, made_images, tiny_score, tiny_settings, write_mvtec
from main_job import ROOT
from PIL import Image
from typer.testing import CliRunner

from raydiff import cluster, methods, progress, steps, storage
from raydiff.errors import ClusterError, RaydiffError
from raydiff.images import archive, pack
from raydiff.images import table as image_table
from raydiff.images.holdout import roles
from raydiff.images.stream import Reading
from raydiff.images.survey import survey
from raydiff.model.description import describe
from raydiff.model.folder import Model, load
from raydiff.planning import measure, timing
from raydiff.planning.archive import plan_archive
from raydiff.planning.measure import Scoring, Training, decoded, scoring, state_bytes, table_bytes
from raydiff.planning.plan import Plan, print_plan, size
from raydiff.planning.timing import Sample, Timing, pipelined, timed
from raydiff.planning.training import (
    MethodPlan,
    by_category,
    plan_training,
    trials_of,
)
from raydiff.run_folder import ROLES, RunFolder
from raydiff.scoring import archive_run, table
from raydiff.scoring.archive_run import list_images, score_archive
from raydiff.scoring.bulk import claim
from raydiff.selection.pseudo_validation import PseudoValidationSettings, pseudo_validation_set
from raydiff.selection.space import Stage as Tried
from raydiff.selection.staged_search import GUESSED
from raydiff.training.loop import TrainingLoop
from raydiff.training.store import ExampleStore, finish, part_uri, write_part
from raydiff.training.workers import Workers


class Clock:
    """A time that passes only when it is told to."""

    def __init__(self, monkeypatch) -> None:
        self.now = 0.0
        monkeypatch.setattr(timing.time, "monotonic", lambda: self.now)
        monkeypatch.setattr(timing.time, "process_time", lambda: 2 * self.now)

    def taking(self, seconds: float, units: int = 1):
        def call() -> int:
            self.now += seconds
            return units

        return call


# Arithmetic


def test_the_first_call_warms_up(monkeypatch):
    clock = Clock(monkeypatch)
    assert timed([clock.taking(5), *repeat(clock.taking(2, 4), 9)], 6) == Timing(0.5, 1.0)
    assert clock.now == 5 + 3 * 2


def test_a_long_first_call_or_a_single_one_counts(monkeypatch):
    clock = Clock(monkeypatch)
    assert timed(repeat(clock.taking(7, 2)), 6) == Timing(3.5, 7.0)
    assert timed([clock.taking(1)], 6) == Timing(1, 2)
    assert clock.now == 8


def test_the_slowest_stage_or_the_processors_set_the_pace():
    waits, works = Timing(0.8, 0.0), Timing(0.1, 0.1)
    assert pipelined(164, [(waits, 4), (works, 2)], 2) == pytest.approx(64 * 0.9 + 100 * 0.2)
    assert pipelined(164, [(works, 8), (works, 8)], 2) == pytest.approx(64 * 0.2 + 100 * 0.1)
    assert pipelined(10, [(works, 8)], 2) == pytest.approx(1.0)


def test_statistics_are_extrapolated_from_what_time_allows(monkeypatch):
    clock = Clock(monkeypatch)

    class Slow:
        def fit_statistics(self, examples, seed, report):
            for _ in range(2):
                seen = 0
                for batch in examples.batches():
                    clock.now += 0.1 * len(batch)
                    seen += len(batch)
            for done in range(50, 1001, 50):
                clock.now += 0.01 * seen / len(examples) * 50
                report("bank", done, 1000)

    found = Sample(torch.zeros(3, 2), [400, 600], seconds=20).fit_seconds(Slow())
    assert found == pytest.approx(2 * 1000 * 0.1 + 1000 * 0.01)
    assert clock.now < 60
    clock.now = 0.0
    assert Sample(torch.zeros(3, 2), [400, 600], seconds=1e6).fit_seconds(Slow()) == pytest.approx(clock.now)


def test_a_sample_stands_for_as_many_examples_as_it_is_told():
    given = torch.arange(3.0)[:, None]
    examples = Sample(given, [150, 50], seconds=60)
    assert torch.cat(list(examples.batches()))[:, 0].tolist() == [place % 3 for place in range(200)]
    assert examples.take([5, 199])[:, 0].tolist() == [2, 1]
    assert len(examples) == len(examples.categories) == 200


def test_the_sets_of_a_tuning_are_those_it_makes():
    method, _ = fitted("nearest_patch", made_images(8))
    normals = {"bolt": made_images(7), "cloth": made_images(3), "gear": made_images(1)}
    bounds = PseudoValidationSettings(normals=4, anomalies=5)
    made = pseudo_validation_set(method, normals, bounds, 0).counts()
    rows = [(name, 0, "tune") for name, images in normals.items() for _ in images]
    tested = 9 * [("bolt", 0)] + 2 * [("bolt", 1)] + 8 * [("cloth", 1)] + 3 * [("gear", None)]
    rows += [(*row, "test") for row in tested]
    images = pa.table({"category": [row[0] for row in rows], "label": [row[1] for row in rows]})
    found = by_category(images, [row[2] for row in rows], bounds)
    pseudo = {name: sum(counts) for name, counts in made.items()}
    assert {name: counts["made"] for name, counts in found.items()} == {"bolt": 5, "cloth": 5, "gear": 0}
    assert {name: counts["tried"] for name, counts in found.items()} == {
        "bolt": pseudo["bolt"] + 4 + 2,
        "cloth": pseudo["cloth"] + 5,
        "gear": 0,
    }


def test_the_trials_of_a_tuning():
    def unknown(chosen, finished):
        return finished[0]["trials"][0]["no such result"]

    start = methods.get("nearest_patch").ScoreSettings(blur_sigma=1.0)
    stages = [
        Tried(name="one", candidates={"neighbours": (2, 3)}),
        Tried(name="again", candidates={"neighbours": (1, 2), "blur_sigma": (1.0, 2.0)}),
    ]
    found, chosen = trials_of(stages, start)
    assert (chosen.neighbours, chosen.blur_sigma) == (2, 2.0)
    told = {stage: [(score.neighbours, score.blur_sigma) for score in scores] for stage, scores in found.items()}
    assert told == {"one": [(2, 1.0), (3, 1.0)], "again": [(1, 1.0), (1, 2.0), (2, 2.0)]}  # (2, 1.0) is known
    more, _ = trials_of([*stages, Tried(name="later", candidates=unknown)], start)
    assert trials_of([stages[0].model_copy(update={"margin": 0.1})], start)[1].neighbours == 2
    assert more.keys() == {"one", "again", "later"}
    assert len(more["later"]) == GUESSED


@pytest.fixture
def two_cpus(monkeypatch):
    """A cluster of two CPUs that is not there."""
    for name, value in {"connect": None, "devices": 2, "cpus": 2, "gpus": 0, "worker_options": {}}.items():
        monkeypatch.setattr(cluster, name, lambda *given, value=value: value)


def test_a_method_over_two_runs(two_cpus):
    costs = Training(
        scoring=Scoring(Timing(1, 0), Timing(2, 0), Timing(0, 0), 0.25, 5_000, 100.0, 1e6, "1 GB"),
        example=Timing(1, 0),
        trial=0.5,
        fit=11.0,
        fit_memory="2 GB",
        step=0.5,
        step_memory="3 GB",
        example_bytes=1_000,
        state_bytes=7_000,
        checkpoint_bytes=20_000,
        tiles=1.0,
    )
    images = Counter(fit=256, tune=8, calibrate=128, test=128, made=12, tried=40)
    settings = tiny_settings("lafite", train_steps=32, batch_size=8)
    plan = MethodPlan("lafite", settings, costs, 0.0, images, 2, [2, 1], (2, 1), "lafite", "tiff")
    *steps, evaluation = plan.steps()
    assert {step.name: step.amount - 2 * timing.starting(step.name, 0.0) for step in steps} == pytest.approx(
        {
            "examples": 2 * (64 * 2 + 64 * 0.5),
            "statistics": 22,
            "training": 2 * (32 * 0.5 + 10 * timing.CHECKPOINT),
            "tuning": (28 + 8) * 1 + 40 * 1 + 8 * 2 + 2 * (40 * 0.5 + 2 * timing.TRIALS),
            "calibrating and scoring": 2 * 2 * 64 * 3 + 12 * 2,
        }
    )
    assert evaluation.amount == 32
    slow = plan._replace(start=10.0)
    assert slow.steps()[1].amount - plan.steps()[1].amount == pytest.approx(2 * 10 * timing.STARTS["statistics"][1])
    assert [each.amount for each in plan.stored()] == [256e3, 28_000, 80_000, 14_000, 4 * 5_000 + 25_600, 128e6]
    assert "2 workers with 1 CPU each, batch size 8, 32 steps = 2 epochs of 128 images" in plan.facts()
    tiled = plan._replace(costs=costs._replace(tiles=4.0))
    assert "2 workers with 1 CPU each, batch size 8, 32 steps = 0.5 epochs of 512 tiles" in tiled.facts()
    other = plan._replace(owner="glad")
    assert other.steps()[0] == ("examples", 0.0, "those of glad")
    assert other.stored()[0].name != "examples (work)"


def test_sizes_in_words():
    assert [size(count) for count in (0, 999, 1234, 5.6e9, 7e15)] == ["0 B", "999 B", "1.23 kB", "5.6 GB", "7e+03 TB"]


# Images


@pytest.mark.parametrize("per_category", [False, True])
def test_the_images_of_a_run_are_those_of_the_real_one(tmp_path, per_category):
    data, out = write_mvtec(tmp_path / "mvtec", train=12, test=3), str(tmp_path / "run")
    steps.index(str(data), out)
    places = steps.split(out) if per_category else {"": out}
    images = survey(str(data)).images
    found = by_category(images, roles(images), PseudoValidationSettings())
    total = {"": sum(found.values(), Counter())}
    assert {name: counts["images"] for name, counts in found.items()} == {"bolt": 18, "cloth": 18}
    for name, counts in (found if per_category else total).items():
        folder = RunFolder(places[name])
        assert {role: counts[role] for role in ROLES} == {
            role: image_table.read(folder.table(role)).num_rows for role in ROLES
        }


# Storage and state, against what is really written


@pytest.mark.parametrize("name", methods.names())
def test_statistics_that_stand_in_have_the_size_of_real_ones(name):
    images = made_images(8)
    real, examples = fitted(name, images, categories=["0"] * 8)  # names cost next to nothing
    planned = methods.get(name)(tiny_settings(name)).eval()
    planned.stand_in(examples.take([0, 1]), [len(images)])
    assert {k: v.shape for k, v in planned.state_dict().items()} == {k: v.shape for k, v in real.state_dict().items()}


def close(planned: float, path: Path) -> bool:
    return path.stat().st_size == pytest.approx(planned, rel=0.03, abs=8_000)


def test_planned_storage_is_what_files_take(tmp_path):
    method, examples = fitted("lafite", made_images(8))
    Model(method, method.ScoreSettings()).save(str(tmp_path / "model"))
    assert close(state_bytes(method.state_dict()), tmp_path / "model/weights.safetensors")

    store = str(tmp_path / "store")
    write_part(store, 0, examples.examples, examples.categories)
    finish(store, {0: 8}, {}, {})
    assert close(state_bytes(examples.examples), Path(part_uri(store, 0)))

    loop = TrainingLoop(method, ExampleStore(store), seed=0)
    loop.advance()
    torch.save(loop.state(), tmp_path / "state.pt")
    assert (tmp_path / "state.pt").stat().st_size == pytest.approx(state_bytes(loop.state()), rel=0.3)


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    return calibrated_model(tmp_path_factory.mktemp("model"), "bolt", "cloth")


@pytest.fixture(scope="module")
def line(tmp_path_factory) -> Path:
    """40 images of 60 x 50 in two folders."""
    root = tmp_path_factory.mktemp("archive") / "line"
    for number, image in enumerate(made_images(40, 60, seed=4)[:, :, :50]):
        folder = root / ("bolt", "cloth")[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / f"{number:03d}.png")
    return root


def files(root: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in root.rglob("*")}


@pytest.mark.parametrize("maps", ["none", "tiff", "png"])
def test_planned_scores_and_maps_are_as_large_as_real_ones(model, line, tmp_path, maps):
    images = str(tmp_path / "images")
    list_images(describe(model), str(line), images)
    (shard,) = archive.shards(images)
    rows = archive.read_shard(shard.uri)
    loaded = load(model, "cpu")
    columns, decode = decoded(rows, Reading(loaded.image_size), None, 0)
    assert len(columns["image"]) == 32  # after the first 16, which warm up, a measurement of no length took 16
    found = scoring(loaded, columns, decode, maps, 0)
    assert found.memory.endswith("B")
    assert min(found.score.wall, found.write.wall, decode.wall) > 0
    assert (found.evaluate > 0) == (maps == "tiff")

    scored = loaded.score([np.asarray(Image.open(uri)) for uri in rows["uri"].to_pylist()])
    records = [
        row | {"score": score, "p_value": score / 3, "threshold": 1.5, "is_anomalous": False, "details": []}
        for row, score in zip(rows.to_pylist(), scored.scores.tolist(), strict=True)
    ]
    for record, digest in zip(records, columns["content_hash"].tolist() * 2, strict=False):
        record |= {"content_hash": digest, "model_id": "0" * 16, "method": "nearest_patch"}
    table.write(str(tmp_path / "scores.parquet"), pa.Table.from_pylist(records, schema=table.SCHEMA))
    real = (tmp_path / "scores.parquet").stat().st_size
    assert real == pytest.approx(found.file_bytes + len(rows) * found.row_bytes, rel=0.5)
    assert (found.map_bytes > 0) == (maps != "none")
    if maps == "tiff":
        assert found.map_bytes == pytest.approx(4 * 60 * 50, rel=0.05)
    assert not (tmp_path / "anomaly_maps").exists()
    whole = pa.concat_tables([rows.slice(0, 1).set_column(0, "uri", pa.array([f"{n:06d}.png"])) for n in range(2000)])
    archive.write_shard(str(tmp_path), "whole", whole)
    assert (tmp_path / "whole.parquet").stat().st_size == pytest.approx(2000 * table_bytes(whole)[1], rel=0.5)


# Archives


SCORING = Scoring(Timing(0.5, 0.1), Timing(0.1, 0.1), Timing(0.1, 0.1), 0.0, 5_000, 100.0, 0.0, "1 GB")


@pytest.fixture
def looked_at(monkeypatch, two_cpus) -> list[pa.Table]:
    """The rows that plans of archives measure."""
    found: list[pa.Table] = []

    def measured(task, options, model_uri, rows, *given):
        found.append(rows)
        return SCORING, 3.0, 2.0

    monkeypatch.setattr(measure, "measured", measured)
    return found


def test_what_is_new_and_what_is_scored_already(model, line, tmp_path, looked_at):
    out = str(tmp_path / "out")
    before = files(tmp_path)
    (section,) = plan_archive(model, str(line), out).sections
    assert section.facts[0] == "40 images, 0 scored already, 40 to be scored"
    assert section.steps[0].note == "40 files, measured as a whole"
    assert files(tmp_path) == before
    uris = sorted(str(path) for path in (line / "bolt").glob("*.png"))[:10]
    listed = pa.Table.from_pylist(
        [{"uri": uri, "dataset": "line", "category": "bolt", "split": "test"} for uri in uris], archive.SCHEMA
    )
    archive.grow(storage.join(out, "images"), [listed.slice(0, 6)])
    archive.grow(storage.join(out, "images"), [listed.slice(6)])
    first, _ = archive.shards(storage.join(out, "images"))
    table.write(table.part_uri(out, first.name), table.SCHEMA.empty_table())
    before = files(tmp_path)
    (section,) = plan_archive(model, str(line), out).sections
    assert section.facts[0] == "40 images, 6 scored already, 34 to be scored"
    assert section.stored[0].amount == pytest.approx(30 * table_bytes(looked_at[-1])[1])  # new rows of the image table
    assert not set(looked_at[-1]["uri"].to_pylist()) & set(uris)
    assert files(tmp_path) == before


def test_the_steps_of_an_archive(model, line, tmp_path, looked_at):
    made = plan_archive(model, str(line), str(tmp_path / "out"))
    (section,) = made.sections
    seconds = {step.name: step.amount for step in section.steps}
    assert list(seconds) == ["listing", "start", "scoring", "end"]
    assert seconds["scoring"] == pytest.approx(40 * (0.5 + 0.1 + 0.1))
    assert seconds["start"] >= timing.starting("archive", 2.0)
    assert seconds["end"] == timing.starting("end", 2.0)
    assert made.seconds == sum(seconds.values())


# The errors of the real job


def said_by(call, *arguments) -> str:
    with pytest.raises(RaydiffError) as caught:
        call(*arguments)
    return f"{type(caught.value).__name__}: {caught.value}"


@pytest.fixture
def plan(tmp_path):
    """Plans a run of nearest_patch into a folder that is not there."""

    def make(data, workers=None, pseudo_images=4, rate=0.2, maps="tiff", per_category=False, method="nearest_patch"):
        recipes = {method: tiny_settings(method)}
        out = str(tmp_path / "run")
        return plan_training(str(data), out, recipes, per_category, workers, pseudo_images, rate, maps, seconds=0)

    return make


@pytest.mark.parametrize("data", ["nowhere", "empty", "nope://bucket/images"])
def test_missing_data_is_named_as_by_the_job(plan, tmp_path, data):
    (tmp_path / "empty").mkdir()
    place = data if "://" in data else str(tmp_path / data)
    assert said_by(plan, place) == said_by(steps.index, place, str(tmp_path / "run"))


def test_settings_that_a_later_step_would_refuse(plan, tmp_path):
    data = write_mvtec(tmp_path / "mvtec", train=12, test=1)
    with pytest.raises(RaydiffError, match=r"normals: Input should be greater than or equal to 2 \(got 1\)"):
        plan(data, pseudo_images=1)
    with pytest.raises(RaydiffError, match=r"above 0, below 1 \(got 7\)"):
        plan(data, rate=7)


def test_too_few_images_are_named_before_the_training(plan, tmp_path):
    data = write_mvtec(tmp_path / "mvtec", train=3, test=1)  # too few to hold any back
    with pytest.raises(RaydiffError, match=r"bolt 3, cloth 3\); give at least 8"):
        plan(data)


def test_a_plan_is_made_with_the_tile_that_the_training_will_choose(monkeypatch, tmp_path, capsys):
    data = write_mvtec(tmp_path / "mvtec", train=12, test=1, size=100)
    planned = []
    monkeypatch.setattr(cluster, "connect", lambda address: planned.append(address))
    monkeypatch.setattr("raydiff.planning.training._workers", lambda workers: (1, 1))

    def measured(task, options, name, settings, *more):
        planned.append(settings.view.tile)
        raise ClusterError("far enough")

    monkeypatch.setattr(measure, "measured", measured)
    monkeypatch.setattr(cluster, "worker_options", lambda **asked: {})
    monkeypatch.setattr(cluster, "cpus_for_each", lambda count: 1)
    monkeypatch.setattr(measure, "cluster_fact", lambda: "")
    recipes = {"nearest_patch": tiny_settings("nearest_patch", view={"tile": "auto"})}
    with pytest.raises(ClusterError, match="far enough"):
        plan_training(str(data), str(tmp_path / "run"), recipes, False, None, 4, 0.2, "none")
    assert planned == [None, 32]
    assert "tile=auto: tile=32, 16 tiles an image" in capsys.readouterr().out


def test_a_folder_of_other_scores_is_refused_as_by_the_job(model, line, tmp_path):
    out = str(tmp_path / "out")
    images = storage.join(out, "images")
    claim(out, describe(model), images, "none", 1, str(line))
    before = files(tmp_path)
    assert said_by(plan_archive, model, str(line), out) == said_by(score_archive, model, str(line), out)
    assert said_by(plan_archive, str(line), str(line), out) == said_by(score_archive, str(line), str(line), out)
    now = files(tmp_path)
    assert now.keys() == before.keys()
    assert now | {out: before[out]} == before  # but for the time of the folder in which the job looked for others


def test_an_archive_without_images_is_refused_as_by_the_job(model, tmp_path):
    (tmp_path / "empty").mkdir()
    arguments = model, str(tmp_path / "empty")
    said = said_by(plan_archive, *arguments, str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()
    assert said == said_by(archive_run.score_archive, *arguments, str(tmp_path / "out"))


# The jobs


@pytest.mark.parametrize("job", ["train_all", "score_archive"])
def test_a_dry_run_plans_and_does_nothing_else(monkeypatch, tmp_path, job):
    asked, shown, planned = [], [], Plan({}, ())
    for place in ("training.plan_training", "archive.plan_archive"):
        monkeypatch.setattr(f"raydiff.planning.{place}", lambda *given, **named: asked.append(given) or planned)
    monkeypatch.setattr("raydiff.planning.plan.print_plan", shown.append)
    app = typer.Typer()
    app.command()(runpy.run_path(str(ROOT / "jobs" / f"{job}.py"))["main"])
    given = ["--data", "there", "--out", str(tmp_path / "out"), "--dry-run"]
    given += ["--preset", "demo"] if job == "train_all" else ["--model", "m"]
    CliRunner().invoke(app, given, catch_exceptions=False)
    assert len(asked) == 1
    assert shown == [planned]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.ray
def test_a_run_is_planned_and_nothing_is_written(local_ray, plan, tmp_path):
    data = write_mvtec(tmp_path / "mvtec", train=12, test=4)
    with pytest.raises(ClusterError, match="3 workers were asked for"):
        plan(data, workers=Workers(3, 3))
    before = files(tmp_path)
    made = plan(data, per_category=True)
    with progress.console.capture() as printed:
        print_plan(made)
    assert files(tmp_path) == before
    for word in ("bolt", "examples", "statistics", "tuning", "calibrating", "model folder", "maps", "total", "memory"):
        assert word in printed.get()
    assert made.seconds > 0
    (maps,) = [each.amount for section in made.sections for each in section.stored if "maps" in each.name]
    assert maps == pytest.approx(16 * 4 * 40 * 40, rel=0.1)
    assert "fit" in made.images["bolt"]


@pytest.mark.parametrize("name", methods.names())
def test_every_method_is_measured_before_its_training(monkeypatch, tmp_path, name):
    monkeypatch.setattr(cluster, "use_assigned_device", lambda: "cpu")
    settings = tiny_settings(name)
    rows = survey(str(write_mvtec(tmp_path / "mvtec", train=6, test=2))).images
    score = tiny_score(name)
    given = name, settings, rows, [6, 6], [score], score
    found, worked = measure.of_method._function(*given, (1, 1), "tiff", 0.0)
    seconds = [found.trial, found.example.wall, found.scoring.score.wall, found.scoring.evaluate]
    assert min(seconds) > 0
    assert max(seconds) < worked
    trained = methods.get(name)(settings).trained
    assert found.checkpoint_bytes >= 3 * sum(each.nbytes for each in (trained.parameters() if trained else ()))
    assert (found.step > 0) == (trained is not None)
    assert found.fit_memory.endswith("B")
    if trained:
        with pytest.raises(RaydiffError, match=r"batch_size \d is too small for 99 workers"):
            measure.of_method._function(*given, (99, 1), "none", 0.0)


def test_an_image_of_tiles_is_as_many_examples(monkeypatch, tmp_path):
    monkeypatch.setattr(cluster, "use_assigned_device", lambda: "cpu")
    rows = survey(str(write_mvtec(tmp_path / "mvtec", train=6, test=2, size=64))).images
    found, score = {}, methods.get("nearest_patch").ScoreSettings()
    for view in ({}, {"tile": 32, "overlap": 0}):
        settings = tiny_settings("nearest_patch", view=view)
        given = "nearest_patch", settings, rows, [6, 6], [score], score
        found[bool(view)] = measure.of_method._function(*given, (1, 1), "tiff", 0.0)[0]
    assert (found[False].tiles, found[True].tiles) == (1, 4)
    assert found[True].example_bytes == 4 * found[False].example_bytes
    bank = 0.2 * 12 * 4**2 * (64 + 128) * 4  # bytes: a fifth of 12 images' patches, float32
    assert found[True].state_bytes - found[False].state_bytes == pytest.approx(3 * bank, rel=0.05)
    assert found[True].scoring.map_bytes == found[False].scoring.map_bytes


@pytest.mark.ray
def test_an_archive_is_planned_and_nothing_is_written(local_ray, model, line, tmp_path):
    before = files(tmp_path)
    made = plan_archive(model, str(line), str(tmp_path / "out"), maps="tiff", seconds=0)
    assert files(tmp_path) == before
    (section,) = made.sections
    assert section.facts[0] == "40 images, 0 scored already, 40 to be scored"
    assert [step.name for step in section.steps] == ["listing", "start", "scoring", "end"]
    assert {each.name: each.amount for each in section.stored}["anomaly maps (tiff)"] == pytest.approx(
        40 * 4 * 60 * 50, rel=0.05
    )


@pytest.mark.ray
def test_a_packed_archive_is_planned_from_what_it_holds(local_ray, model, line, tmp_path):
    packed, out = str(tmp_path / "packed"), str(tmp_path / "out")
    pack.pack(str(line), packed)
    before = files(tmp_path)
    (section,) = plan_archive(model, packed, out, seconds=0).sections
    assert files(tmp_path) == before
    assert section.facts[0] == "40 images, 0 scored already, 40 to be scored"
    assert {step.name: step.note for step in section.steps}["scoring"].startswith("40 images")
