"""`index`: the table it writes and the account it gives."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from PIL import Image
from rich.console import Console

from raydiff import storage
from raydiff.errors import DataError
from raydiff.images import decode, table
from raydiff.images.index import Group, IndexReport, index, print_report
from raydiff.images.survey import find_images


def put(root: str, path: str, value: int = 90, size: tuple[int, int] = (6, 4)) -> str:
    sink = io.BytesIO()
    kind = {"jpg": "JPEG", "tif": "TIFF"}.get(path.rpartition(".")[2], "PNG")
    Image.new("RGB", size, (value, value, value)).save(sink, kind)
    uri = storage.join(root, path)
    storage.write_bytes(uri, sink.getvalue())
    return uri


def text(report: IndexReport) -> str:
    to = Console(file=io.StringIO(), width=80, soft_wrap=True, highlight=False)
    print_report(report, to)
    return to.file.getvalue()


def draw(root: str) -> dict[str, str]:
    """A small set with one of each thing that can be wrong."""
    for i in range(3):
        put(root, f"screw/train/good/{i}.jpg")
    put(root, "screw/test/good/0.png")
    put(root, "screw/test/dent/0.png")
    put(root, "screw/ground_truth/dent/0_mask.png", 255)
    uris = {"no_mask": put(root, "screw/test/dent/1.png")}
    put(root, "screw/test/dent/2.png")
    uris["small_mask"] = put(root, "screw/ground_truth/dent/2_mask.png", 255, (5, 4))
    put(root, "screw/test/dent/3.png")
    uris["black_mask"] = put(root, "screw/ground_truth/dent/3_mask.png", 0)
    put(root, "screw/test/dent/4.png")
    uris["text_mask"] = storage.join(root, "screw/ground_truth/dent/4_mask.png")
    storage.write_bytes(uris["text_mask"], b"no mask today")
    uris["text"] = storage.join(root, "screw/test/good/1.png")
    storage.write_bytes(uris["text"], b"no image today")
    uris["empty"] = storage.join(root, "screw/train/good/9.tif")
    storage.write_bytes(uris["empty"], b"")
    put(root, "nut_unmasked/test/unassigned/0.png")
    put(root, "screw/ground_truth/dent/77_mask.png", 255)
    put(root, "screw/cover.png")
    storage.write_bytes(storage.join(root, "readme.txt"), b"hello")
    return uris


def check(report: IndexReport, uris: dict[str, str]) -> None:
    assert report.layout == "MVTec AD layout"
    assert report.groups == (
        Group("nut_unmasked", "test", "unassigned", 1, 0),
        Group("screw", "train", "good", 4, 0),
        Group("screw", "test", "dent", 5, 4),
        Group("screw", "test", "good", 2, 0),
    )
    assert report.without_normals == ("nut_unmasked",)
    assert [storage.name(uri) for uri in report.without_mask] == ["0.png", "1.png"]
    assert uris["no_mask"] in report.without_mask
    assert dict(report.unreadable).keys() == {uris["text"], uris["empty"]}
    assert dict(report.unreadable)[uris["empty"]] == "the file is empty"
    assert "b'no image'" in dict(report.unreadable)[uris["text"]]
    reasons = dict(report.bad_masks)
    assert reasons.keys() == {uris["small_mask"], uris["black_mask"], uris["text_mask"]}
    assert reasons[uris["small_mask"]] == "the mask is 5 x 4 pixels, its image 6 x 4"
    assert reasons[uris["black_mask"]] == "the mask is all black: it marks no defect"
    assert "b'no mask '" in reasons[uris["text_mask"]]
    assert report.ignored == ("readme.txt",)
    assert report.misplaced == ("screw/cover.png",)
    assert report.unused_masks == ("screw/ground_truth/dent/77_mask.png",)


def test_everything_found_is_accounted_for(tmp_path: Path) -> None:
    uris = draw(str(tmp_path / "data"))
    out = str(tmp_path / "out/images.parquet")
    check(index(str(tmp_path / "data"), out), uris)
    written = table.read(out)
    assert written == find_images(str(tmp_path / "data"))
    assert {uris["text"], uris["empty"]} <= set(written["uri"].to_pylist())  # they become rows with an error


def test_on_another_filesystem() -> None:
    try:
        uris = {name: uri.replace("memory://", "memory:///") for name, uri in draw("memory://data").items()}
        check(index("memory://data", "memory://out/images.parquet"), uris)
        assert len(table.read("memory://out/images.parquet")) == 12
    finally:
        MemoryFileSystem.store.clear()


def test_the_report_in_words(tmp_path: Path) -> None:
    uris = draw(str(tmp_path / "data"))
    out = str(tmp_path / "images.parquet")
    words = text(index(str(tmp_path / "data"), out))
    lines = [line.split() for line in words.splitlines()]
    assert ["│", "screw", "│", "test", "│", "dent", "│", "5", "│", "4", "│"] in lines
    assert ["│", "nut_unmasked", "│", "test", "│", "unassigned", "│", "1", "│", "│"] in lines
    assert f"12 images (MVTec AD layout), in {out}" in words
    assert "categories with no normals to train on: 1\n    nut_unmasked\n" in words
    assert "anomalous images without a mask, left out of pixel metrics: 2\n" in words
    assert "unreadable images, they will be rows with an error: 2\n" in words
    assert f"    {uris['empty']}: the file is empty\n" in words
    assert "masks that cannot be used, their images are left out of pixel metrics: 3\n" in words
    assert "masks without an image: 1\n    screw/ground_truth/dent/77_mask.png\n" in words
    assert "left out: 1\n    screw/cover.png\n" in words
    assert "files that are no images, left out: 1\n    readme.txt\n" in words


def test_a_clean_set_has_a_short_report_and_a_long_list_is_cut(tmp_path: Path) -> None:
    for i in range(3):
        put(str(tmp_path / "bolts"), f"{i}.png")
    report = index(str(tmp_path / "bolts"), str(tmp_path / "images.parquet"))
    assert text(report).splitlines()[-1].startswith("3 images (folder of normals), in ")
    for i in range(9):
        (tmp_path / f"bolts/{i}.txt").write_text("[bold]")
    words = text(index(str(tmp_path / "bolts"), str(tmp_path / "images.parquet")))
    assert words.endswith("    4.txt\n    and 4 more\n")


def test_unlabelled_images_to_score_are_counted(tmp_path: Path) -> None:
    put(str(tmp_path), "normals/0.png")
    put(str(tmp_path), "new/1.png")
    out = str(tmp_path / "images.parquet")
    report = index(str(tmp_path / "normals"), out, score_uri=str(tmp_path / "new"))
    assert report.groups == (Group("normals", "train", "good", 1, 0), Group("normals", "test", None, 1, 0))
    assert report.without_mask == ()
    assert "unknown" in text(report)
    assert table.read(out)["split"].to_pylist() == ["test", "train"]


def test_a_file_that_a_table_names_but_that_is_not_there(tmp_path: Path) -> None:
    put(str(tmp_path), "a.png")
    (tmp_path / "t.csv").write_text("uri,label,mask_uri\na.png,1,gone.png\nb.png,0,\n")
    report = index(str(tmp_path / "t.csv"), str(tmp_path / "images.parquet"))
    assert [problem.uri for problem in report.unreadable] == [str(tmp_path / "b.png")]
    assert "is not there" in report.unreadable[0].reason
    assert [problem.uri for problem in report.bad_masks] == [str(tmp_path / "gone.png")]


def test_without_check_no_file_is_read(tmp_path: Path) -> None:
    draw(str(tmp_path / "data"))
    report = index(str(tmp_path / "data"), str(tmp_path / "images.parquet"), check=False)
    assert report.groups[1] == Group("screw", "train", "good", 4, 0)
    assert not report.checked
    assert report.unreadable == report.bad_masks == ()
    assert "the files were not read" in text(report)


def test_more_images_than_one_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table, "ROW_GROUP", 4)
    for i in range(11):
        put(str(tmp_path / "bolts"), f"{i:02d}.png")
    (tmp_path / "bolts/05.png").write_bytes(b"")
    report = index(str(tmp_path / "bolts"), str(tmp_path / "images.parquet"))
    assert report.groups == (Group("bolts", "train", "good", 11, 0),)
    assert [storage.name(problem.uri) for problem in report.unreadable] == ["05.png"]


def test_a_wrong_layout_writes_no_table(tmp_path: Path) -> None:
    (tmp_path / "readme.txt").write_text("nothing here")
    with pytest.raises(DataError, match="looked for"):
        index(str(tmp_path), str(tmp_path / "images.parquet"))
    assert [path.name for path in tmp_path.iterdir()] == ["readme.txt"]


def test_what_index_calls_readable_decodes(tmp_path: Path) -> None:
    """The report and the row with an error come from one decoder: they cannot disagree."""
    whole = put(str(tmp_path), "bolts/0.png", size=(64, 64))
    data = storage.read_bytes(whole)
    rng = np.random.default_rng(0)
    for i in range(1, 40):
        damaged = bytearray(data)
        damaged[rng.integers(len(data))] ^= 1 << rng.integers(8)
        storage.write_bytes(storage.join(str(tmp_path), f"bolts/{i}.png"), bytes(damaged))
    report = index(str(tmp_path / "bolts"), str(tmp_path / "images.parquet"))
    bad = set(dict(report.unreadable))
    for uri in table.read(report.table_uri)["uri"].to_pylist():
        try:
            decode.decode(storage.read_bytes(uri))
        except decode.ImageError:
            assert uri in bad
        else:
            assert uri not in bad
    assert 0 < len(bad) < 40


def test_images_of_unknown_label_in_train_are_told_and_no_normals(tmp_path: Path) -> None:
    for name in ("a", "b"):
        Image.new("RGB", (8, 8)).save(tmp_path / f"{name}.png")
    (tmp_path / "t.csv").write_text("uri,category,split,label\na.png,bolt,train,\nb.png,bolt,train,0\n")
    report = index(str(tmp_path / "t.csv"), str(tmp_path / "images.parquet"))
    assert report.unlabelled == (str(tmp_path / "a.png"),)
    (tmp_path / "t.csv").write_text("uri,category,split,label\na.png,bolt,train,\n")
    assert index(str(tmp_path / "t.csv"), str(tmp_path / "images.parquet")).without_normals == ("bolt",)
