"""The whole way as a user goes it: the main job in a process of its own."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from conftest import made_images
from main_job import check_scored, job, small_data, tiny

import raydiff
from raydiff import storage
from raydiff.run_folder import RunFolder

pytestmark = pytest.mark.ray


@pytest.fixture
def place(request, tmp_path) -> str:
    """Where the main job reads and writes: object storage, or this machine's disk where there is no S3 server."""
    try:
        return request.getfixturevalue("s3_bucket")
    except pytest.skip.Exception:  # as the tests of S3 do, loudly
        return str(tmp_path)


def test_the_main_job(place, tmp_path, job_environment):
    data = small_data(tmp_path / "data")
    fs, folder = storage.filesystem(place)
    fs.put(str(data), f"{folder}/mvtec", recursive=True)
    out = storage.join(place, "run")
    options = ["--methods", "lafite,nearest_patch", "--preset", "demo", "--false-alarm-rate", "0.2"]
    options += ["--pseudo-images", "6"]
    settings = tiny("lafite", "lafite.") + tiny("nearest_patch", "nearest_patch.")
    source = storage.join(place, "mvtec")
    done = job("train_all.py", "--data", source, "--out", out, *options, *settings, environment=job_environment)
    run = RunFolder(out)
    assert run.models() == ["lafite", "nearest_patch"]
    for name in run.models():
        model = check_scored(run, name, maps=True)
        assert model.method.settings.backbone.grid == 4
        assert model.score(list(made_images(2))).scores.shape == (2,)
        tuning = storage.read_json(run.tuning(name))
        assert tuning["chosen"] == model.score_settings.model_dump(mode="json")
        assert [made for _, made in tuning["pseudo_images"].values()] == [6, 6]
        assert set(model.positions.categories) == set(model.calibration.categories) == {"bolt", "cloth"}
        for category, counts in model.card["made_anomalies"].items():
            line = f"calibration: {category}: {counts['alarms']} of 6 made anomalies raise an alarm"
            assert line in done.stdout
        assert set(model.card["made_anomalies"]) == {"bolt", "cloth"}
    assert raydiff.load(run.model("lafite"), "cpu").method.settings.train_steps == 12
    page = storage.read_bytes(run.report).decode()
    assert "lafite" in page
    assert "nearest_patch" in page
    assert "1 errors" in done.stdout  # the unreadable image
    for line in ("lafite", "nearest_patch", "chosen by pseudo-validation, without a label: ", f"report: {run.report}"):
        assert line in done.stdout[done.stdout.index("┃ category") :]
    assert not re.findall(r".*\.(?:py|cc):\d+.*", done.stdout + done.stderr)  # no line of Ray's own
    assert (Path(job_environment["HOME"]) / ".ray/auth_token").exists()  # the Ray of its own asks for a token
