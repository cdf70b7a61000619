"""Bulk scoring through a deployment on a real Ray: one row an image, the model's own scores, nothing done twice."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pytest
from conftest import fitted, made_images, write_mvtec
from PIL import Image

import raydiff
from raydiff.errors import DataError, SettingsError
from raydiff.images import table as image_table
from raydiff.images.decode import decode
from raydiff.images.layouts import find_images
from raydiff.images.stream import ROWS_PER_PART
from raydiff.model import Model
from raydiff.scoring import table
from raydiff.scoring.bulk import _rate as bulk_rate
from raydiff.scoring.bulk import score_table
from raydiff.scoring.deployment import deployed
from raydiff.scoring.maps import read_map
from raydiff.scoring.part_scorer import map_place
from raydiff.selection.calibration import Calibration

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Two model folders with the same weights, one calibrated; tables of all and of few images of one archive."""
    root = tmp_path_factory.mktemp("bulk")
    write_mvtec(root / "mvtec", train=1, test=33, size=36)
    (root / "mvtec/bolt/test/spot/002.png").write_bytes(b"no image")
    whole = (root / "mvtec/cloth/test/good/005.png").read_bytes()
    (root / "mvtec/cloth/test/good/005.png").write_bytes(whole[: len(whole) // 2])
    Image.fromarray(made_images(1, 50)[0, :20]).save(root / "mvtec/cloth/test/good/006.png")  # not square
    images = find_images(str(root / "mvtec"))
    (root / "mvtec/cloth/test/spot/007.png").unlink()
    image_table.write(str(root / "all.parquet"), images)
    rows = pc.and_(pc.equal(images["category"], "bolt"), pc.match_substring(images["uri"], "/00"))
    image_table.write(str(root / "few.parquet"), images.filter(rows))
    method, _ = fitted("nearest_patch", made_images(8))
    model = Model(method, method.ScoreSettings())
    model.save(str(root / "uncalibrated"))
    normal = model.score(list(made_images(30, seed=9))).scores
    # The threshold lies among bolt's scores; cloth has too few normals to promise the rate and falls back to all.
    model.calibration = Calibration.fit({"bolt": normal.tolist(), "cloth": [float(normal.max()) * 0.5]}, rate=0.2)
    model.save(str(root / "calibrated"))
    return root


@pytest.fixture(scope="module")
def handle(local_ray, folders):
    with deployed(str(folders / "calibrated"), replicas=2) as handle:
        yield handle


@pytest.fixture(scope="module")
def scored(handle, folders):
    """A finished run over all images with float maps: its folder and its summary."""
    out = folders / "scores"
    return out, score_table(handle, str(folders / "calibrated"), str(folders / "all.parquet"), str(out), maps="tiff")


def image_of(row) -> np.ndarray | None:
    """The decoded image of a row, None for the three bad ones."""
    if row["error"]:
        return None
    return decode(Path(row["uri"]).read_bytes())


def test_one_row_an_image(scored, folders):
    out, summary = scored
    images = image_table.read(str(folders / "all.parquet"))
    rows = table.read(str(out))
    assert images.num_rows == 134 > 2 * ROWS_PER_PART
    assert [Path(part).name for part in table.parts(str(out))] == [f"part-00000{part}.parquet" for part in range(3)]
    assert rows.schema == table.SCHEMA
    assert rows.select(images.column_names).equals(images)
    bad = {row["uri"].split("mvtec/")[1]: row for row in rows.to_pylist() if row["error"]}
    assert sorted(bad) == ["bolt/test/spot/002.png", "cloth/test/good/005.png", "cloth/test/spot/007.png"]
    for row in bad.values():
        nothing = ["height", "width", "score", "p_value", "threshold", "is_anomalous", "map_uri"]
        assert [row[name] for name in nothing] == [None] * len(nothing)
    assert "is not there" in bad["cloth/test/spot/007.png"]["error"]
    assert bad["cloth/test/spot/007.png"]["content_hash"] is None
    assert bad["bolt/test/spot/002.png"]["content_hash"] == hashlib.sha256(b"no image").hexdigest()
    alarms = sum(row["is_anomalous"] is True for row in rows.to_pylist())
    assert 0 < alarms < 131
    assert summary[:4] == (134, 134, 3, alarms)


def test_scores_and_maps_are_the_models_own(scored, folders):
    out, _ = scored
    model = raydiff.load(str(folders / "calibrated"), "cpu")
    rows = [row for row in table.read(str(out)).to_pylist() if not row["error"]]
    alone = [model.score([image_of(row)]) for row in rows]
    assert [row["score"] for row in rows] == [float(scored.scores[0]) for scored in alone]
    for row, own in zip(rows, alone, strict=True):
        image = image_of(row)
        calibration = model.calibration.of(row["category"])
        assert (row["height"], row["width"]) == image.shape[:2]
        assert (row["method"], row["model_id"]) == ("nearest_patch", model.id)
        assert row["threshold"] == calibration.threshold
        assert row["p_value"] == calibration.p_value(row["score"])
        assert row["is_anomalous"] == (row["score"] > calibration.threshold)
        wanted = "/".join([row["category"], row["split"], row["defect"], Path(row["uri"]).stem + ".tiff"])
        assert row["map_uri"] == f"{out}/anomaly_maps/{wanted}"
        size = image.shape[1], image.shape[0]
        upsampled = np.asarray(Image.fromarray(own.maps[0]).resize(size, Image.Resampling.BILINEAR))
        np.testing.assert_array_equal(read_map(row["map_uri"]), upsampled)


def test_only_what_is_missing_is_done_again(scored, handle, folders):
    out, first = scored
    before = table.read(str(out))
    (out / "part-000001.parquet").unlink()
    times = {path.name: path.stat().st_mtime_ns for path in out.glob("part-*.parquet")}
    lines = str(folders / "calibrated"), str(folders / "all.parquet"), str(out)
    summary = score_table(handle, *lines, maps="tiff")
    assert summary[:4] == (134, ROWS_PER_PART, first.errors, first.alarms)
    assert {name: (out / name).stat().st_mtime_ns for name in times} == times
    assert table.read(str(out)).equals(before)

    whole = {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()}
    again = score_table(handle, *lines, maps="tiff")
    assert again[:5] == (134, 0, first.errors, first.alarms, 0)
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()} == whole


@pytest.mark.parametrize(
    ("model", "images", "maps", "other"),
    [
        ("uncalibrated", "all", "tiff", "model_id"),
        ("calibrated", "few", "tiff", "table_sha256"),
        ("calibrated", "all", "none", "maps"),
    ],
)
def test_a_folder_of_another_run_is_refused(scored, handle, folders, model, images, maps, other):
    out, _ = scored
    before = sorted(os.listdir(out))
    with pytest.raises(DataError, match=rf"{out} holds scores of another run \(other {other}\)"):
        score_table(handle, str(folders / model), str(folders / f"{images}.parquet"), str(out), maps)
    assert sorted(os.listdir(out)) == before


def test_heat_maps_need_a_calibration(handle, folders, tmp_path):
    few = str(folders / "few.parquet")
    with pytest.raises(SettingsError, match="raydiff calibrate"):
        score_table(handle, str(folders / "uncalibrated"), few, str(tmp_path / "none"), maps="png")
    assert not (tmp_path / "none").exists()
    score_table(handle, str(folders / "calibrated"), few, str(tmp_path / "scores"), maps="png")
    rows = table.read(str(tmp_path / "scores")).to_pylist()
    assert len(rows) == 21
    assert sum(row["error"] is not None for row in rows) == 1
    for row in rows:
        if not row["error"]:
            with Image.open(row["map_uri"]) as picture:
                assert (picture.format, picture.size) == ("PNG", (row["width"], row["height"]))
    damaged = next(row for row in rows if row["label"] == 1 and row["is_anomalous"])
    heat = decode(Path(damaged["map_uri"]).read_bytes()).astype(int)
    assert (heat[..., 0] - heat[..., 2])[9:18, 9:18].mean() > 20  # hot where the dark square is


def test_without_calibration(handle, folders, tmp_path):
    lines = str(folders / "few.parquet"), str(tmp_path)
    summary = score_table(handle, str(folders / "calibrated"), *lines, calibrated=False)
    rows = table.read(str(tmp_path)).to_pylist()
    assert summary.alarms == 0
    assert all(row["score"] is not None or row["error"] for row in rows)
    assert all(row[name] is None for row in rows for name in ("p_value", "threshold", "is_anomalous", "map_uri"))
    described = json.loads((folders / "uncalibrated/model.json").read_text())
    assert {row["model_id"] for row in rows} == {described["id"]}


def test_what_a_method_tells_of_an_image_is_in_its_row(local_ray, folders, tmp_path):
    method, _ = fitted("glad", made_images(4))
    score = method.ScoreSettings(start_step=400, denoising_steps=4, least_step=0, switch_distance=0.005)
    model = Model(method, score)
    model.save(str(tmp_path / "glad"))
    with deployed(str(tmp_path / "glad"), replicas=1) as handle:
        score_table(handle, str(tmp_path / "glad"), str(folders / "few.parquet"), str(tmp_path / "scores"))
    rows = table.read(str(tmp_path / "scores")).to_pylist()
    good = [row for row in rows if not row["error"]]
    told = model.score([image_of(row) for row in good]).details
    assert sorted(told) == ["chosen_step", "probing_score"]
    for place, row in enumerate(good):
        assert dict(row["details"]) == {name: values[place] for name, values in told.items()}
    assert [row["details"] for row in rows if row["error"]] == [None]


@pytest.mark.parametrize(
    ("uri", "category", "split", "defect", "place"),
    [
        ("/d/bolt/test/spot/001.png", "bolt", "test", "spot", "bolt/test/spot/001"),
        ("/d/a/bolt/test/spot/001.png", "a/bolt", "test", "spot", "a/bolt/test/spot/001"),  # a name twice in the data
        ("s3://b/d/bolt/test/good/0.1.jpg", "bolt", "test", "good", "bolt/test/good/0.1"),
        ("s3://b/bolt/2026/x.png", "bolt", "test", None, "b/bolt/2026/x.png"),  # a folder of images to score
        ("/d/ko/x.png", "bolt", "test", "ko", "d/ko/x.png"),
        ("/d/screw/test/spot/1.png", "bolt", "test", "spot", "d/screw/test/spot/1.png"),  # a table of the user's own
        ("x.png", "bolt", "train", "good", "x.png"),
    ],
)
def test_where_a_map_goes(uri, category, split, defect, place):
    assert map_place(uri, category, split, defect) == place


def test_the_rate_counts_what_was_done_in_its_time():
    # two replicas, a part of 10 images in 2 s each; the first parts came late, with the replicas' start
    finished = [(9.0, 10), (9.1, 10), (11.0, 10), (11.1, 10), (13.0, 10), (13.1, 10)]
    assert bulk_rate(finished, 2) == pytest.approx(40 / 4.0)
    assert bulk_rate(finished[:2], 2) is None
