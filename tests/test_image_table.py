"""The image table, and a user's own table that becomes one."""

from __future__ import annotations

import gzip
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from raydiff import storage
from raydiff.errors import DataError, StorageError
from raydiff.images import table
from raydiff.images.survey import find_images, survey

ROW: dict[str, Any] = {
    "uri": "/data/1.png",
    "dataset": "data",
    "category": "screw",
    "split": "test",
    "label": 1,
    "defect": "dent",
    "mask_uri": "/data/1_mask.png",
}


def images(*rows: dict[str, Any]) -> pa.Table:
    return pa.Table.from_pylist([ROW | row for row in rows], schema=table.SCHEMA)


@pytest.fixture
def memory() -> Iterator[str]:
    yield "memory://place"
    MemoryFileSystem.store.clear()


def test_what_is_written_is_read_sorted_by_uri(tmp_path: Path, memory: str) -> None:
    given = images({"uri": "b"}, {"uri": "a", "label": None, "defect": None, "mask_uri": None}, {"uri": "c"})
    for place in (str(tmp_path), memory):
        uri = storage.join(place, "deep/images.parquet")
        table.write(uri, given)
        found = table.read(uri)
        assert found.schema == table.SCHEMA
        assert found.to_pylist() == sorted(given.to_pylist(), key=lambda row: row["uri"])
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["images.parquet"]


def test_row_groups_are_small(tmp_path: Path) -> None:
    uri = str(tmp_path / "images.parquet")
    table.write(uri, images(*({"uri": f"{i:05d}"} for i in range(2500))))
    metadata = pq.read_metadata(uri)
    assert [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)] == [1024, 1024, 452]


def test_an_invalid_table_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(DataError):
        table.write(str(tmp_path / "images.parquet"), images({"split": "train"}, {}))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (({}, {}), "column 'uri', row 1: '/data/1.png' must not appear twice"),
        (({}, {"uri": "2", "split": "val"}), "column 'split', row 2: 'val' must be train or test"),
        (({"split": None},), "column 'split', row 1: None must not be empty"),
        (({}, {"uri": "2"}, {"uri": ""}), "column 'uri', row 3: '' must not be empty"),
        (({"category": None},), "column 'category', row 1: None must not be empty"),
        (({"label": 2},), "column 'label', row 1: 2.0 must be 0, 1 or null"),
        (({}, {"uri": "2", "label": -1}), "column 'label', row 2: -1.0 must be 0, 1 or null"),
        (({"category": "../../etc"},), "'../../etc' cannot be the name of a folder"),
        (({"defect": "/etc"},), "column 'defect', row 1: '/etc' cannot be the name of a folder"),
        (({"category": "."},), "'.' cannot be the name of a folder"),
        (({"dataset": "a//b"},), "column 'dataset', row 1: 'a//b' cannot be the name of a folder"),
    ],
)
def test_a_wrong_value_is_named_with_its_column_and_row(
    tmp_path: Path, rows: tuple[dict[str, Any], ...], message: str
) -> None:
    uri = str(tmp_path / "images.parquet")
    pq.write_table(images(*rows), uri)
    with pytest.raises(DataError) as error:
        table.read(uri)
    assert str(error.value) == f"{uri}: {message}" or message in str(error.value)
    assert str(error.value).startswith(f"{uri}: column ")


@pytest.mark.parametrize("name", ["..a", "a..", "a.b", "dataset/category", "...", "ä 1"])
def test_names_that_only_look_odd(name: str) -> None:
    assert table.validate(images({"category": name}), "x")["category"].to_pylist() == [name]


def test_wrong_columns_are_named() -> None:
    whole = images({})
    with pytest.raises(DataError, match="t: column 'label' is missing; found: uri, dataset, category, split, defe"):
        table.validate(whole.drop_columns("label"), "t")
    with pytest.raises(DataError, match=r"t: column 'label' is missing; found: .*lable"):
        table.validate(whole.rename_columns({"label": "lable"}), "t")
    with pytest.raises(DataError, match="t: column 'uri' is there twice"):
        table.validate(whole.append_column("uri", whole["uri"]), "t")
    with pytest.raises(DataError, match="t: column 'category' holds int64; it must hold string"):
        table.validate(whole.set_column(2, "category", [[7]]), "t")
    with pytest.raises(DataError, match="t: column 'label' holds bool; it must hold int8"):
        table.validate(whole.set_column(4, "label", [[True]]), "t")


@pytest.mark.parametrize(
    "labels",
    [
        pa.array([1, None, 0], pa.int64()),
        pa.array([1.0, None, 0.0], pa.float32()),
        pa.array(["1", None, "0"], pa.large_string()),
        pa.array([1, None, 0], pa.uint8()).dictionary_encode(),
    ],
)
def test_other_types_with_the_same_values_are_converted(labels: pa.Array) -> None:
    """As pandas and polars write them."""
    given = images({"uri": "1"}, {"uri": "2"}, {"uri": "3"})
    given = given.set_column(4, "label", labels)
    given = given.set_column(2, "category", given["category"].dictionary_encode())
    given = given.set_column(6, "mask_uri", pa.nulls(3))
    found = table.validate(given, "t")
    assert found.schema == table.SCHEMA
    assert found["label"].to_pylist() == [1, None, 0]
    assert found["mask_uri"].to_pylist() == [None, None, None]


@pytest.mark.parametrize("label", [0.5, float("nan"), 2**60])
def test_labels_that_no_cast_may_round(label: float) -> None:
    given = images({"uri": "1"}, {"uri": "2"}).set_column(4, "label", [[1, label]])
    with pytest.raises(DataError, match=r"column 'label', row 2: .* must be 0, 1 or null"):
        table.validate(given, "t")


def test_a_file_that_is_no_parquet(tmp_path: Path) -> None:
    (tmp_path / "images.parquet").write_text("uri,category\n")
    with pytest.raises(DataError, match="is not a Parquet file"):
        table.read(str(tmp_path / "images.parquet"))
    sink = io.BytesIO()
    pq.write_table(images({}), sink)
    (tmp_path / "images.parquet").write_bytes(sink.getvalue()[:-20])
    with pytest.raises(DataError, match="is not a Parquet file"):
        table.read(str(tmp_path / "images.parquet"))
    with pytest.raises(StorageError, match="is not there"):
        table.read(str(tmp_path / "missing.parquet"))


def own(place: str, name: str, text: str | bytes) -> str:
    uri = storage.join(place, name)
    storage.write_bytes(uri, text.encode() if isinstance(text, str) else text)
    return uri


def test_a_table_of_nothing_but_uris_is_a_list_of_normals(tmp_path: Path) -> None:
    uri = own(str(tmp_path), "bolts.csv", "uri\na.png\nsub/b.png\n../c.png\n/d/e.png\ns3://bucket/f.png\n")
    found = find_images(uri)
    assert survey(uri).layout == "table"
    assert found["uri"].to_pylist() == sorted(
        [
            f"{tmp_path}/a.png",
            f"{tmp_path}/sub/b.png",
            f"{tmp_path.parent}/c.png",
            "/d/e.png",
            "s3://bucket/f.png",
        ]
    )
    for name, value in (
        ("dataset", "bolts"),
        ("category", "bolts"),
        ("split", "train"),
        ("label", 0),
        ("defect", "good"),
        ("mask_uri", None),
    ):
        assert found[name].to_pylist() == [value] * 5


def test_relative_uris_start_from_the_tables_place_on_any_filesystem(memory: str) -> None:
    uri = own(memory, "lists/bolts.csv", "uri,label,mask_uri\n../img/a.png,1,masks/a.png\nb.png,,\n")
    found = find_images(uri).to_pylist()
    assert [(row["uri"], row["mask_uri"]) for row in found] == [
        ("memory://place/img/a.png", "memory://place/lists/masks/a.png"),
        ("memory://place/lists/b.png", None),
    ]
    storage.write_bytes("memory://place/img/a.png", b"here")
    assert storage.read_bytes(found[0]["uri"]) == b"here"


def test_split_follows_from_label_and_label_from_split(tmp_path: Path) -> None:
    by_label = find_images(own(str(tmp_path), "l.csv", "uri,label\na.png,0\nb.png,1\nc.png,\n")).to_pylist()
    assert [(row["split"], row["label"], row["defect"]) for row in by_label] == [
        ("train", 0, "good"),
        ("test", 1, None),
        ("test", None, None),
    ]
    by_split = find_images(own(str(tmp_path), "s.csv", "uri,split\na.png,train\nb.png,test\n")).to_pylist()
    assert [(row["split"], row["label"]) for row in by_split] == [("train", 0), ("test", None)]
    both = find_images(own(str(tmp_path), "b.csv", "uri,split,label\na.png,test,0\nb.png,train,1\n")).to_pylist()
    assert [(row["split"], row["label"]) for row in both] == [("test", 0), ("train", 1)]


def test_a_csv_keeps_its_text(tmp_path: Path) -> None:
    """A byte order mark as Excel writes it, quotes, numbers that are names, columns in any order."""
    text = '\ufeffcategory,uri,label,dataset\r\n01,"a, b.png",1.0,NA\r\n1e5,c.png,0.0,null\r\n'
    found = find_images(own(str(tmp_path), "t.CSV", text)).to_pylist()
    assert [(row["uri"], row["category"], row["dataset"], row["label"]) for row in found] == [
        (f"{tmp_path}/a, b.png", "01", "NA", 1),
        (f"{tmp_path}/c.png", "1e5", "null", 0),
    ]


def test_a_parquet_table_of_the_users_own(tmp_path: Path, memory: str) -> None:
    sink = io.BytesIO()
    pq.write_table(pa.table({"uri": ["a.png", "b.png"], "label": [0.0, None], "category": ["x", "y"]}), sink)
    found = find_images(own(memory, "own.parquet", sink.getvalue())).to_pylist()
    assert [(row["uri"], row["category"], row["split"], row["dataset"]) for row in found] == [
        ("memory://place/a.png", "x", "train", "own"),
        ("memory://place/b.png", "y", "test", "own"),
    ]


def test_an_image_table_reads_back_as_itself(tmp_path: Path) -> None:
    given = images({"uri": "/1.png"}, {"uri": "/2.png", "label": None, "mask_uri": None, "defect": None})
    table.write(str(tmp_path / "images.parquet"), given)
    assert find_images(str(tmp_path / "images.parquet")) == given


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path\na.png\n", "column 'uri' is missing; is 'path' it? Rename it; found: path"),
        ("path;n\na.png;x\n", "column 'uri' is missing; is 'path' it? Rename it; found: path, n"),
        ("category\nx\n", "column 'uri' is missing; found: category"),
        ("a.png\nb.png\n", "column 'uri' is missing, and the first line looks like data ('a.png')"),
        ("uri,uri\na,b\n", "column 'uri' is there twice"),
        ("uri,camera,camera\na,b,c\n", "column 'camera' is there twice"),
        ("uri,URI \na,b\n", "columns 'uri' and 'URI' are both 'uri'"),
        ("uri,lable\na.png,1\n", "unknown column 'lable'; did you mean 'label'?"),
        ("uri,Mask\na.png,b.png\n", "unknown column 'Mask'; did you mean 'mask_uri'?"),
        (
            "uri,label\na.png,0\nb.png,yes\n",
            "column 'label', row 2 (line 3): 'yes' must be 0 or 1, normal or anomalous",
        ),
        ("uri,label\na.png,-1\n", "column 'label', row 1 (line 2): '-1' must be 0 or 1"),
        ("uri,split\na.png,train\nb.png,later\n", "column 'split', row 2 (line 3): 'later' must be train, test or val"),
        ("uri,split\na.png,train\nb.png,\n", "column 'split', row 2 (line 3): None must be train, test or val"),
        ("uri,category\na.png,x\nb.png,\n", "column 'category', row 2 (line 3): None must not be empty"),
        ("uri,category\na.png,../x\n", "column 'category', row 1 (line 2): '../x' cannot be the name of a folder"),
        ("uri,category\na.png,x\n,y\n", "column 'uri', row 2 (line 3): None must not be empty"),
        ("uri,mask_uri\na.png,\nb.png,m.png\n", "row 2 (line 3) has a mask, and no column 'label' says"),
        ("uri,label\na.png,0\n\nb.png,1\n./x/../a.png,1\n", "row 1 (line 2) and row 3 (line 5) both name '"),
        ("uri\n", "has no rows"),
        ("", "is empty; give a header"),
        ("\n \n", "is empty; give a header"),
        ("uri,label\na.png,1\n\nb.png\n", "row 2 (line 4) has 1 cells, the header 2"),
        (
            "uri;label\na.png;1;\n",
            "row 1 (line 2) has 3 cells, the header 2; take the ';' off the row's end",
        ),
        ('uri,label\n"a.png,1\nb.png,1\n', "line 2 cannot be read (unexpected end of data)"),
        ('uri,label\na.png,"a"b\n', "line 2 cannot be read"),
        ("uri\n" + "a" * 200_000 + "\n", "line 2 cannot be read (field larger than"),
        ("uri\n" + "a" * 2_000_000 + "\n", "line 2 is longer than 1,000,000 characters"),
        ("uri\na.png\nb\0.png\n", "line 3 holds a NUL byte"),
        ("uri\nä.png\n".encode() + b"\xff\xfe.png\n", "line 3 is not in UTF-8 or is damaged; save the table as UTF-8"),
        ("uri\n检测图像.png\n".encode("gbk"), "line 2 is not in Windows-1252 or is damaged"),
        (b"uri\n\x81.png\n", "line 2 is not in"),
        ("uri\na.png\n".encode("utf-16")[:-1], "is not in UTF-16 or is damaged"),
        (b"PK\x03\x04....", "is an office program's file; save its sheet as CSV"),
        (gzip.compress(b"uri\n" + bytes(range(48, 58)) * 99, mtime=0)[:-12], "cannot be unpacked"),
        ("uri\nC:\\data\\a.png\nC:\\data\\b.png\n", "replace 'C:\\\\data\\\\', with which the other rows begin too,"),
        (
            "uri\n\\\\server\\share\\a.png\n",
            "row 1 (line 2): '\\\\\\\\server\\\\share\\\\a.png' is a path of a Windows machine",
        ),
        ('{"uri": "a.png"}\n[1]\n', "row 2 (line 2) is not a JSON object"),
        ('[{"uri": "a.png"}]', "is one JSON value and not a JSON object a line"),
        ('{"uri": {"a": 1}}', "column 'uri' holds list<item: null>; it must hold paths or URIs"),
    ],
)
def test_what_is_wrong_with_a_csv_is_said(tmp_path: Path, text: str | bytes, message: str) -> None:
    uri = own(str(tmp_path), "t.csv", text)
    with pytest.raises(DataError) as error:
        find_images(uri)
    assert str(error.value).startswith(uri)
    assert message in str(error.value)


def test_a_missing_table_and_one_with_images_to_score(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="is not there"):
        find_images(str(tmp_path / "missing.csv"))
    uri = own(str(tmp_path), "t.csv", "uri\na.png\n")
    with pytest.raises(DataError, match="list the images to score in it, with split test"):
        find_images(uri, str(tmp_path))


def test_a_folder_may_be_called_like_a_table(tmp_path: Path) -> None:
    own(str(tmp_path), "images.parquet/a.png", b"...")
    assert find_images(str(tmp_path / "images.parquet"))["category"].to_pylist() == ["images.parquet"]
