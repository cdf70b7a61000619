"""What the tests of whole runs share: a small data set, tiny settings, jobs in processes of their own, a check."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from conftest import TINY, write_mvtec

import raydiff
from raydiff import storage
from raydiff.run_folder import RunFolder
from raydiff.scoring import table

ROOT = Path(__file__).parents[1]


def tiny(method: str, scope: str = "") -> list[str]:
    """conftest.TINY as --set options."""

    def flat(values, prefix):
        for name, value in values.items():
            if isinstance(value, dict):
                yield from flat(value, f"{prefix}{name}.")
            else:
                yield f"{prefix}{name}={value if isinstance(value, str) else json.dumps(value)}"

    return [word for setting in flat(TINY[method], scope) for word in ("--set", setting)]


def job(name: str, *arguments: str, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """A job, run as in the README where there is no cluster."""
    command = [sys.executable, str(ROOT / "jobs" / name), *arguments]
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=1500)
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def small_data(folder: Path) -> Path:
    """A small data set in MVTec's layout; one test image cannot be read."""
    root = write_mvtec(folder / "mvtec", train=12, test=4, size=40)
    (root / "bolt/test/spot/001.png").write_bytes(b"no image")
    return root


def check_scored(run: RunFolder, name: str, maps: bool) -> raydiff.Model:
    """Check a model and its score table of the 16 test images; the model."""
    model = raydiff.load(run.model(name), "cpu")
    assert model.calibration is not None
    scores = run.scores(name, model.id)
    rows = table.read(scores).to_pylist()
    assert len({row["uri"] for row in rows}) == len(rows) == 16
    (bad,) = [row for row in rows if row["error"]]
    assert bad["uri"].endswith("bolt/test/spot/001.png")
    for row in rows:
        assert (row["method"], row["model_id"]) == (model.method.name, model.id)
        if row is not bad:
            threshold = model.calibration.of(row["category"]).threshold
            assert (row["threshold"], row["is_anomalous"]) == (threshold, row["score"] > threshold)
            assert storage.exists(row["map_uri"]) if maps else row["map_uri"] is None
    evaluation = storage.read_json(run.evaluation(name, model.id))
    assert sorted(evaluation["categories"]) == ["bolt", "cloth"]
    assert (evaluation["model_id"], evaluation["images"], evaluation["errors"]) == (model.id, 15, 1)
    assert 0 <= evaluation["mean"]["image_auroc"] <= 1
    assert (evaluation["mean"]["aupro"] is not None) == maps
    return model
