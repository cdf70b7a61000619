"""Folders as people bring them: what is made of each kind, so that nothing is trained on for what it is not."""

from __future__ import annotations

import io
import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from PIL import Image
from rich.console import Console
from typer.testing import CliRunner

from raydiff import cli, steps, storage
from raydiff.errors import DataError, ImageError, SettingsError
from raydiff.images import table
from raydiff.images.index import index, print_report
from raydiff.images.layouts.folder_names import FolderNames
from raydiff.images.layouts.found import LEFT_OUT, Found
from raydiff.images.layouts.pairing import beside, pair
from raydiff.images.listing import ASKED_IN_VAIN, Listing
from raydiff.images.masks import read_mask
from raydiff.images.survey import survey
from raydiff.planning.training import plan_training

BLACK, MARKED = 0, 255


def put(root: Path, *paths: str, value: int = 90) -> None:
    """Images of 6 x 4 pixels, all of one level; a mask of level 0 marks nothing."""
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        kind = {"jpg": "JPEG", "bmp": "BMP", "tif": "TIFF", "tiff": "TIFF"}.get(path.rpartition(".")[2].lower(), "PNG")
        Image.new("L", (6, 4), value).save(root / path, kind)


def rows(found: Found, root: Path) -> dict[str, tuple]:
    """Path -> category, split, label, defect, mask; paths relative to the root."""

    def short(uri: str | None) -> str | None:
        return uri and uri.removeprefix(f"{root}/")

    return {
        short(row["uri"]): (row["category"], row["split"], row["label"], row["defect"], short(row["mask_uri"]))
        for row in found.images.to_pylist()
    }


def said(root: Path, **options) -> str:
    to = Console(file=io.StringIO(), width=200, highlight=False)
    print_report(index(str(root), str(root.parent / "images.parquet"), **options), to)
    return to.file.getvalue()


def named(normal: str = "", anomalous: str = "") -> FolderNames:
    return FolderNames.parse([normal] if normal else None, [anomalous] if anomalous else None)


# A mask beside its image


def test_kolektor_folders_are_parts_of_one_product_told_apart_by_their_masks(tmp_path):
    root = tmp_path / "kolektor"
    for part in ("kos01", "kos02", "kos10", "kos11", "kos12", "kos13"):
        put(root, f"{part}/Part0.jpg", f"{part}/Part1.jpg")
        put(root, f"{part}/Part0_label.bmp", value=BLACK)
        put(root, f"{part}/Part1_label.bmp", value=MARKED)
    found = rows(survey(str(root)), root)
    assert len(found) == 12
    normals = {found[path] for path in found if path.endswith("Part0.jpg")}
    assert normals == {("kolektor", split, 0, "good", None) for split in ("train", "test")}
    assert sum(row[1] == "test" for row in found.values() if row[2] == 0) == 1  # a fifth of six
    assert found["kos10/Part1.jpg"] == ("kolektor", "test", 1, "defect", "kos10/Part1_label.bmp")
    assert "folders taken for parts of one category, kolektor: 6\n    kos01\n    kos02\n    kos10" in said(root)
    assert "as no folder is called test: 1\n    kolektor: 1" in said(root)


def test_kolektor_2_has_its_masks_in_train_and_test(tmp_path):
    root = tmp_path / "ksdd2"
    for split in ("train", "test"):
        put(root, f"{split}/1.png", f"{split}/2.png")
        put(root, f"{split}/1_GT.png", value=BLACK)
        put(root, f"{split}/2_GT.png", value=MARKED)
    assert rows(survey(str(root)), root) == {
        "train/1.png": ("ksdd2", "train", 0, "good", None),
        "train/2.png": ("ksdd2", "train", 1, "defect", "train/2_GT.png"),
        "test/1.png": ("ksdd2", "test", 0, "good", None),
        "test/2.png": ("ksdd2", "test", 1, "defect", "test/2_GT.png"),
    }
    assert "images of defects under train/, neither trained on nor tested: 1\n    train: 1" in said(root)


@pytest.mark.parametrize("mask", ["a_GT.png", "a.mask.png", "a-mask.bmp", "a_label.bmp", "a_Mask.tif", "a mask.png"])
def test_a_mask_beside_its_image_is_no_image_and_what_it_leaves_unclear_stops(tmp_path, mask):
    root = tmp_path / "bolts"
    put(root, "a.jpg", "b.jpg")
    put(root, mask, value=MARKED)
    sentence = f"1 images have a mask beside them (as {mask} beside a.jpg), 1 of which mark something, and 1 have none"
    with pytest.raises(DataError) as error:
        survey(str(root))
    assert sentence in str(error.value)
    assert "a table with the columns uri, label and mask_uri" in str(error.value)
    put(root, "b_GT.png" if mask == "a_GT.png" else f"b{mask[1:]}", value=BLACK)
    labels = {path: row[2] for path, row in rows(survey(str(root)), root).items()}
    assert labels == {"a.jpg": 1, "b.jpg": 0}


def test_what_is_called_as_a_mask_but_has_no_image_beside_it_is_an_image(tmp_path):
    root = tmp_path / "label"
    put(root, "label/a_mask.png", "label/b_label.png", "c/label.png", "c/_mask.png", "c/mask/a.png")
    assert {row[2] for row in rows(survey(str(root)), root).values()} == {0}
    assert len(survey(str(root)).images) == 5


def test_masks_that_all_mark_leave_no_normals(tmp_path):
    put(tmp_path, "a.png", "b.png")
    put(tmp_path, "a_GT.png", "b_GT.png", value=MARKED)
    with pytest.raises(DataError, match="none is all black, so there are no normals"):
        survey(str(tmp_path))


def test_a_mask_that_cannot_be_read_makes_its_image_neither(tmp_path):
    root = tmp_path / "bolts"
    put(root, "a.png", "b.png")
    put(root, "a_GT.png", value=BLACK)
    (root / "b_GT.png").write_bytes(b"")
    assert rows(survey(str(root)), root)["b.png"] == ("bolts", "test", None, None, "b_GT.png")
    assert "masks that cannot be used, their images are left out of pixel metrics: 1" in said(root)


def test_a_mask_beside_an_image_of_a_split_must_agree_with_its_folder(tmp_path):
    root = tmp_path / "c"
    put(root, "train/good/1.png", "train/good/2.png", "test/dent/1.png")
    put(root, "train/good/1_mask.png", value=BLACK)
    put(root, "test/dent/1_mask.png", value=MARKED)
    assert rows(survey(str(root)), root) == {
        "train/good/1.png": ("c", "train", 0, "good", None),
        "train/good/2.png": ("c", "train", 0, "good", None),
        "test/dent/1.png": ("c", "test", 1, "dent", "test/dent/1_mask.png"),
    }
    put(root, "train/good/2_mask.png", value=MARKED)
    with pytest.raises(DataError, match=r"1 images in folders of normals have a mask.*\(train/good/2.png\)"):
        survey(str(root))


def test_two_masks_beside_an_image_are_one_too_many(tmp_path):
    put(tmp_path, "a.png", "a_GT.png", "a_mask.png")
    with pytest.raises(DataError, match=r"has several masks beside it, a_GT\.png and a_mask\.png"):
        survey(str(tmp_path))


def test_masks_beside_images_to_score_are_no_images(tmp_path):
    put(tmp_path, "bolts/1.png", "new/2.png", "new/2_GT.png")
    found = survey(str(tmp_path / "bolts"), str(tmp_path / "new"))
    assert [storage.name(uri) for uri in found.images["uri"].to_pylist()] == ["1.png", "2.png"]
    assert found.findings == (("masks beside images to score, left out", ("2_GT.png",), 1),)


def test_a_mask_of_a_mask_is_a_mask():
    assert beside(["d/a.png", "d/a_mask.png", "d/a_mask_gt.png", "a_gt.png"]) == {
        "d/a_mask.png": "d/a.png",
        "d/a_mask_gt.png": "d/a.png",
    }


@pytest.mark.parametrize("paths", [("a/images/1.png", "a/masks/1.png"), ("1.png", "Mask/1_GT.png")])
def test_a_folder_of_masks_beside_plain_images_stops(tmp_path, paths):
    put(tmp_path, *paths)
    with pytest.raises(DataError, match="looks like masks or other pictures of images beside it"):
        survey(str(tmp_path))


def test_a_scene_measured_in_several_ways_stops_in_a_plain_folder_too(tmp_path):
    put(tmp_path, "bagel/rgb/0.png", "bagel/xyz/0.tiff")
    with pytest.raises(DataError, match="bagel/xyz/ looks like masks or other pictures"):
        survey(str(tmp_path))
    put(tmp_path, "bagel/NG/rgb/0.png")
    with pytest.raises(DataError, match="bagel/xyz/ looks like masks or other pictures"):
        survey(str(tmp_path), named=named(anomalous="NG"))


# What a NAS and a system leave

SYSTEM = [
    "@eaDir/1.png/SYNOPHOTO_THUMB_M.jpg",
    "#recycle/1.png",
    "$RECYCLE.BIN/S-1-5/1.png",
    "System Volume Information/1.png",
    "lost+found/1.png",
    ".snapshot/hourly/1.png",
    "@Recycle/1.png",
    "@Recently-Snapshot/1.png",
    "#snapshot/1.png",
    "__MACOSX/1.png",
    ".Trash-1000/files/1.png",
    ".Trashes/1.png",
    "bolt/@eaDir/1.png",
    "bolt/.@__thumb/1.png",
]


@pytest.mark.parametrize("path", SYSTEM)
def test_folders_of_a_nas_or_the_system_are_left_out_and_named(tmp_path, path):
    root = tmp_path / "line"
    put(root, "bolt/1.png", path)
    folder = path.removeprefix("bolt/").split("/")[0]
    assert set(rows(survey(str(root)), root)) == {"bolt/1.png"}
    assert f"{LEFT_OUT}: 1\n    {folder}: 1, such as {path}" in said(root)
    listing = Listing(str(root), ["bolt"])
    assert [row["uri"] for batch in listing for row in batch.to_pylist()] == [str(root / "bolt/1.png")]
    assert (listing.left_out, dict(listing.left_out_folders)) == (1, {folder: 1})


def test_small_change_of_windows_is_named_as_no_image(tmp_path):
    root = tmp_path / "line"
    put(root, "1.png")
    for name in ("Thumbs.db", "desktop.ini", ".DS_Store"):
        (root / name).write_bytes(b"x")
    assert "files that are no images, left out: 3\n    .DS_Store\n    Thumbs.db\n    desktop.ini" in said(root)


# An archive's masks


def test_an_archive_leaves_masks_out_wherever_their_image_was_listed(tmp_path, monkeypatch):
    put(tmp_path, "a.JPG", "a_GT.png", "b_mask.png", "c/Ground_Truth/1.png", "c/d.tif", "c/d.mask.png")
    for page in (1, 1000):  # files of a folder may come in several pages
        monkeypatch.setattr("raydiff.storage.walking.PAGE", page)
        listing = Listing(str(tmp_path))
        uris = {row["uri"] for batch in listing for row in batch.to_pylist()}
        assert uris == {str(tmp_path / path) for path in ("a.JPG", "b_mask.png", "c/d.tif")}
        assert listing.left_out == 3


def test_an_archive_whose_images_are_called_as_masks_is_not_asked_for_ever(tmp_path, monkeypatch):
    for number in range(ASKED_IN_VAIN + 50):
        (tmp_path / f"{number}_label.png").write_bytes(b"")
    asked = []
    monkeypatch.setattr(storage, "exists", lambda uri: asked.append(uri.rpartition(".")[0]))
    assert sum(batch.num_rows for batch in Listing(str(tmp_path))) == ASKED_IN_VAIN + 50
    assert len(set(asked)) == ASKED_IN_VAIN


# Several pictures of one scene


def test_mvtec_3d_has_images_masks_and_the_rest(tmp_path):
    root = tmp_path / "bagel"
    for place in ("train/good", "validation/good", "test/good", "test/hole"):
        put(root, f"{place}/rgb/000.png", f"{place}/xyz/000.tiff")
        put(root, f"{place}/gt/000.png", value=MARKED if "hole" in place else BLACK)
    found = survey(str(root))
    assert rows(found, root) == {
        "train/good/rgb/000.png": ("bagel", "train", 0, "good", None),
        "validation/good/rgb/000.png": ("bagel", "train", 0, "good", None),
        "test/good/rgb/000.png": ("bagel", "test", 0, "good", None),
        "test/hole/rgb/000.png": ("bagel", "test", 1, "hole", "test/hole/gt/000.png"),
    }
    assert found.unused_masks == ()
    assert "images of other kinds than rgb, left out: 4\n    xyz: 4" in said(root)


@pytest.mark.parametrize(
    "below",
    [("image/0.png", "depth/0.png"), ("rgb/0.png", "xyz/0.tiff", "extra/0.png"), ("0.png", "masks/0.png")],
)
def test_folders_of_one_scene_that_are_not_known_stop(tmp_path, below):
    put(tmp_path, *(f"c/train/good/{path}" for path in below))
    with pytest.raises(DataError, match=r"c/train/good/ holds .* which look like several pictures of one scene"):
        survey(str(tmp_path))


def test_folders_below_good_that_only_sort_its_images_are_taken(tmp_path):
    put(tmp_path, "c/train/good/monday/1.png", "c/train/good/tuesday/1.png", "c/train/good/2.png")
    assert len(survey(str(tmp_path)).images) == 3


# Splits of MVTec AD 2 and LOCO AD


def test_mvtec_ad_2(tmp_path):
    root = tmp_path / "can"
    put(root, "train/good/000.png", "validation/good/000.png", "test_public/good/000.png", "test_public/bad/000.png")
    put(root, "test_private/000.png", "test_private_mixed/000.png")
    put(root, "test_public/ground_truth/bad/000_mask.png", value=MARKED)
    assert rows(survey(str(root)), root) == {
        "train/good/000.png": ("can", "train", 0, "good", None),
        "validation/good/000.png": ("can", "train", 0, "good", None),
        "test_public/good/000.png": ("can", "test", 0, "good", None),
        "test_public/bad/000.png": ("can", "test", 1, "bad", "test_public/ground_truth/bad/000_mask.png"),
        "test_private/000.png": ("can", "test", None, None, None),
        "test_private_mixed/000.png": ("can", "test", None, None, None),
    }
    words = said(root)
    assert "images of validation/ taken as normals, to train on or hold out: 1\n    validation/good: 1" in words


def test_loco_has_a_folder_of_masks_for_an_image(tmp_path):
    root = tmp_path / "juice"
    put(root, "train/good/000.png", "validation/good/000.png", "test/good/000.png")
    put(root, "test/logical_anomalies/000.png", "test/structural_anomalies/000.png")
    masks = root / "ground_truth/logical_anomalies/000"
    masks.mkdir(parents=True)
    for number, column in enumerate((1, 4)):
        mask = np.zeros((4, 6), np.uint8)
        mask[2, column] = 200
        Image.fromarray(mask).save(masks / f"{number:03d}.png")
    put(root, "ground_truth/structural_anomalies/000/000.png", value=MARKED)
    found = rows(survey(str(root)), root)
    uri = "ground_truth/logical_anomalies/000/"
    assert found["test/logical_anomalies/000.png"] == ("juice", "test", 1, "logical_anomalies", uri)
    united = np.zeros((4, 6), bool)
    united[2, [1, 4]] = True
    np.testing.assert_array_equal(read_mask(str(root / uri) + "/"), united)
    np.testing.assert_array_equal(read_mask(str(root / uri)), united)
    assert "masks that cannot be used" not in said(root)
    Image.new("L", (5, 4)).save(masks / "002.png")
    with pytest.raises(ImageError, match="are 6 x 4 and 5 x 4 pixels"):
        read_mask(str(masks))
    assert "masks that cannot be used, their images are left out of pixel metrics: 1" in said(root)


@pytest.mark.parametrize(
    ("lost", "sentence"),
    [
        ("c/train/{}.png", "c/train: 3 of 23 images lie at no place that has a meaning, such as c/train/0.png"),
        ("d/Trainset/good/{}.png", "d: 3 of 3 images lie at no place that has a meaning"),
        ("{}.png", ": 3 of 23 images lie at no place that has a meaning, such as 0.png, 1.png, 2.png; known are <cat"),
    ],
)
def test_more_than_a_tenth_without_a_place_stops(tmp_path, lost, sentence):
    put(tmp_path, *(f"c/train/good/{number}.png" for number in range(20)), *(lost.format(i) for i in range(3)))
    with pytest.raises(DataError) as error:
        survey(str(tmp_path))
    assert sentence in str(error.value)
    assert "or name your own folders with --normal and --anomalous" in str(error.value)


def test_train_without_normals_stops_and_defects_there_are_said(tmp_path):
    root = tmp_path / "c"
    put(root, "train/fine/1.png", "test/dent/1.png")
    with pytest.raises(DataError, match=r"train/ of c holds no normals, only train/fine.*give --normal fine"):
        survey(str(root))
    assert rows(survey(str(root), named=named("fine")), root) == {
        "train/fine/1.png": ("c", "train", 0, "good", None),
        "test/dent/1.png": ("c", "test", 1, "dent", None),
    }
    put(root, "train/good/1.png")
    assert "images of defects under train/, neither trained on nor tested: 1\n    train/fine: 1" in said(root)


def test_masks_beside_images_and_in_folders_on_another_filesystem(tmp_path):
    put(tmp_path, "c/train/good/0.png", "c/test/dent/0.png", "c/test/dent/1.png", "c/@eaDir/1.png")
    put(tmp_path, "c/test/dent/1_GT.png", "c/ground_truth/dent/0/a.png", "c/ground_truth/dent/0/b.png", value=MARKED)
    try:
        for file in storage.list_files(str(tmp_path)):
            storage.write_bytes(file.replace(str(tmp_path), "memory://place"), storage.read_bytes(file))
        found = survey("memory://place")
        masks = {row["uri"]: row["mask_uri"] for row in found.images.to_pylist() if row["label"]}
        assert masks == {
            "memory:///place/c/test/dent/0.png": "memory:///place/c/ground_truth/dent/0/",
            "memory:///place/c/test/dent/1.png": "memory:///place/c/test/dent/1_GT.png",
        }
        assert all(read_mask(uri).all() for uri in masks.values())
        assert index("memory://place", "memory://out/images.parquet").bad_masks == ()
        listing = Listing("memory://place")
        assert sum(batch.num_rows for batch in listing) == 3
        assert dict(listing.left_out_folders) == {"@eaDir": 1}
    finally:
        MemoryFileSystem.store.clear()


# Masks in a tree of their own


@pytest.mark.parametrize("ending", ["_GT", ".mask", "-mask", "_label", "_mask", "", "_segmentation"])
def test_masks_are_paired_by_whatever_ending_all_have(tmp_path, ending):
    root = tmp_path / "c"
    put(root, "train/good/1.png", *(f"test/dent/{number}.jpg" for number in (1, 2)), "test/dent/1b.jpg")
    put(root, *(f"ground_truth/dent/{number}{ending}.png" for number in (1, 2)), value=MARKED)
    found = survey(str(root))
    masks = {path: row[4] for path, row in rows(found, root).items() if row[2]}
    assert masks == {
        "test/dent/1.jpg": f"ground_truth/dent/1{ending}.png",
        "test/dent/2.jpg": f"ground_truth/dent/2{ending}.png",
        "test/dent/1b.jpg": None,
    }
    assert (found.unused_masks, found.findings) == ((), ())


def test_masks_of_several_endings_are_said_and_those_that_fit_nothing_too(tmp_path):
    put(tmp_path, "c/train/good/1.png", *(f"c/test/dent/{number}.png" for number in range(4)))
    put(
        tmp_path,
        *(f"c/ground_truth/dent/{name}.png" for name in ("0_mask", "1_mask", "3_mask", "2_GT", "1_GT", "9_GT")),
    )
    found = survey(str(tmp_path))
    assert found.unused_masks == ("c/ground_truth/dent/1_GT.png", "c/ground_truth/dent/9_GT.png")
    ((what, names, number),) = found.findings
    assert what == "masks of c, called in several ways"
    assert (names, number) == (("<image>_mask: 3", "<image>_gt: 1"), 4)


def test_the_rule_that_fits_most_decides_what_is_unclear():
    found = pair(["x/a", "x/a_mask"], {"m/a_mask.png": "x/a_mask", "m/a_mask_mask.png": "x/a_mask_mask"})
    assert found.masks == {"x/a": "m/a_mask.png", "x/a_mask": "m/a_mask_mask.png"}
    assert found.rules == Counter({"_mask": 2})


# Folders of the user's own names


def test_the_sentence_gives_the_options_and_the_options_work(tmp_path):
    root = tmp_path / "plant"
    put(root, *(f"line4/OK/{number}.png" for number in range(10)), "line4/NG/1.png", "line4/NG/deep cut/2.png")
    with pytest.raises(DataError, match="say which are, as in --normal OK --anomalous NG, or"):
        survey(str(root))
    found = rows(survey(str(root), named=named("ok", "NG")), root)
    assert Counter((row[0], row[1], row[2]) for row in found.values()) == {
        ("line4", "train", 0): 8,
        ("line4", "test", 0): 2,
        ("line4", "test", 1): 2,
    }
    assert found["line4/NG/1.png"] == ("line4", "test", 1, "NG", None)
    assert "no folder is called test: 2\n    line4: 2" in said(root, named=named("OK", "NG"))
    again = rows(survey(str(root), named=named("OK", "NG")), root)
    assert again == found  # the same normals are drawn each time


def test_names_with_spaces_are_quoted_for_the_shell(tmp_path):
    put(tmp_path, "good/1.png", "deep cut/1.png", "dent/1.png")
    with pytest.raises(DataError, match="as in --normal good --anomalous 'deep cut,dent', or"):
        survey(str(tmp_path))
    assert len(survey(str(tmp_path), named=named("good", "deep cut,dent")).images) == 3


def test_folders_named_below_a_split(tmp_path):
    root = tmp_path / "c"
    put(root, "train/OK/1.png", "test/OK/1.png", "test/NG/1.png", "train/NG/2.png")
    put(root, "ground_truth/NG/1_mask.png", value=MARKED)
    assert rows(survey(str(root), named=named("OK", "NG")), root) == {
        "train/OK/1.png": ("c", "train", 0, "good", None),
        "test/OK/1.png": ("c", "test", 0, "good", None),
        "test/NG/1.png": ("c", "test", 1, "NG", "ground_truth/NG/1_mask.png"),
        "train/NG/2.png": ("c", "train", 1, "NG", None),
    }
    assert "images of defects under train/, neither trained on nor tested: 1\n    NG" in said(
        root, named=named("OK", "NG")
    )


def test_visa_as_it_is_unpacked(tmp_path):
    root = tmp_path / "visa"
    for category in ("candle", "pcb1"):
        put(root, *(f"{category}/Data/Images/Normal/{number}.JPG" for number in range(5)))
        put(root, f"{category}/Data/Images/Anomaly/0.JPG")
        put(root, f"{category}/Data/Masks/Anomaly/0.png", value=MARKED)
    found = rows(survey(str(root), named=named("Normal", "Anomaly")), root)
    mask = "candle/Data/Masks/Anomaly/0.png"
    assert found["candle/Data/Images/Anomaly/0.JPG"] == ("candle", "test", 1, "Anomaly", mask)
    assert {row[0] for row in found.values()} == {"candle", "pcb1"}
    assert len(found) == 12


def test_masks_in_one_folder_are_found_by_name_and_a_product_may_be_called_mask(tmp_path):
    root = tmp_path / "plant"
    put(root, "mask/OK/1.png", "mask/NG/2.png", "bolt/OK/1.png", "bolt/NG/2.png")
    put(root, "bolt/masks/2_GT.png", value=MARKED)
    found = rows(survey(str(root), named=named("OK", "NG")), root)
    assert found["bolt/NG/2.png"] == ("bolt", "test", 1, "NG", "bolt/masks/2_GT.png")
    assert found["mask/OK/1.png"] == ("mask", "train", 0, "good", None)


def test_only_anomalies_named_leaves_the_rest_as_normals_unless_its_name_says_otherwise(tmp_path):
    root = tmp_path / "plant"
    put(root, "line4/1.png", "line4/monday/2.png", "line4/NG/3.png")
    assert rows(survey(str(root), named=named(anomalous="NG")), root) == {
        "line4/1.png": ("line4", "train", 0, "good", None),
        "line4/monday/2.png": ("line4", "train", 0, "good", None),
        "line4/NG/3.png": ("line4", "test", 1, "NG", None),
    }
    put(root, "line4/defects/4.png")
    with pytest.raises(DataError, match="cannot all be normal"):
        survey(str(root), named=named(anomalous="NG"))


@pytest.mark.parametrize(
    ("normal", "anomalous", "sentence"),
    [
        ("OKAY", "NG", "holds no images in a folder called OKAY; found folders NG, OK, maybe"),
        (
            "OK",
            "NG",
            "maybe: 1 of 1 images lie at no place that has a meaning, such as maybe/1.png; known are --normal",
        ),
        ("OK", "NG,maybe,both", "lies in NG and OK, which are named --normal and --anomalous"),
        ("", "OK,NG,maybe", "holds no normals to train on"),
    ],
)
def test_names_that_do_not_fit(tmp_path, normal, anomalous, sentence):
    put(tmp_path, "OK/1.png", "NG/1.png", "maybe/1.png")
    if "both" in anomalous:
        put(tmp_path, "NG/OK/1.png", "both/1.png")
    with pytest.raises(DataError) as error:
        survey(str(tmp_path), named=named(normal, anomalous))
    assert sentence in str(error.value)


@pytest.mark.parametrize(("normal", "anomalous"), [("OK", "ng,ok"), ("a/b", "NG"), ("OK", "NG,"), ("..", "NG")])
def test_options_that_are_no_names(normal, anomalous):
    with pytest.raises(SettingsError, match="--normal"):
        named(normal, anomalous)


def test_options_are_split_at_commas_and_repeated():
    assert FolderNames.parse(["OK, good", "fine"], None) == FolderNames(("OK", "good", "fine"))
    assert not FolderNames.parse(None, None)


def test_the_command_takes_the_options(tmp_path):
    put(tmp_path / "plant", *(f"OK/{number}.png" for number in range(5)), "NG/1.png", "scratch/1.png")
    given = ["index", "--data", str(tmp_path / "plant"), "--out", str(tmp_path / "run")]
    result = CliRunner().invoke(cli.app, [*given, "--normal", "OK", "--anomalous", "NG", "--anomalous", "scratch"])
    assert result.exit_code == 0, result.output
    labels = table.read(str(tmp_path / "run/images.parquet"))["label"].to_pylist()
    assert Counter(labels) == {0: 5, 1: 2}
    refused = CliRunner().invoke(cli.app, [*given, "--pack", "--normal", "OK"])
    assert "whose images have no labels" in str(refused.exception)


def test_a_plan_looks_at_the_folders_as_the_job_does(tmp_path):
    put(tmp_path / "plant", "OK/1.png", "NG/1.png")
    out = str(tmp_path / "run")
    with pytest.raises(DataError) as of_plan:
        plan_training(str(tmp_path / "plant"), out, {}, False, None, None, 0.01, "none", named=named("FINE", "NG"))
    with pytest.raises(DataError) as of_job:
        steps.index(str(tmp_path / "plant"), out, named=named("FINE", "NG"))
    assert "in a folder called FINE" in str(of_plan.value)
    assert str(of_plan.value) == str(of_job.value)


def test_a_table_takes_no_names_of_folders(tmp_path):
    (tmp_path / "t.csv").write_text("uri\na.png\n")
    with pytest.raises(DataError, match="is a table: its column label says what is normal"):
        survey(str(tmp_path / "t.csv"), named=named("OK"))


# Names and links


def test_names_of_all_kinds(tmp_path):
    root = tmp_path / "ä set"
    paths = ["a b.png", "50%.png", "#1.png", "ü/Ä.png", "x.png/1.PNG", "c'd\".png", "tab\t.png", "::.png"]
    put(root, *paths)
    assert set(rows(survey(str(root)), root)) == set(paths)
    assert "unreadable" not in said(root)


def test_a_name_that_is_no_text_is_left_out_and_named(tmp_path):
    put(tmp_path / "set", "1.png")
    os.rename(tmp_path / "set/1.png", os.fsencode(tmp_path / "set") + b"/caf\xe9.png")
    put(tmp_path / "set", "2.png")
    assert "images whose name is not UTF-8, left out; rename them: 1\n    caf\\udce9.png" in said(tmp_path / "set")
    assert sum(batch.num_rows for batch in Listing(str(tmp_path / "set"))) == 1


def test_links_in_circles_and_to_nowhere(tmp_path):
    root = tmp_path / "set"
    put(root, "c/1.png")
    (root / "c/again").symlink_to(root, target_is_directory=True)
    (root / "c/self.png").symlink_to(root / "c/self.png")
    (root / "c/gone.png").symlink_to(root / "nowhere.png")
    words = said(root)
    assert "3 images (folder of normals)" in words
    assert "unreadable images, they will be rows with an error: 2" in words


def test_one_picture_under_two_extensions_is_said(tmp_path):
    root = tmp_path / "set"
    put(root, "a.png", "a.jpg", "b.png", "c.PNG", "c.png", "d/a.png")
    words = said(root)
    assert "perhaps one picture twice; all are kept: 4\n    a.jpg\n    a.png\n    c.PNG\n    c.png" in words
    assert "6 images" in words


def test_an_empty_file_and_a_single_image(tmp_path):
    root = tmp_path / "set"
    put(root, "a.png")
    assert "1 images (folder of normals)" in said(root)
    (root / "b.png").write_bytes(b"")
    assert "b.png: the file is empty" in said(root)
