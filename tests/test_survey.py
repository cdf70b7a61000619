"""What is found in folders of every layout, on local disk and on another fsspec filesystem."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fsspec.implementations.memory import MemoryFileSystem
from PIL import Image

from raydiff import storage
from raydiff.errors import DataError, StorageError
from raydiff.images import table
from raydiff.images.layouts.found import LEFT_OUT
from raydiff.images.survey import find_images, survey


def _png() -> bytes:
    sink = io.BytesIO()
    Image.new("RGB", (2, 2)).save(sink, "PNG")
    return sink.getvalue()


PNG = _png()


@pytest.fixture(params=["local", "memory"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """An empty place: a folder on disk, and one of fsspec's filesystem in memory."""
    if request.param == "local":
        yield str(tmp_path)
    else:
        yield "memory://place"
        MemoryFileSystem.store.clear()
        MemoryFileSystem.pseudo_dirs[:] = [""]


def put(root: str, *paths: str) -> None:
    for path in paths:
        storage.write_bytes(storage.join(root, path), PNG)


def rows(root: str, *columns: str, **options: Any) -> dict[str, Any]:
    """Path relative to the root -> the columns asked for (bare if it is one)."""
    found = {}
    for row in find_images(root, **options).to_pylist():
        values = tuple(relative(root, row[name]) if name == "mask_uri" else row[name] for name in columns)
        found[relative(root, row["uri"])] = values if len(values) > 1 else values[0]
    return found


def relative(root: str, uri: str | None) -> str | None:
    if uri is None:
        return None
    at = uri.index(storage.name(root) + "/") + len(storage.name(root)) + 1
    return uri[at:]


def test_mvtec_ad(root: str) -> None:
    put(root, "set/screw/train/good/000.png", "set/screw/train/good/001.png", "set/screw/test/good/000.png")
    put(root, "set/screw/test/scratch/000.png", "set/screw/ground_truth/scratch/000_mask.png")
    put(root, "set/screw/test/dent/000.png", "set/readme.txt", "set/screw/Thumbs.db")
    set_root = storage.join(root, "set")
    found = survey(set_root)
    assert found.layout == "MVTec AD layout"
    assert found.images.schema == table.SCHEMA
    assert found.images["uri"].to_pylist() == sorted(found.images["uri"].to_pylist())
    assert found.ignored == ("readme.txt", "screw/Thumbs.db")
    assert found.misplaced == found.unused_masks == ()
    columns = ("dataset", "category", "split", "label", "defect", "mask_uri")
    assert rows(set_root, *columns) == {
        "screw/train/good/000.png": ("set", "screw", "train", 0, "good", None),
        "screw/train/good/001.png": ("set", "screw", "train", 0, "good", None),
        "screw/test/good/000.png": ("set", "screw", "test", 0, "good", None),
        "screw/test/scratch/000.png": (
            *("set", "screw", "test", 1, "scratch"),
            "screw/ground_truth/scratch/000_mask.png",
        ),
        "screw/test/dent/000.png": ("set", "screw", "test", 1, "dent", None),
    }


def test_every_uri_found_can_be_read(root: str) -> None:
    put(root, "s/c/train/good/a b#%.png", "s/c/test/x/1.png", "s/c/ground_truth/x/1_mask.png")
    for row in find_images(storage.join(root, "s")).to_pylist():
        assert storage.read_bytes(row["uri"]) == PNG
        assert row["mask_uri"] is None or storage.read_bytes(row["mask_uri"]) == PNG


def test_btad_says_ok_and_ko_and_its_masks_have_no_suffix(root: str) -> None:
    put(root, "01/train/ok/0000.bmp", "01/test/ok/0001.bmp", "01/test/ko/0002.bmp", "01/test/ko/0003.bmp")
    put(root, "01/ground_truth/ko/0002.png", "01/ground_truth/ok/0001.png")
    assert rows(root, "category", "split", "label", "defect", "mask_uri") == {
        "01/train/ok/0000.bmp": ("01", "train", 0, "good", None),
        "01/test/ok/0001.bmp": ("01", "test", 0, "good", None),
        "01/test/ko/0002.bmp": ("01", "test", 1, "ko", "01/ground_truth/ko/0002.png"),
        "01/test/ko/0003.bmp": ("01", "test", 1, "ko", None),
    }
    assert survey(root).unused_masks == ()  # a black mask of a normal is not missed


def test_masks_of_any_extension_and_the_suffix_first(root: str) -> None:
    put(root, "c/train/good/1.png", "c/test/x/1.JPG", "c/test/x/2.tiff", "c/test/y/1.png", "c/test/x/deep/3.png")
    put(root, "c/ground_truth/x/1_mask.BMP", "c/ground_truth/x/2.png", "c/ground_truth/x/2_mask.tif")
    put(root, "c/ground_truth/x/deep/3_mask.png", "c/ground_truth/z/1_mask.png")
    masks = {path: mask for path, mask in rows(root, "mask_uri").items() if "test" in path}
    assert masks == {
        "c/test/x/1.JPG": "c/ground_truth/x/1_mask.BMP",
        "c/test/x/2.tiff": "c/ground_truth/x/2_mask.tif",
        "c/test/x/deep/3.png": "c/ground_truth/x/deep/3_mask.png",
        "c/test/y/1.png": None,  # the mask of x/1 is not that of y/1
    }
    assert survey(root).unused_masks == ("c/ground_truth/x/2.png", "c/ground_truth/z/1_mask.png")


def test_the_root_is_one_category(root: str) -> None:
    put(root, "mvtec/screw/train/good/1.png", "mvtec/screw/test/x/1.png")
    found = rows(storage.join(root, "mvtec/screw"), "dataset", "category")
    assert set(found.values()) == {("mvtec", "screw")}
    assert rows(storage.join(root, "mvtec/screw") + "/", "dataset") == dict.fromkeys(found, "mvtec")


def test_a_bucket_that_is_one_category_is_its_own_dataset() -> None:
    put("memory://bucket", "train/good/1.png")
    try:
        assert rows("memory://bucket", "dataset", "category") == {"train/good/1.png": ("bucket", "bucket")}
    finally:
        MemoryFileSystem.store.clear()


def test_a_folder_of_datasets(root: str) -> None:
    put(root, "mvtec/screw/train/good/1.png", "btad/01/train/ok/1.png", "loose/train/good/1.png")
    assert rows(root, "dataset", "category") == {
        "mvtec/screw/train/good/1.png": ("mvtec", "screw"),
        "btad/01/train/ok/1.png": ("btad", "01"),
        "loose/train/good/1.png": (storage.name(root), "loose"),
    }


def test_a_category_of_two_datasets_is_told_apart(root: str) -> None:
    put(root, "a/screw/train/good/1.png", "b/screw/train/good/1.png", "b/nut/train/good/1.png")
    assert rows(root, "dataset", "category") == {
        "a/screw/train/good/1.png": ("a", "a/screw"),
        "b/screw/train/good/1.png": ("b", "b/screw"),
        "b/nut/train/good/1.png": ("b", "nut"),
    }


def test_folders_called_test_and_train_above_and_below_the_split(root: str) -> None:
    put(root, "test/screw/train/good/1.png", "test/screw/test/train/1.png")
    assert rows(root, "dataset", "category", "split", "defect") == {
        "test/screw/train/good/1.png": ("test", "screw", "train", "good"),
        "test/screw/test/train/1.png": ("test", "screw", "test", "train"),
    }


def test_categories_without_train_and_anomalous_training_images(root: str) -> None:
    put(root, "c_unmasked/test/unassigned/1.png", "c/train/good/1.png", "c/train/bad/1.png")
    assert rows(root, "category", "split", "label", "defect") == {
        "c_unmasked/test/unassigned/1.png": ("c_unmasked", "test", 1, "unassigned"),
        "c/train/good/1.png": ("c", "train", 0, "good"),
        "c/train/bad/1.png": ("c", "train", 1, "bad"),
    }


def test_images_at_places_without_a_meaning_are_told(root: str) -> None:
    put(root, *(f"c/train/good/{i}.png" for i in range(19)), "c/preview.png", "c/train/2.png")
    assert set(rows(root, "split").values()) == {"train"}
    assert survey(root).misplaced == ("c/preview.png", "c/train/2.png")


def test_hidden_files_and_our_own_outputs_are_no_images(root: str) -> None:
    put(root, "c/train/good/1.png", "c/train/good/._1.png", "__MACOSX/c/train/good/1.png")
    put(root, "out/anomaly_maps/c/test/good/1.tiff", ".ipynb_checkpoints/c/train/good/1.png")
    assert rows(root, "category") == {"c/train/good/1.png": "c"}
    found = survey(root)
    assert found.ignored == ("c/train/good/._1.png",)
    ((what, names, number),) = found.findings
    assert (what, number) == (LEFT_OUT, 3)
    assert "__MACOSX: 1, such as __MACOSX/c/train/good/1.png" in names


def test_a_folder_of_normals(root: str) -> None:
    put(root, "bolts/1.png", "bolts/2.JPEG", "bolts/notes.txt")
    bolts = storage.join(root, "bolts")
    assert rows(bolts, "dataset", "category", "split", "label", "defect", "mask_uri") == {
        "1.png": ("bolts", "bolts", "train", 0, "good", None),
        "2.JPEG": ("bolts", "bolts", "train", 0, "good", None),
    }
    found = survey(bolts)
    assert (found.layout, found.ignored) == ("folder of normals", ("notes.txt",))


def test_a_folder_of_normals_with_one_folder_a_category(root: str) -> None:
    put(root, "set/bolts/1.png", "set/nuts/monday/1.png", "set/3.png")
    found = rows(storage.join(root, "set"), "dataset", "category", "label")
    assert found == {
        "bolts/1.png": ("set", "bolts", 0),
        "nuts/monday/1.png": ("set", "nuts", 0),
        "3.png": ("set", "set", 0),
    }


@pytest.mark.parametrize(
    "paths",
    [
        ("good/1.png", "scratch/1.png"),
        ("screw/good/1.png", "screw/dent/1.png"),
        ("OK/1.png", "rest/1.png"),
        ("candle/Data/Images/Normal/1.png", "candle/Data/Images/Anomaly/1.png"),  # VisA
        ("monday/NG/1.png", "monday/2.png"),
    ],
)
def test_defects_are_not_taken_for_normals(root: str, paths: tuple[str, ...]) -> None:
    put(root, *paths)
    with pytest.raises(DataError, match="cannot all be normal; say which are, as in --"):
        find_images(root)


def test_a_folder_of_nothing_but_good(root: str) -> None:
    put(root, "good/1.png")
    assert rows(root, "label") == {"good/1.png": 0}
    assert rows(storage.join(root, "good"), "category") == {"1.png": "good"}


def test_images_to_score_of_one_category_may_lie_anyhow(root: str) -> None:
    put(root, "bolts/1.png", "archive/2.png", "archive/2026/11/3.png")
    found = find_images(storage.join(root, "bolts"), storage.join(root, "archive")).to_pylist()
    assert [(row["category"], row["split"], row["label"], row["defect"]) for row in found] == [
        ("bolts", "test", None, None),
        ("bolts", "test", None, None),
        ("bolts", "train", 0, "good"),
    ]
    assert [row["dataset"] for row in found] == ["archive", "archive", "bolts"]


def test_images_to_score_of_several_categories_lie_in_folders_of_their_names(root: str) -> None:
    put(root, "normals/bolt/1.png", "normals/nut/1.png", "new/bolt/1.png", "new/nut/x/2.png")
    normals, new = storage.join(root, "normals"), storage.join(root, "new")
    images = find_images(normals, new).to_pylist()
    assert [row["category"] for row in images if row["split"] == "test"] == ["bolt", "nut"]
    put(root, "new/3.png", "new/screw/4.png")
    with pytest.raises(DataError, match=r"one folder a category \(bolt, nut\).*found 3.png, screw/4.png$"):
        find_images(normals, new)


def test_images_to_score_beside_the_mvtec_ad_layout(root: str) -> None:
    put(root, "a/x/train/good/1.png", "b/x/train/good/1.png", "a/x/test/d/1.png")
    put(root + "_new", "a/x/9.png", "b/x/monday/9.png", "notes.txt")
    found = survey(root, root + "_new")
    to_score = [row for row in found.images.to_pylist() if row["label"] is None]
    assert [(row["category"], row["split"]) for row in to_score] == [("a/x", "test"), ("b/x", "test")]
    assert len(found.images) == 5
    assert "notes.txt" in found.ignored


def test_one_of_the_two_folders_inside_the_other(root: str) -> None:
    put(root, "1.png", "to_score/2.png")
    inner = storage.join(root, "to_score")
    assert rows(root, "split", score_uri=inner) == {"1.png": "train", "to_score/2.png": "test"}
    assert rows(root, "split") == {"1.png": "train", "to_score/2.png": "train"}
    found = find_images(inner, root).to_pylist()  # the other way round
    assert {relative(root, row["uri"]): row["split"] for row in found} == {
        "1.png": "test",
        "to_score/2.png": "train",
    }
    with pytest.raises(DataError, match="use two folders"):
        find_images(root, root)


def test_a_wrong_layout_says_what_was_looked_for_and_what_was_found(root: str) -> None:
    put(root, "none/a.txt", "none/b.doc", "none/c.gif", "none/d.csv", "none/e.svg", "none/f.mp4")
    with pytest.raises(DataError) as error:
        find_images(storage.join(root, "none"))
    assert "looked for .png" in str(error.value)
    assert "<category>/train/good/<image>" in str(error.value)
    assert "found a.txt, b.doc, c.gif, d.csv and 2 more" in str(error.value)

    put(root, "flat/train/1.png", "flat/test/2.png")
    with pytest.raises(DataError) as error:
        find_images(storage.join(root, "flat"))
    assert "looked for <category>/train/good/<image> and <category>/test/<defect>/<image>" in str(error.value)
    assert "found test/2.png, train/1.png" in str(error.value)

    put(root, "masks/c/ground_truth/x/1_mask.png")
    with pytest.raises(DataError, match=r"found c/ground_truth/x/1_mask.png"):
        find_images(storage.join(root, "masks"))


def test_a_place_that_is_not_there(root: str) -> None:
    with pytest.raises(StorageError, match=r"is not there|is not a folder that can be listed"):
        find_images(storage.join(root, "missing"))


def test_an_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="found nothing"):
        find_images(str(tmp_path))


def test_file_uris_and_relative_paths_become_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(str(tmp_path), "bolts/1.png")
    expected = [str(tmp_path / "bolts/1.png")]
    monkeypatch.chdir(tmp_path)
    for uri in ("bolts", f"file://{tmp_path}/bolts/", str(tmp_path / "bolts")):
        assert find_images(uri)["uri"].to_pylist() == expected


def test_a_folder_is_listed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(str(tmp_path), *(f"set/c{i}/train/good/1.png" for i in range(9)))
    calls = []
    whole = storage.list_files
    monkeypatch.setattr(storage, "list_files", lambda uri: calls.append(uri) or whole(uri))
    assert len(find_images(str(tmp_path))) == 9
    assert calls == [str(tmp_path)]
