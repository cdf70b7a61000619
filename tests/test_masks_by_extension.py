"""Masks that only their extension tells from their image: what they hold says what they are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from raydiff.errors import DataError
from raydiff.images.layouts.folder_names import FolderNames
from raydiff.images.survey import survey


def picture(path: Path, seed: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (8, 12, 3), dtype=np.uint8)).save(path)


def mask(path: Path, marked: bool, value: int = 255) -> None:
    pixels = np.zeros((8, 12), np.uint8)
    pixels[2:4, 3:6] = value * marked
    Image.fromarray(pixels).save(path)


def pairs(root: Path, folder: str, marked: bool, count: int = 6, mask_type: str = "png") -> None:
    for number in range(count):
        picture(root / folder / f"{folder.replace('/', '_')}{number}.jpg", number)
        mask(root / folder / f"{folder.replace('/', '_')}{number}.{mask_type}", marked)


def counts(root: Path, **options: str) -> dict[tuple, int]:
    """(category, split, label, has a mask) -> images."""
    named = FolderNames.parse(*([options[key]] if key in options else None for key in ("normal", "anomalous")))
    found: dict[tuple, int] = {}
    for row in survey(str(root), named=named).images.to_pylist():
        assert row["uri"].endswith(".jpg")
        key = (row["category"], row["split"], row["label"], row["mask_uri"] is not None)
        found[key] = found.get(key, 0) + 1
    return found


@pytest.mark.parametrize("mask_type", ["png", "bmp", "tif"])
def test_kinds_of_defects_with_a_mask_of_each_images_name_ask_for_their_names(tmp_path, mask_type):
    root = tmp_path / "tiles"
    for folder in ("MT_Free", "MT_Crack", "MT_Break"):
        pairs(root, f"{folder}/Imgs", folder != "MT_Free", mask_type=mask_type)
    with pytest.raises(DataError, match="--normal MT_Free --anomalous MT_Break,MT_Crack, or"):
        survey(str(root))
    found = counts(root, normal="MT_Free", anomalous="MT_Crack,MT_Break")
    assert found == {("tiles", "train", 0, False): 5, ("tiles", "test", 0, False): 1, ("tiles", "test", 1, True): 12}


def test_masks_of_defects_alone_ask_for_the_names_of_folders_that_tell_them_apart(tmp_path):
    root = tmp_path / "jack"
    for number in range(6):
        picture(root / f"OK/S{number}/ok{number}.jpg", number)
    pairs(root, "NG/BX", True)
    with pytest.raises(DataError, match=r"not clear; say which are with --normal OK --anomalous NG, or give every"):
        survey(str(root))
    assert counts(root, normal="OK", anomalous="NG")["jack", "test", 1, True] == 6


def test_one_folder_of_both_is_told_by_the_masks(tmp_path):
    pairs(tmp_path / "bolts", "a", False)
    pairs(tmp_path / "bolts", "b", True)
    flat = tmp_path / "flat"
    flat.mkdir()
    for path in (tmp_path / "bolts").rglob("*.*"):
        path.rename(flat / path.name)
    assert counts(flat) == {("flat", "train", 0, False): 5, ("flat", "test", 0, False): 1, ("flat", "test", 1, True): 6}


def test_beside_images_of_a_test_set_they_are_masks_too(tmp_path):
    for number in range(8):
        picture(tmp_path / f"bolt/train/good/{number}.jpg", number)
    pairs(tmp_path, "bolt/test/bent", True, 2)
    found = counts(tmp_path)
    assert found == {("bolt", "train", 0, False): 8, ("bolt", "test", 1, True): 2}


def test_values_of_a_mask_may_be_any_one_beside_black(tmp_path):
    for number in range(4):
        picture(tmp_path / f"a{number}.jpg", number)
        mask(tmp_path / f"a{number}.png", number > 1, value=1)
    assert {key[2] for key in counts(tmp_path)} == {0, 1}


def test_pictures_kept_in_two_formats_stop(tmp_path):
    for number in range(5):
        picture(tmp_path / f"{number}.jpg", number)
        picture(tmp_path / f"{number}.png", number)
    with pytest.raises(DataError, match=r"0\.png are one of 5 pairs .* one picture twice, keep one of each"):
        survey(str(tmp_path))


def test_a_few_pictures_in_two_formats_are_said_and_kept(tmp_path):
    for number in range(9):
        picture(tmp_path / f"{number}.jpg", number)
    picture(tmp_path / "0.png")
    found = survey(str(tmp_path))
    assert len(found.images) == 10
    assert "perhaps one picture twice" in found.findings[0].what


def test_files_that_cannot_be_read_say_nothing(tmp_path):
    for number in range(3):
        picture(tmp_path / f"{number}.jpg", number)
        mask(tmp_path / f"{number}.png", number == 0)
    (tmp_path / "1.png").write_bytes(b"")
    labels = {row["uri"][-5]: row["label"] for row in survey(str(tmp_path)).images.to_pylist()}
    assert labels == {"0": 1, "1": None, "2": 0}
