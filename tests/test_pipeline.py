"""The whole way as a user goes it: the steps one by one, an archive."""

from __future__ import annotations

import runpy
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import typer
from conftest import made_images, with_defect
from main_job import ROOT, check_scored, small_data, tiny
from PIL import Image
from typer.testing import CliRunner

import raydiff
from raydiff import cli, progress, steps, storage
from raydiff.errors import DataError
from raydiff.images.decode import decode
from raydiff.run_folder import RunFolder

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """What all runs here are made of."""
    return small_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def command(local_ray):
    """Runs one command line in this process, on the Ray that all tests share; gives what it prints."""

    def run(app, *arguments: str) -> str:
        with progress.console.capture() as printed:
            CliRunner().invoke(app, list(arguments), catch_exceptions=False)
        return printed.get()

    return run


@pytest.fixture(scope="module")
def steps_run(command, data, tmp_path_factory):
    """A run made step by step, and what each step has printed."""
    out = str(tmp_path_factory.mktemp("steps") / "run")
    model = "--out", out, "--model", "nearest_patch"
    return RunFolder(out), {
        "index": command(cli.app, "index", "--data", str(data), "--out", out),
        "train": command(
            cli.app, "train", "--out", out, "--method", "nearest_patch", "--preset", "demo", *tiny("nearest_patch")
        ),
        "tune": command(cli.app, "tune", *model, "--search", "optuna", "--trials", "2", "--pseudo-images", "6"),
        "calibrate": command(cli.app, "calibrate", *model, "--false-alarm-rate", "0.2"),
        "score": command(cli.app, "score", *model, "--maps", "none"),
        "evaluate": command(cli.app, "evaluate", *model),
        "report": command(cli.app, "report", "--out", out),
    }


def test_the_steps_one_by_one(steps_run):
    run, printed = steps_run
    model = check_scored(run, "nearest_patch", maps=False)
    assert "trained in" in printed["train"]
    tuning = storage.read_json(run.tuning("nearest_patch"))
    assert (tuning["search"], [len(stage["trials"]) for stage in tuning["stages"]]) == ("optuna", [2])
    best = max(tuning["stages"][0]["trials"], key=lambda trial: trial["pseudo_score"])
    assert best["settings"]["neighbours"] == model.score_settings.neighbours == tuning["chosen"]["neighbours"]
    assert model.calibration.rate == 0.2
    assert "scored: 16 images, 16 of them now" in printed["score"]
    assert "nearest_patch" in printed["evaluate"]
    assert printed["report"].splitlines()[-1] == f"report: {run.report}"
    assert "nearest_patch" in Path(run.report).read_text()


def test_two_recipes_of_one_method_side_by_side(command, data, tmp_path):
    """Several backbones, say: each a model of its own name, and made anomalies choose among them."""
    run = RunFolder(str(tmp_path / "run"))
    command(cli.app, "index", "--data", str(data), "--out", run.uri)
    for name, stages in (("shallow", "[1,2]"), ("deep", "[4]")):
        recipe = *tiny("nearest_patch"), "--set", f"backbone.stages={stages}"
        command(cli.app, "train", "--out", run.uri, "--method", "nearest_patch", *recipe, "--save-as", name)
    printed = command(cli.app, "tune", "--out", run.uri, "--model", "shallow,deep", "--pseudo-images", "6")
    assert run.models() == ["deep", "shallow"]
    stages = {name: raydiff.load(run.model(name), "cpu").method.settings.backbone.stages for name in run.models()}
    assert stages == {"shallow": (1, 2), "deep": (4,)}
    found = {name: storage.read_json(run.tuning(name))["pseudo_score"] for name in run.models()}
    assert all(f"{score:.4f}" in printed for score in found.values())
    assert steps.chosen(run.uri) == max(found, key=found.get)


def test_an_archive(steps_run, command, tmp_path):
    run, _ = steps_run
    folder = tmp_path / "archive/2026"
    folder.mkdir(parents=True)
    images = made_images(6, 40)
    images[4:] = with_defect(images[4:])
    for number, image in enumerate(images):
        Image.fromarray(image).save(folder / f"{number}.jpg", quality=95)
    (folder / "6.jpg").write_bytes(b"")
    out = tmp_path / "scores"
    arguments = ["--model", run.model("nearest_patch"), "--data", str(tmp_path / "archive"), "--out", str(out)]
    printed = command(app_of("score_archive"), *arguments, "--maps", "png", "--replicas", "1")
    assert "scored: 7 images, 7 of them now" in printed
    assert "7 images lie in no folder of the model's categories (bolt, cloth)" in printed
    rows = pq.read_table(out / "score_table").to_pylist()
    assert [Path(row["uri"]).name for row in rows] == [f"{number}.jpg" for number in range(7)]
    model = raydiff.load(run.model("nearest_patch"), "cpu")
    for row in rows[:6]:
        image = decode(Path(row["uri"]).read_bytes())
        assert row["score"] == float(model.score([image]).scores[0])
        assert decode(Path(row["map_uri"]).read_bytes()).shape == image.shape
    assert rows[6]["error"] == "the file is empty"
    printed = command(app_of("score_archive"), *arguments, "--maps", "png", "--replicas", "1")
    assert "scored: nothing was missing" in printed
    with pytest.raises(DataError, match=r"scores of another run \(other engine\)"):
        command(app_of("score_archive"), *arguments, "--maps", "png", "--engine", "openvino")


def app_of(job):
    """A job's command line."""
    app = typer.Typer()
    app.command()(runpy.run_path(str(ROOT / "jobs" / f"{job}.py"))["main"])
    return app
