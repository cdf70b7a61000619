"""A run whose images are seen tile by tile, from training to the report, and an archive killed in the middle."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from conftest import TINY, made_images, with_defect
from PIL import Image

import raydiff
from raydiff import steps, storage
from raydiff.images.decode import decode
from raydiff.images.shards import ROWS_PER_TILED_PART
from raydiff.run_folder import RunFolder
from raydiff.scoring import table
from raydiff.scoring.archive_run import score_archive
from raydiff.scoring.maps import read_map
from raydiff.scoring.table import SUMMARY
from raydiff.scoring.unfinished import work_uri
from raydiff.selection.search_settings import SearchSettings
from raydiff.training.store import ExampleStore
from raydiff.views import View, roi

pytestmark = pytest.mark.ray

LOOKED_AT = np.ones((60, 90), bool)
LOOKED_AT[28:, 48:] = False  # the last tile, and what of others lies below it
VIEW = {"tile": 32, "overlap": 8, "crop": (0, 0, 80, 60), "roi": {roi.ANY: roi.as_text(LOOKED_AT)}}
TILES = 9  # of 80 x 60 pixels, which need three a side where two overlap by 8


def large(count: int, seed: int) -> np.ndarray:
    """Images of 90 x 60 pixels, 3 x 2 of the small ones side by side."""
    tiles = made_images(count * 6, seed=seed).reshape(count, 2, 3, 32, 32, 3)
    return tiles.transpose(0, 1, 3, 2, 4, 5).reshape(count, 64, 96, 3)[:, :60, :90]


def spoilt(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """With a defect over a seam, and where it is."""
    images = images.copy()
    images[:, 24:40, 20:36] = with_defect(made_images(1))[0, 8:24, 8:24]
    mask = np.zeros(images.shape[1:3], np.uint8)
    mask[24:40, 20:36] = 255
    return images, mask


def save(folder: Path, images: np.ndarray) -> None:
    folder.mkdir(parents=True)
    for number, image in enumerate(images):
        Image.fromarray(image).save(folder / f"{number:03d}.png")


@pytest.fixture(scope="module")
def run(local_ray, tmp_path_factory):
    """A run of large images, every step of it."""
    root = tmp_path_factory.mktemp("large")
    bad, mask = spoilt(large(4, seed=3))
    for place, images in (("train/good", large(20, 1)), ("test/good", large(4, 2)), ("test/spot", bad)):
        save(root / "plate" / place, images)
    (root / "plate/test/good/009.png").write_bytes(b"no image")
    save(root / "plate/test/small", large(1, 4)[:, :50])  # the crop does not lie within it
    folder = root / "plate/ground_truth/spot"
    folder.mkdir(parents=True)
    for number in range(4):
        Image.fromarray(mask).save(folder / f"{number:03d}_mask.png")
    out = str(root / "run")
    steps.index(str(root), out)
    steps.train(out, "nearest_patch", "demo", {**TINY["nearest_patch"], "view": VIEW})
    steps.tune(out, "nearest_patch", SearchSettings(), pseudo_images=4)
    with steps.serving(out, "nearest_patch") as handle:
        steps.calibrate(handle, out, "nearest_patch", 0.25, 4)
        steps.score(handle, out, "nearest_patch", "tiff")
    steps.evaluate(out, "nearest_patch")
    return RunFolder(out)


def test_each_tile_that_is_looked_at_is_an_example(run):
    (store,) = (uri for uri in Path(run.work).iterdir() if uri.name.startswith("examples-"))
    fitted = raydiff.load(run.model("nearest_patch"), "cpu").card["training_images"]["plate"]
    found = ExampleStore(str(store))
    assert len(found) == len(found.categories) == (TILES - 1) * fitted


def test_a_row_and_a_map_are_a_whole_images(run):
    model = raydiff.load(run.model("nearest_patch"), "cpu")
    rows = table.read(run.scores("nearest_patch", model.id)).to_pylist()
    errors = {row["uri"].split("test/")[1]: row["error"] for row in rows if row["error"]}
    assert sorted(errors) == ["good/009.png", "small/000.png"]
    assert "the crop 0, 0, 80, 60 does not lie within the image, which is 90 x 50" in errors["small/000.png"]
    good = [row for row in rows if not row["error"]]
    assert len(good) == 8
    for row in good:
        own = model.score([decode(Path(row["uri"]).read_bytes())], ["plate"])
        assert row["score"] == float(own.scores[0])
        assert (row["height"], row["width"]) == (60, 90)
        found = read_map(row["map_uri"])
        np.testing.assert_array_equal(found[:, :80], own.maps[0])
        assert (found[:, 80:] == 0).all()  # the crop leaves it out
        assert (found[~LOOKED_AT] == 0).all()
        assert (found[LOOKED_AT] != 0).mean() > 0.7
    assert model.card["made_anomalies"]["plate"]["made"] == 4


def test_defects_on_seams_are_found(run):
    model = raydiff.load(run.model("nearest_patch"), "cpu")
    evaluation = storage.read_json(run.evaluation("nearest_patch", model.id))["categories"]["plate"]
    assert evaluation["maps"] == 8
    assert evaluation["image_auroc"] == 1
    assert evaluation["pixel_auroc"] > 0.9
    assert steps.report(run.uri)


def test_tuning_saw_regions_with_seams(run):
    tuning = storage.read_json(run.tuning("nearest_patch"))
    assert tuning["pseudo_images"] == {"plate": [4, 4]}
    assert tuning["test_auroc"] == 1


def test_an_archive_of_large_images_goes_on_where_it_stopped(run, tmp_path):
    folder = tmp_path / "archive/plate"
    images = large(ROWS_PER_TILED_PART + 5, seed=7)
    save(folder, images)
    (folder / "002.png").write_bytes(b"")
    elsewhere = images[0].copy()
    elsewhere[30:50, 50:75] = 255 - elsewhere[30:50, 50:75]
    Image.fromarray(elsewhere).save(folder / "001.png")
    out, again = str(tmp_path / "scores"), str(tmp_path / "again")
    model = run.model("nearest_patch")
    score_archive(model, str(folder), out, "png", 1)
    whole = table.read(out)
    assert whole.num_rows == len(images)
    assert whole["error"].null_count == len(images) - 1
    loaded = raydiff.load(model, "cpu")
    first = whole.slice(0, 1).to_pylist()[0]
    assert whole["score"][1] == whole["score"][0]  # nobody looks where the two differ
    assert first["score"] == float(loaded.score([images[0]], [first["category"]]).scores[0])
    assert decode(Path(first["map_uri"]).read_bytes()).shape == (60, 80, 3)  # what the crop has left
    # As a killed run leaves it: one of the two parts is there.
    score_archive(model, str(folder), again, "none", 1)
    finished = table.read(again)
    (name,) = table.part_names(again)
    storage.delete(table.part_uri(again, name))
    storage.delete(storage.join(again, SUMMARY))
    table.write(work_uri(again, name, 0), finished.slice(0, ROWS_PER_TILED_PART))
    summary, _ = score_archive(model, str(folder), again, "none", 1)
    assert summary.scored_now == 5
    assert table.read(again).equals(finished)


def test_a_training_chooses_its_tile(run, tmp_path, capsys):
    out = str(tmp_path / "run")
    steps.index(str(Path(run.uri).parent / "plate"), out)
    settings = {**TINY["nearest_patch"], "view": {"tile": "auto", "jpeg": "scaled"}}
    steps.train(out, "nearest_patch", "demo", settings)
    model = raydiff.load(RunFolder(out).model("nearest_patch"), "cpu")
    assert model.view == View(tile=32, jpeg="scaled")  # 4 by 2 tiles of 90 x 60 pixels
    assert "tile=auto: tile=32, 8 tiles an image" in capsys.readouterr().out
