"""The demo images: the same each time, honest masks, and no statistic of a whole image that gives them away."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import roc_auc_score

from raydiff.errors import DataError
from raydiff.images import demo
from raydiff.images.demo import VISIBLE, Picture, draw, paint, pictures
from raydiff.images.drawn_set import MARKER
from raydiff.images.products import PRODUCTS, Product
from raydiff.images.products.camera import KNOBS, camera_settings, photograph

SMALL = {"train": 2, "test_good": 1, "test_defective": 4, "size": 64}


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def defective(product: Product, count: int = 8) -> list[Picture]:
    return [picture for picture in pictures(0, 0, 0, count) if picture.product is product]


@pytest.fixture(scope="module")
def drawn(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("demo") / "images"
    draw(str(folder), **SMALL)
    return folder


def test_the_layout_is_mvtecs(drawn):
    found = set(files(drawn))
    for product in PRODUCTS:
        assert {f"{product.name}/train/good/{n:03d}.png" for n in range(2)} <= found
        assert f"{product.name}/test/good/000.png" in found
        for defect in product.defects:
            assert f"{product.name}/test/{defect}/000.png" in found
            assert f"{product.name}/ground_truth/{defect}/000_mask.png" in found
    assert len(found) == len(PRODUCTS) * (2 + 1 + 2 * 4) + 1  # the marker


def test_files_are_colour_images_and_black_and_white_masks(drawn):
    for name in files(drawn):
        if name.endswith(".png"):
            with Image.open(drawn / name) as image:
                assert image.size == (64, 64)
                assert image.mode == ("L" if "ground_truth" in name else "RGB")
                if "ground_truth" in name:
                    assert set(np.unique(np.asarray(image))) == {0, 255}


def test_the_same_seed_draws_the_same_files(drawn, tmp_path):
    draw(str(tmp_path / "again"), **SMALL)
    assert files(tmp_path / "again") == files(drawn)


def test_another_seed_draws_other_files(drawn, tmp_path):
    draw(str(tmp_path / "other"), seed=1, **SMALL)
    one, two = files(drawn), files(tmp_path / "other")
    assert one.keys() == two.keys()
    assert all(one[name] != two[name] for name in one if "/good/" in name)


def test_no_two_images_are_the_same(drawn):
    images = [data for name, data in files(drawn).items() if name.endswith(".png") and "ground_truth" not in name]
    assert len(set(images)) == len(images)


@pytest.mark.parametrize(
    ("product", "digest"),
    [("capsules", "90c5c24795ab9496"), ("fabric", "cd5c46afc3c9500a"), ("gear", "06d39dafdfa7c6c6")],
)
def test_every_machine_draws_the_same_pixels(product, digest):
    """If the drawing was changed on purpose, raise `demo.VERSION` and take over the new digests."""
    digests = hashlib.sha256()
    for picture in pictures(0, 1, 0, 4):
        if picture.product.name == product:
            image, mask = paint(picture, 0, 96)
            digests.update(image.tobytes() + mask.tobytes())
    assert digests.hexdigest()[:16] == digest


@pytest.mark.parametrize("product", PRODUCTS, ids=lambda product: product.name)
def test_masks_are_where_a_defect_changes_its_piece(product):
    for picture in defective(product):
        image, mask = paint(picture, 0, 96)
        twin, nothing = paint(picture._replace(defect=None), 0, 96)
        assert not nothing.any()
        assert 0.0005 < mask.mean() < 0.15
        change = np.abs(image.astype(int) - twin.astype(int)).max(axis=2)
        assert change[mask].mean() > 12
        assert change[~near(mask)].max() <= 255 * VISIBLE * 1.2  # 1.2: exposure and contrast


def near(mask: np.ndarray) -> np.ndarray:
    """The mask and the two pixels around it that the camera's blur may reach."""
    padded = np.pad(mask, 2)
    return np.any([padded[y : y + len(mask), x : x + len(mask)] for y in range(5) for x in range(5)], axis=0)


@pytest.mark.parametrize("product", PRODUCTS, ids=lambda product: product.name)
def test_defects_are_spread_evenly_over_their_kinds(product):
    kinds = [picture.defect for picture in defective(product, 60)]
    counts = [kinds.count(defect) for defect in product.defects]
    assert sum(counts) == 60
    assert max(counts) - min(counts) <= 1


def statistics(images: np.ndarray) -> dict[str, np.ndarray]:
    grey = images.mean(axis=3)
    steps = [np.abs(np.diff(grey, axis=axis)).mean(axis=(1, 2)) for axis in (1, 2)]
    colours = images.mean(axis=(1, 2))
    return {
        "mean": grey.mean(axis=(1, 2)),
        "deviation": grey.std(axis=(1, 2)),
        "contrast": grey.std(axis=(1, 2)) / grey.mean(axis=(1, 2)),
        "gradient": steps[0] + steps[1],
        "min": grey.min(axis=(1, 2)),
        "max": grey.max(axis=(1, 2)),
        "p99": np.percentile(grey, 99, axis=(1, 2)),
        "red": colours[:, 0],
        "green": colours[:, 1],
        "blue": colours[:, 2],
    }


@pytest.mark.parametrize("product", PRODUCTS, ids=lambda product: product.name)
def test_no_trivial_statistic_finds_the_defects(product):
    test_set = [picture for picture in pictures(0, 0, 40, 60) if picture.product is product]
    labels = [picture.defect is not None for picture in test_set]
    images = np.stack([paint(picture, 0, 192)[0] for picture in test_set]).astype(np.float64)
    areas = {name: roc_auc_score(labels, values) for name, values in statistics(images).items()}
    assert {name: area for name, area in areas.items() if max(area, 1 - area) >= 0.65} == {}


def test_camera_settings_are_spread_evenly_over_a_group():
    settings = camera_settings(np.random.default_rng(0), 20)
    assert settings.shape == (20, KNOBS)
    strata = np.floor((settings + 1) / 2 * 20).astype(int)
    np.testing.assert_array_equal(np.sort(strata, axis=0), np.tile(np.arange(20)[:, None], KNOBS))


def test_the_camera_makes_brighter_and_darker_pictures():
    scene = np.full((3, 32, 32), 0.5)
    settings = np.zeros((2, KNOBS))
    settings[:, 0] = -1, 1
    dark, bright = (photograph(np.random.default_rng(0), scene, row).mean() for row in settings)
    assert bright - dark == pytest.approx(0.1 * 0.5 * 255, rel=0.1)


def test_a_second_call_draws_nothing(drawn, monkeypatch):
    before = files(drawn)
    stamps = {name: os.stat(drawn / name).st_mtime_ns for name in before}
    monkeypatch.setattr(demo, "paint", lambda *_: pytest.fail("drawn again"))
    draw(str(drawn), **SMALL)
    assert {name: os.stat(drawn / name).st_mtime_ns for name in files(drawn)} == stamps


def test_another_set_in_the_same_folder_is_refused(drawn):
    before = files(drawn)
    with pytest.raises(DataError, match=r"images holds other demo images.*choose another folder"):
        draw(str(drawn), **{**SMALL, "train": 3})
    assert files(drawn) == before


def test_a_folder_with_something_else_is_refused(tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(DataError, match=f"{tmp_path.name} is not empty.*choose another folder"):
        draw(str(tmp_path), **SMALL)
    assert files(tmp_path) == {"thesis.txt": b"years of work"}


def test_a_file_in_the_folders_place_is_refused(tmp_path):
    (tmp_path / "demo").write_text("")
    with pytest.raises(DataError, match="is a file"):
        draw(str(tmp_path / "demo"), **SMALL)


def test_a_place_that_is_not_local_is_refused():
    with pytest.raises(DataError, match="not a local folder"):
        draw("memory://bucket/demo", **SMALL)


def test_an_empty_folder_is_taken(tmp_path):
    (tmp_path / "demo").mkdir()
    draw(str(tmp_path / "demo"), **{**SMALL, "train": 1, "test_defective": 0})
    card = json.loads((tmp_path / "demo" / MARKER).read_text())
    assert (card["seed"], card["train"], card["size"]) == (0, 1, 64)


def test_an_interrupted_run_leaves_nothing(tmp_path, monkeypatch):
    whole, calls = demo.paint, []

    def interrupted(*arguments):
        calls.append(arguments)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return whole(*arguments)

    monkeypatch.setattr(demo, "paint", interrupted)
    with pytest.raises(KeyboardInterrupt):
        draw(str(tmp_path / "demo"), **SMALL)
    assert list(tmp_path.iterdir()) == []
