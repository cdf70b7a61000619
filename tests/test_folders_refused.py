"""Folders that would be trained on for what they are not, and are refused or taken for what they are."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest

from raydiff.errors import DataError
from raydiff.images.layouts.folder_names import FolderNames
from raydiff.images.layouts.pairing import pair
from raydiff.images.names import said_by
from raydiff.images.survey import survey
from tests.test_folders_brought import BLACK, MARKED, put, rows


def test_an_image_of_train_whose_mask_cannot_be_read_is_not_trained_on(tmp_path):
    put(tmp_path, "train/1.png", "train/2.png")
    put(tmp_path, "train/1_GT.png", value=BLACK)
    (tmp_path / "train/2_GT.png").write_bytes(b"no picture")
    found = survey(str(tmp_path))
    assert {path: row[1:3] for path, row in rows(found, tmp_path).items()} == {
        "train/1.png": ("train", 0),
        "train/2.png": ("test", None),
    }
    assert [(each.names, each.number) for each in found.findings] == [(("train/2.png",), 1)]


@pytest.mark.parametrize(
    ("folders", "options"),
    [
        ("goodParts rest", "--normal goodParts --anomalous rest"),
        ("good_images hole", "--normal good_images --anomalous hole"),
        ("pass fail", "--normal pass --anomalous fail"),
        ("ok_front def_front", "--normal ok_front --anomalous def_front"),
        ("IO NIO", "--normal IO --anomalous NIO"),
        ("i.O. n.i.O.", "--normal i.O. --anomalous n.i.O."),
        ("gut schlecht", "--normal gut --anomalous schlecht"),
        ("uncracked cracked", "--normal uncracked --anomalous cracked"),
        ("fine faulty", "--normal fine --anomalous faulty"),
        ("parts rejects", "--normal parts --anomalous rejects"),
        ("defect_free scratch hole", "--normal defect_free --anomalous hole,scratch"),
        ("NODefect_images Defect_images Mask_images", "--normal NODefect_images --anomalous Defect_images"),
        ("train_good test_good test_bad", "--normal test_good,train_good --anomalous test_bad"),
        ("normal_train anomaly_test", "--normal normal_train --anomalous anomaly_test"),
        ("Positive Negative", "--normal NAME --anomalous NAME, with the names of Negative, Positive"),
        (". scratch", "--anomalous scratch"),
    ],
)
def test_words_in_folder_names_are_understood(tmp_path, folders, options):
    put(tmp_path, *(f"{folder}/1.png" for folder in folders.split()))
    with pytest.raises(DataError) as error:
        survey(str(tmp_path))
    assert f"say which are, as in {options}, or give the folder" in str(error.value)


@pytest.mark.parametrize(
    "folders", ["ok_button cancel_button", "ok_button", "good", "bolt nut defender", "Positive", "io_board x"]
)
def test_products_that_are_called_alike_are_none(tmp_path, folders):
    put(tmp_path, *(f"{folder}/1.png" for folder in folders.split()))
    assert len(survey(str(tmp_path)).images) == len(folders.split())


@pytest.mark.parametrize(
    ("folder", "label"),
    [("no defects", 0), ("not_ok", 1), ("NotOK", 1), ("crack-free", 0), ("NG2", 1), ("book", None), ("no_1", None)],
)
def test_what_a_folder_says(folder, label):
    assert said_by(folder) == label


def test_defects_below_a_folder_of_normals_stop(tmp_path):
    put(tmp_path, "a/train/good/1.png", "a/train/good/bad/2.png", "b/OK/1.png", "b/OK/NG/2.png")
    with pytest.raises(DataError, match=r"train/good/bad/2.png lies in a folder of normals, in one that is called as"):
        survey(str(tmp_path / "a"))
    with pytest.raises(DataError, match=r"OK/NG/2.png lies in a folder of normals, in one that is called as"):
        survey(str(tmp_path / "b"), named=FolderNames(("OK",)))


@pytest.mark.parametrize(
    ("folders", "hint"),
    [
        ("def_front ok_front", "if ok_front holds normals, give --normal ok_front"),
        ("dull shiny", "name the folders of normals with --normal NAME, of dull, shiny"),
    ],
)
def test_the_hint_names_a_folder_that_may_hold_normals(tmp_path, folders, hint):
    put(tmp_path, *(f"{split}/{folder}/1.png" for split in ("train", "test") for folder in folders.split()))
    with pytest.raises(DataError) as error:
        survey(str(tmp_path))
    assert str(error.value).endswith(hint)


@pytest.mark.parametrize(
    "masks", ["test/masks/1.png", "GroundTruth/bad/1.png", "masks/bad/1.png", "Masks/test/bad/1.png"]
)
def test_masks_elsewhere_than_in_ground_truth_stop(tmp_path, masks):
    put(tmp_path, *(f"c/train/good/{number}.png" for number in range(30)), "c/test/bad/1.png", f"c/{masks}")
    with pytest.raises(DataError, match=f"c/{masks} looks like a mask.*rename their folder to ground_truth"):
        survey(str(tmp_path))


def test_a_product_may_be_called_mask_and_a_defect_label(tmp_path):
    put(tmp_path, "mask/train/good/1.png", "mask/test/label/1.png", "mask/test/bad/1.png", "bolt/train/good/1.png")
    assert len(survey(str(tmp_path)).images) == 4


@pytest.mark.parametrize("link", ["test/good", "aaa"])
def test_a_folder_is_listed_where_it_lies_and_not_as_a_link(tmp_path: Path, link):
    put(tmp_path, "c/train/good/1.png", "c/test/bad/2.png", "elsewhere/3.png")
    (tmp_path / "c" / link).symlink_to("../train/good" if "/" in link else "train/good", target_is_directory=True)
    (tmp_path / "c/test/cut").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    assert set(rows(survey(str(tmp_path / "c")), tmp_path / "c")) == {
        "train/good/1.png",
        "test/bad/2.png",
        "test/cut/3.png",
    }


def test_masks_are_paired_by_prefix_and_whatever_the_case_and_form_of_accents(tmp_path):
    put(tmp_path, "c/train/good/1.png", "c/test/Cut/IMG_1.JPG", "c/test/Cut/IMG_2.JPG")
    put(tmp_path, "c/ground_truth/cut/mask_img_1.png", "c/ground_truth/Cut/mask_IMG_2.png", value=MARKED)
    found = rows(survey(str(tmp_path)), tmp_path)
    assert found["c/test/Cut/IMG_1.JPG"][4] == "c/ground_truth/cut/mask_img_1.png"
    assert found["c/test/Cut/IMG_2.JPG"][4] == "c/ground_truth/Cut/mask_IMG_2.png"
    composed, taken_apart = (unicodedata.normalize(form, "x/ä") for form in ("NFC", "NFD"))
    assert pair([composed], {"m": taken_apart}).masks == {composed: "m"}
    assert pair([composed], {"1": taken_apart, "2": composed}).masks == {composed: "2"}  # the very name first


def test_more_names_of_splits_and_folders_of_thumbnails(tmp_path):
    put(tmp_path, "c/training/good/1.png", "c/valid/good/2.png", "c/testing/bad/3.png", "c/training/good/thumbs/1.png")
    put(tmp_path, "c/Thumbnails/1.png")
    found = survey(str(tmp_path))
    assert {path: row[1] for path, row in rows(found, tmp_path).items()} == {
        "c/training/good/1.png": "train",
        "c/valid/good/2.png": "train",
        "c/testing/bad/3.png": "test",
    }
    assert [each.names for each in found.findings if "validation" in each.what] == [("c/valid/good: 1",)]
