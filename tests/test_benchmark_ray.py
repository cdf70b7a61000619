"""The accuracy suite on a real Ray: cells beside each other, taken up again, and a table of what they found."""

from __future__ import annotations

import json

import pyarrow.parquet as pq
import pytest
from conftest import TINY, write_mvtec

from raydiff import storage
from raydiff.benchmark import cell, suite, tables
from raydiff.benchmark.spec import Spec
from raydiff.run_folder import RunFolder

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def measured(local_ray, tmp_path_factory):
    """Two seeds of one contender, measured beside each other."""
    root = tmp_path_factory.mktemp("benchmark")
    data = write_mvtec(root / "images", train=16, test=4, categories=("bolt",))
    spec = Spec.parse(
        {
            "data": {"made": str(data)},
            "contenders": {"nearest_patch": {"preset": "demo", "settings": TINY["nearest_patch"]}},
            "seeds": [0, 1],
            "pseudo_images": 4,
            "false_alarm_rate": 0.2,
        }
    )
    spec.check()
    results = suite.run(spec, str(root / "out"), at_once=2)
    return spec, root / "out", written(results, root / "out")


def written(results, out):
    return suite.write(results, tables.accuracy(results), "accuracy", str(out), "accuracy")


def test_every_row_has_its_metrics_and_its_protocol(measured):
    _, out, places = measured
    rows = pq.read_table(places.results).to_pylist()
    of_model = [row for row in rows if row["method"]]
    assert [(row["contender"], row["seed"], row["category"]) for row in of_model] == [
        ("nearest_patch", 0, "bolt"),
        ("nearest_patch", 1, "bolt"),
    ]
    for row in of_model:
        run = RunFolder(str(out / f"runs/made/seed-{row['seed']}"))
        told = storage.read_json(run.evaluation("nearest_patch", row["model_id"]))["categories"]["bolt"]
        assert (row["image_auroc"], row["aupro"]) == (told["image_auroc"], told["aupro"])
        fields = json.loads(row["protocol_fields"])
        assert fields["seed"] == row["seed"]
        assert fields["image_score"] == "largest mean over 16 x 16 pixels"
        assert json.loads(row["pseudo"])["trials"] > 1
        assert min(row["train_seconds"], row["tune_seconds"], row["score_seconds"]) > 0
    assert {row["contender"] for row in rows if not row["method"]} == {
        cell.TRIVIAL + name for name in cell.trivial.STATISTICS
    }
    assert len({row["protocol"] for row in of_model}) == 2  # the seed is part of it
    assert "differ" not in storage.read_bytes(places.markdown).decode()


def test_what_was_measured_is_taken_and_what_is_missing_is_measured(measured):
    spec, out, places = measured
    before = pq.read_table(places.results)
    kept = out / "results/made/seed-0/nearest_patch.json"
    missing = out / "results/made/seed-1/nearest_patch.json"
    changed, stamp = json.loads(kept.read_text()), kept.stat().st_mtime_ns
    missing.unlink()  # as if it had been killed before its end
    again = suite.run(spec, str(out))
    assert kept.stat().st_mtime_ns == stamp
    assert json.loads(kept.read_text()) == changed
    same = ["contender", "seed", "category", "model_id", "image_auroc", "aupro", "protocol"]
    assert pq.read_table(written(again, out).results).select(same).equals(before.select(same))
    # Other settings are other results: nothing of before is taken for them.
    other = spec.changed(false_alarm_rate=0.3)
    digests = [cell._depends(each, each.contenders["nearest_patch"], "images", 0) for each in (spec, other)]
    assert digests[0] != digests[1]
    assert tables.pseudo(again)[0].rows[0][:3] == ["made", "nearest_patch", "8"]
