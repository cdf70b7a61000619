"""What a table says of its images: no anomaly is trained on because a column has another name."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raydiff.errors import DataError, StorageError
from raydiff.images.survey import survey
from raydiff.images.tables import own_table, separated


def csv(tmp_path: Path, text: str, name: str = "t.csv") -> str:
    (tmp_path / name).write_text(text)
    return str(tmp_path / name)


def rows(uri: str, *names: str) -> list[tuple[Any, ...]]:
    return [tuple(row[name] for name in names) for row in own_table.read(uri).to_pylist()]


@pytest.mark.parametrize("name", ["is_anomalous", "anomaly", "Is Defect", "isDefective"])
def test_a_split_beside_a_label_of_another_name(tmp_path: Path, name: str) -> None:
    uri = csv(tmp_path, f"uri,split,{name}\na.png,train,0\nb.png,train,1\nc.png,test,1\nd.png,test,\n")
    assert rows(uri, "split", "label") == [("train", 0), ("train", 1), ("test", 1), ("test", None)]


def test_two_columns_that_may_be_the_label(tmp_path: Path) -> None:
    uri = csv(tmp_path, "uri,anomaly,is_defect\na.png,0,0\n")
    with pytest.raises(DataError, match="columns 'anomaly' and 'is_defect' may both say what is normal; which is the"):
        own_table.read(uri)
    assert rows(csv(tmp_path, "uri,anomaly,label,is_defect\na.png,1,0,1\n"), "label", "anomaly") == [(0, "1")]


@pytest.mark.parametrize(
    ("header", "cells", "rule"),
    [
        ("class", ("OK", "NG"), "call it label"),
        ("result", ("pass", "fail"), "call it label"),
        ("Status", ("good", "defect"), "call it label"),
        ("target", ("0", "1"), "call it label"),
        ("isGood", ("1", "0"), "0 for normals"),
        ("defect_type", ("none", "scratch"), "call it defect"),
        ("Ergebnis", ("IO", "NIO"), "holds IO and NIO"),
        ("flag", ("", "True\nd.png,train,False"), "holds False and True"),
    ],
)
@pytest.mark.parametrize("split", [True, False])
def test_a_label_of_an_unknown_name_is_refused_where_one_trains(
    tmp_path: Path, header: str, cells: tuple[str, str], rule: str, split: bool
) -> None:
    text = f"uri,split,{header}\na.png,train,{cells[0]}\nb.png,train,{cells[1]}\n"
    text = text if split else text.replace("split,", "").replace("train,", "")
    uri = csv(tmp_path, text)
    with pytest.raises(DataError, match=f"column '{header}' .*{rule}"):
        own_table.read(uri)
    (batch,) = own_table.read_batches(uri)
    assert header in batch.column_names
    labelled = csv(tmp_path, text.replace("uri", "label,uri").replace("\n", "\n0,").removesuffix("0,"))
    assert {label for (label,) in rows(labelled, "label")} == {0}


def test_words_that_are_labels_in_some_rows_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(separated, "BATCH", 2)
    head = "uri,camera,remark,line\na.png,0,OK,1\nb.png,1,,1\n"
    assert len(rows(csv(tmp_path, head.replace(",1,,", ",0,,") + "c.png,2,OK,1\n"), "uri")) == 3
    with pytest.raises(DataError, match="column 'remark' holds OK and NG"):
        own_table.read(csv(tmp_path, head + "c.png,2,NG,1\n"))
    typed = {"uri": ["a.png", "b.png"], "x": [0.0, 1.0], "y": pa.array(["a", "b"]).dictionary_encode()}
    pq.write_table(pa.table(typed), tmp_path / "t.parquet")
    with pytest.raises(DataError, match=r"column 'x' holds 0\.0 and 1\.0"):
        own_table.read(str(tmp_path / "t.parquet"))


@pytest.mark.parametrize(
    ("cells", "said"),
    [
        ("0,scratch", "row 2 (line 3) has label 0 and defect 'scratch', which contradict"),
        ("1,good", "row 2 (line 3) has label 1 and defect 'good', which contradict"),
        ("NG,No-Defect", "has label 1 and defect 'No-Defect'"),
    ],
)
def test_labels_and_defects_that_contradict_each_other(tmp_path: Path, cells: str, said: str) -> None:
    uri = csv(tmp_path, f"uri,label,defect\na.png,0,\nb.png,{cells}\n")
    with pytest.raises(DataError) as error:
        own_table.read(uri)
    assert said in str(error.value)


def test_defects_beside_labels(tmp_path: Path) -> None:
    text = "a.png,0,none\nb.png,1,none\nc.png,1,0\nd.png,0,-\ne.png,1,dent\nf.png,,dent\ng.png,0,OK\nh.png,,\n"
    found = rows(csv(tmp_path, "uri,label,defect\n" + text), "label", "defect")
    assert found == [
        *((0, "good"), (1, None), (1, "0"), (0, "good"), (1, "dent")),
        *((None, "dent"), (0, "OK"), (None, None)),
    ]


def test_a_defect_without_its_label_does_not_train(tmp_path: Path) -> None:
    text = "uri,split,label,defect\na.png,train,,dent\nb.png,train,,good\nc.png,test,,dent\n"
    assert rows(csv(tmp_path, text), "label") == [(1,), (None,), (None,)]


def test_masks_of_normals_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert rows(csv(tmp_path, "uri,label,mask_uri\na.png,0,m.png\nb.png,1,n.png\n"), "label") == [(0,), (1,)]
    assert "some normals have a mask; masks of normals are not used" in capsys.readouterr().out


@pytest.mark.parametrize("word", ["none", "None", "-", "no defect", "NO_DEFECT", "0", "0.0"])
def test_words_for_no_defect(tmp_path: Path, capsys: pytest.CaptureFixture[str], word: str) -> None:
    found = rows(csv(tmp_path, f"uri,defect\na.png,{word}\nb.png,scratch\nc.png,\n"), "split", "label", "defect")
    assert found == [("train", 0, "good"), ("test", 1, "scratch"), ("test", None, None)]
    assert f"column 'defect': {word} -> 0 (normal), scratch -> 1 (anomalous)\n" in capsys.readouterr().out


def test_one_image_has_one_path(tmp_path: Path) -> None:
    (tmp_path / "a%20b").mkdir()
    (tmp_path / "a%20b" / "%31.png").write_bytes(b"")
    as_uri = (tmp_path / "a b" / "x#1.png").as_uri()
    assert "%20" in as_uri
    listed = [
        *(as_uri, f"file://localhost{tmp_path}/1.png", f"{tmp_path}/u/../v//2.png", f"/{tmp_path}//3.png"),
        *(f"file://{tmp_path}/a%20b/%31.png", "s3://b/a%20b.png"),
    ]
    listed[3] = f"//{listed[3]}"
    found = {row["uri"] for row in own_table.read(csv(tmp_path, "uri\n" + "\n".join(listed))).to_pylist()}
    names = ("a b/x#1.png", "1.png", "v/2.png", "3.png", "a%20b/%31.png")
    assert found == {f"{tmp_path}/{name}" for name in names} | {"s3://b/a%20b.png"}


@pytest.mark.parametrize("uri", ["file:///C:/a/b.png", "//nas/share/b.png", "file://nas/share/b.png"])
def test_paths_of_windows(tmp_path: Path, uri: str) -> None:
    with pytest.raises(DataError, match=rf"row 2 \(line 3\): '{uri}' is a path of a Windows machine"):
        own_table.read(csv(tmp_path, f"uri\na.png\n{uri}\n"))


def test_what_names_no_image_is_not_trained_on(tmp_path: Path) -> None:
    uri = csv(tmp_path, "uri\na.png\nnotes.doc\n")
    with pytest.raises(DataError, match=r"column 'uri', row 2 \(line 3\): 'notes.doc' does not name an image file"):
        own_table.read(uri)
    (batch,) = own_table.read_batches(uri)
    assert batch["uri"].to_pylist() == [f"{tmp_path}/a.png", f"{tmp_path}/notes.doc"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('"uri","n"\n"1","a.png",5\n"2","b.png",6\n', "has 3 cells, the header 2; so have the rows below it"),
        ("uri,n\na,b.png,5\nc.png,6\n", "has 3 cells, the header 2; put quotes"),
        ("uri;n\na.png;5;\nb.png;5;\n", "take the ';' off the row's end"),
        ("img/000.png,0\nimg/001.png,0\n", "and the first line looks like data ('img/000.png')"),
        ('{"uri":{"0":"a.png","1":"b.png"},"label":{"0":0,"1":1}}', 'to_json(orient="records", lines=True)'),
        ('[\n  {"uri": "a.png"}\n]', 'to_json(orient="records", lines=True)'),
        ("uri,maskPath\na.png,b.png\n", "unknown column 'maskPath'; did you mean 'mask_uri'?"),
        ("imagePath,n\na.png,1\n", "is 'imagePath' it? Rename it"),
    ],
)
def test_what_is_to_be_done_is_said(tmp_path: Path, text: str, said: str) -> None:
    uri = csv(tmp_path, text, "t.json" if text[0] in "[{" else "t.csv")
    assert own_table.is_table(uri)
    with pytest.raises(DataError) as error:
        own_table.read(uri)
    assert said in str(error.value)


def test_a_file_that_is_no_table_and_one_that_is_not_there(tmp_path: Path) -> None:
    for name in ("t.dat", "table", "image.png"):
        with pytest.raises(DataError, match=rf"{name} is a file; give its folder, or a table: CSV"):
            survey(csv(tmp_path, "uri\na.png\n", name))
    with pytest.raises(StorageError, match="/gone is not there; check"):
        survey(str(tmp_path / "gone"))


@pytest.mark.parametrize(
    "time",
    [
        "2026-05-07T99:99 whatever",
        "2026-05-07T10:15 whatever",
        "07.05.2026 10:15 whatever",
        "2026-05-07 25:00",
        "07.05.2026 10:77",
        "20260507T9999",
        "2026-05-07 noonish",
    ],
)
def test_times_that_are_none(tmp_path: Path, time: str) -> None:
    with pytest.raises(DataError, match=f"row 2 .*'{time}' must be a date or time"):
        list(own_table.read_batches(csv(tmp_path, f"uri,time\na,2026-05-07 10:15:00.5+02:00\nb,{time}\n")))


def test_clocks_of_many_kinds(tmp_path: Path) -> None:
    clocks = ("T10:15", " 10:15:00,123", "T101500Z", "T10", " 9:05 PM", "T10:15:00 CEST", "T23:59:60-0530", " 24:00")
    clocks += ("T10:15:00.1+02:00[Europe/Berlin]", " 10:15 (W. Europe)", "")
    text = "uri;time\n" + "".join(f"a;2026-05-07{clock}\n" for clock in clocks)
    (batch,) = own_table.read_batches(csv(tmp_path, text))
    assert batch["day"].to_pylist() == [datetime.date(2026, 5, 7)] * len(clocks)
