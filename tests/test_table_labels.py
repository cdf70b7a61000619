"""What a table says of its images: no anomaly is trained on because a column has another name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raydiff.errors import DataError
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
