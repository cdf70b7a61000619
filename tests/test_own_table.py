"""Tables as people have them: what they mean is read, and what was taken for what is said."""

from __future__ import annotations

import datetime
import gzip
import io
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from raydiff import storage
from raydiff.errors import DataError
from raydiff.images import table
from raydiff.images.tables import files, json_lines, own_table, separated, text, uri_list


def written(tmp_path: Path, name: str, content: str | bytes | pa.Table) -> str:
    if isinstance(content, pa.Table):
        sink = io.BytesIO()
        pq.write_table(content, sink)
        content = sink.getvalue()
    path = tmp_path / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return str(path)


def names(uri: str) -> list[str]:
    return [row["uri"].removeprefix(f"{os.path.dirname(uri)}/") for row in own_table.read(uri).to_pylist()]


PLAIN = "uri,category,label\nä/1.png,bolt,0\nä/2.png,nut,1\nä/3.png,nut,\n"


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("t.csv", PLAIN, ""),
        ("t.csv", PLAIN.replace("\n", "\r\n"), ""),
        ("t.csv", PLAIN.replace("\n", "\r"), ""),
        ("t.csv", "\ufeff" + PLAIN, ""),
        ("t.csv", PLAIN.replace("\n", "\n\n"), ""),
        ("t.csv", PLAIN + ",,\n,,\n", ""),
        ("t.csv", PLAIN.replace(",", ";"), "separator ';'"),
        ("t.csv", "sep=;\r\n" + PLAIN.replace(",", ";"), "separator ';'"),
        ("t.csv", PLAIN.replace(",", "|"), "separator '|'"),
        ("t.tsv", PLAIN.replace(",", "\t"), "separator tab"),
        ("t.txt", PLAIN, ""),
        ("t.csv", PLAIN.replace(",", ", ").replace("\n", " \n"), ""),
        ("t.csv", 'uri, "category" , label\n"ä/1.png" , "bolt", 0\nä/2.png,"nut" ,"1"\n "ä/3.png",nut,\n', ""),
        ("t.csv", PLAIN.encode("utf-16"), "encoding UTF-16"),
        ("t.csv", ("\ufeff" + PLAIN).encode("utf-16-be"), "encoding UTF-16"),
        ("t.csv", PLAIN.encode("utf-16-le"), "encoding UTF-16"),
        ("t.txt", PLAIN.replace(",", "\t").replace("\n", "\r\n").encode("utf-16"), "encoding UTF-16"),  # Excel's
        ("t.csv", PLAIN.encode("cp1252"), "encoding Windows-1252, because it is not UTF-8"),
        ("t.csv.gz", gzip.compress(PLAIN.encode(), mtime=0), ""),
        ("t.TSV.GZ", gzip.compress(PLAIN.replace(",", "\t").encode(), mtime=0), "separator tab"),
        ("t.csv", "URI,Category , LABEL\n" + PLAIN.partition("\n")[2], "column 'Category' is 'category'"),
        (
            "t.csv",
            PLAIN.replace("label", "Label").replace(",0\n", ",OK\n").replace(",1\n", ",nok\n"),
            "OK -> 0 (normal)",
        ),
        ("t.csv", PLAIN.replace(",0\n", ",Good\n").replace(",1\n", ",BAD\n"), "BAD -> 1 (anomalous)"),
        ("t.csv", PLAIN.replace(",0\n", ",normal\n").replace(",1\n", ",Defective\n"), "Defective -> 1 (anomalous)"),
        ("t.csv", PLAIN.replace(",0\n", ",False\n").replace(",1\n", ",True\n"), "True -> 1 (anomalous)"),
        ("t.csv", PLAIN.replace("nut,\n", "nut,NaN\n"), "NaN -> unknown"),
        ("t.csv", PLAIN.replace("nut,\n", "nut,None\n"), "None -> unknown"),
        ("t.csv", PLAIN.replace(",0\n", ",0.0\n"), ""),
        ("t.csv", PLAIN.replace(",", ";").replace(";0\n", ";0,0\n").replace(";1\n", ";1,0\n"), "separator ';'"),
        ("t.csv", PLAIN.replace("label", "is_anomalous"), "column 'is_anomalous' is 'label'"),
        ("t.csv", PLAIN.replace("uri", ",uri").replace("ä", "0,ä"), "a column without a name left out"),
        ("t.csv", PLAIN.replace("uri", "Unnamed: 0,uri").replace("ä", "7,ä"), "index column 'Unnamed: 0' left out"),
        ("t.csv", PLAIN.replace("ä/", "ä\\"), "column 'uri': \\ in relative paths is taken for /"),
        (
            "t.jsonl",
            json.dumps({"uri": "ä/1.png", "category": "bolt", "label": 0})
            + '\n\n{"label": true, "category": "nut", "uri": "ä/2.png"}\n{"uri": "ä/3.png", "category": "nut"}\n',
            "true -> 1 (anomalous)",
        ),
        (
            "t.ndjson.gz",
            gzip.compress(
                "".join(
                    json.dumps({"uri": f"ä/{n}.png", "category": c, "label": label}) + "\n"
                    for n, c, label in ((1, "bolt", 0.0), (2, "nut", 1), (3, "nut", None))
                ).encode(),
                mtime=0,
            ),
            "",
        ),
        (
            "t.parquet",
            pa.table(
                {"uri": ["ä/1.png", "ä/2.png", "ä/3.png"], "category": ["bolt", "nut", "nut"], "label": [0, 1, None]}
            ),
            "",
        ),
        (
            "t.csv",
            pa.table(
                {"uri": ["ä/1.png", "ä/2.png", "ä/3.png"], "category": ["bolt", "nut", "nut"], "label": [0, 1, None]}
            ),
            "the file is Parquet, whatever its name says",
        ),
        ("t.parquet", PLAIN, ""),
        (
            "t.parquet",
            pa.table(
                {
                    "uri": ["ä/1.png", "ä/2.png", "ä/3.png"],
                    "category": pa.array(["bolt", "nut", "nut"]).dictionary_encode(),
                    "label": [False, True, None],
                    "__index_level_0__": [4, 5, 6],
                }
            ),
            "index column '__index_level_0__' left out",
        ),
        (
            "t.parquet",
            pa.table(
                {
                    "uri": ["ä/1.png", "ä/2.png", "ä/3.png"],
                    "category": ["bolt", "nut", "nut"],
                    "label": [0.0, 1.0, float("nan")],
                }
            ),
            "nan -> unknown",
        ),
    ],
)
def test_the_same_table_in_many_forms(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, content: str | bytes | pa.Table, said: str
) -> None:
    uri = written(tmp_path, name, content)
    assert own_table.is_table(uri)
    found = own_table.read(uri)
    assert found.schema == table.SCHEMA
    assert [(row["uri"], row["category"], row["split"], row["label"]) for row in found.to_pylist()] == [
        (f"{tmp_path}/ä/1.png", "bolt", "train", 0),
        (f"{tmp_path}/ä/2.png", "nut", "test", 1),
        (f"{tmp_path}/ä/3.png", "nut", "test", None),
    ]
    assert set(found["dataset"].to_pylist()) == {"t"}
    printed = capsys.readouterr().out
    assert said in printed if said else not printed


def test_text_is_read_alike_wherever_it_is_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Characters of several bytes and line ends that lie across two readings."""
    expected = [f"{'ä' * (i % 3)}{i:03d}.png" for i in range(40)]
    whole = "uri\r\n" + "\r\n".join(expected) + "\r\n"
    monkeypatch.setattr(text, "CHUNK", 7)
    for encoding in ("utf-8", "utf-8-sig", "utf-16", "utf-16-be", "utf-32", "cp1252"):
        assert sorted(names(written(tmp_path, "t.csv", whole.encode(encoding)))) == sorted(expected), encoding


def test_a_list_of_uris(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    listed = "# line 4\n\n a b.png \ns3://b/50%25#1.JPG\n/c,d.tif\n~/e.png\n#f.png\n../g.bmp"
    assert names(written(tmp_path, "new.txt", listed)) == sorted(
        [str(tmp_path.parent / "g.bmp"), "/c,d.tif", os.path.expanduser("~/e.png"), "a b.png", "s3://b/50%25#1.JPG"],
        key=lambda name: f"{tmp_path}/{name}" if name == "a b.png" else name,
    )
    assert "table: a list of one URI a line" in capsys.readouterr().out


def test_numbers_that_are_names(tmp_path: Path) -> None:
    given = pa.table({"uri": ["a.png", "b.png"], "label": [0, 1], "category": [7, 8], "defect": [None, 3.0]})
    found = own_table.read(written(tmp_path, "t.parquet", given))
    assert found["category"].to_pylist() == ["7", "8"]
    assert found["defect"].to_pylist() == ["good", "3"]
    with pytest.raises(DataError, match=r"column 'category', row 2: 1\.5 must be text or a whole number"):
        own_table.read(written(tmp_path, "t.parquet", given.set_column(2, "category", [[1.0, 1.5]])))
    with pytest.raises(DataError, match="column 'category' holds bool; it must hold text"):
        own_table.read(written(tmp_path, "t.parquet", given.set_column(2, "category", [[True, False]])))


def test_splits_in_other_words(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = "uri,split,label\na.png,Train,0\nb.png,TEST,0\nc.png,val,0\nd.png,Validation,1\ne.png,valid,\n"
    found = own_table.read(written(tmp_path, "t.csv", rows))
    assert found["split"].to_pylist() == ["train", "test", "train", "test", "test"]
    printed = capsys.readouterr().out
    assert "Train -> train, TEST -> test, val -> train where normal, else test" in printed
    unlabelled = own_table.read(written(tmp_path, "t.csv", "uri,split\na.png,Train\nb.png,test\nc.png,val\n"))
    assert [(row["split"], row["label"]) for row in unlabelled.to_pylist()] == [
        ("train", 0),
        ("test", None),
        ("train", 0),
    ]


def test_defects_say_what_is_normal_where_nothing_else_does(tmp_path: Path) -> None:
    """Once all of them were trained on as normals."""
    found = own_table.read(written(tmp_path, "t.csv", "uri,defect\na.png,good\nb.png,scratch\nc.png,\n"))
    assert [(row["split"], row["label"], row["defect"]) for row in found.to_pylist()] == [
        ("train", 0, "good"),
        ("test", 1, "scratch"),
        ("test", None, None),
    ]


def test_an_archives_images_are_unknown_where_nothing_is_told(tmp_path: Path) -> None:
    (batch,) = own_table.read_batches(written(tmp_path, "t.csv", "uri\na.png\n"))
    assert [(row["split"], row["label"], row["defect"]) for row in batch.to_pylist()] == [("test", None, None)]


def test_further_columns_are_carried(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    csv = "serial,uri,Camera 2,score,Given_Score\n0012,a.png,,0.50,x\n0013,b.png,left,1e3,y\n"
    found = own_table.read(written(tmp_path, "t.csv", csv))
    assert found.column_names == [*table.SCHEMA.names, "serial", "Camera 2", "Given_Score", "given_given_score"]
    assert found["serial"].to_pylist() == ["0012", "0013"]
    assert found["Camera 2"].to_pylist() == [None, "left"]
    assert found["given_given_score"].to_pylist() == ["0.50", "1e3"]
    printed = capsys.readouterr().out
    assert "table: carried into the score table: 'serial', 'Camera 2'" in printed
    assert "column 'score' is carried as 'given_" in printed


def test_types_of_further_columns(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = pa.table(
        {
            "uri": ["a.png", "b.png"],
            "n": pa.array([2**62 + 1, None], pa.int64()),
            "x": pa.array([0.1, None], pa.float32()),
            "at": pa.array([1_777_777_777_777_777_777, None], pa.timestamp("ns", "UTC")),
            "which": pa.array(["x", "y"]).dictionary_encode(),
            "nothing": pa.nulls(2),
            "box": [[1, 2], [3]],
        }
    )
    found = own_table.read(written(tmp_path, "t.parquet", given))
    assert {field.name: str(field.type) for field in table.extra(found)} == {
        "n": "int64",
        "x": "float",
        "at": "timestamp[ns, tz=UTC]",
        "which": "string",
        "nothing": "string",
    }
    assert found.select(["n", "at"]).equals(given.select(["n", "at"]))
    assert "column 'box' left out, because it holds list<" in capsys.readouterr().out

    lines = '{"uri": "a.png", "n": 1, "x": 1, "s": "0012", "m": 1}\n{"uri": "b.png", "x": 0.5, "m": "z", "o": {}}\n'
    found = own_table.read(written(tmp_path, "t.jsonl", lines))
    assert [str(field.type) for field in table.extra(found)] == ["int64", "double", "string", "string"]
    assert found.select(["n", "x", "s", "m"]).to_pylist() == [
        {"n": 1, "x": 1.0, "s": "0012", "m": "1"},
        {"n": None, "x": 0.5, "s": None, "m": "z"},
    ]


DAY = datetime.date(2026, 5, 7)
DECEMBER = datetime.date(2026, 12, 31)


@pytest.mark.parametrize(
    ("times", "days", "said"),
    [
        (["2026-05-07", "2026-12-31T23:59:59.5+02:00"], [DAY, DECEMBER], ""),
        (["07.05.2026", "31.12.2026 10:15"], [DAY, DECEMBER], ""),
        (["7.5.2026", "nan"], [DAY, None], ""),
        (
            ["07/05/2026", "31/12/2026"],
            [DAY, DECEMBER],
            "the day is first in its dates, as row 2 (line 3): '31/12/2026'",
        ),
        (["5/7/2026 9:05 AM", "12/31/2026"], [DAY, DECEMBER], "the month is first"),
        (["07-05-2026", "31-12-2026"], [DAY, DECEMBER], "the day is first"),
        (["05/05/2026", "20260507"], [datetime.date(2026, 5, 5), DAY], ""),
        (["2026/05/07", "20260507T101500Z"], [DAY, DAY], ""),
        (["20260507101500", "202605071015"], [DAY, DAY], ""),
        (["1778148900", "1778148900000"], [DAY, DAY], "milliseconds since 1970, days in UTC"),
        (["1778148900.25", "1778148900000000000"], [DAY, DAY], "nanoseconds since 1970"),
    ],
)
def test_times(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], times: list[str], days: list[datetime.date | None], said: str
) -> None:
    rows = "".join(f"{number}.png;{time}\n" for number, time in enumerate(times))
    (batch,) = own_table.read_batches(written(tmp_path, "t.csv", "uri;time\n" + rows))
    assert batch["day"].to_pylist() == days
    assert said in capsys.readouterr().out


def test_times_that_are_numbers(tmp_path: Path) -> None:
    for values in ([1778148900, 20260507], [1778148900.0, 20260507.0]):
        given = pa.table({"uri": ["a", "b"], "time": values})
        (batch,) = own_table.read_batches(written(tmp_path, "t.parquet", given))
        assert batch["day"].to_pylist() == [DAY, DAY]


@pytest.mark.parametrize(
    ("times", "message"),
    [
        (["05/07/2026", "1/2/2026"], r"row 1 \(line 2\): '05/07/2026' may be one of two days, and no other row tells"),
        (
            ["31/12/2026", "12/31/2026"],
            r"row 1 \(line 2\): '31/12/2026' has the day first and row 2 \(line 3\): '12/31",
        ),
        (["2026-05-07", "2026-02-30"], r"row 2 \(line 3\): '2026-02-30' must be a date or time"),
        (["07.05.26", ""], r"row 1 \(line 2\): '07.05.26' must be a date or time"),
        (["46149", ""], r"row 1 \(line 2\): '46149' must be a date or time"),
        (["10:15", ""], r"row 1 \(line 2\): '10:15' must be a date or time"),
    ],
)
def test_times_that_cannot_be_told(tmp_path: Path, times: list[str], message: str) -> None:
    uri = written(tmp_path, "t.csv", f"uri,time\na,{times[0]}\nb,{times[1]}\n")
    with pytest.raises(DataError, match=f"^{uri}: column 'time', {message}"):
        list(own_table.read_batches(uri))


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (files, separated, json_lines, uri_list):
        monkeypatch.setattr(module, "BATCH", 8)


@pytest.mark.usefixtures("small")
def test_batches_are_of_one_schema_and_of_one_mind(tmp_path: Path) -> None:
    """Which of a date's numbers is the day, what is in a column and where a row lies is not a batch's to say."""
    rows = [f"{i}.png,{i % 12 + 1:02d}/{i + 1:02d}/2026,{i if i > 20 else ''}\n" for i in range(28)]
    batches = list(own_table.read_batches(written(tmp_path, "t.csv", "uri,time,n\n" + "".join(rows))))
    assert [len(batch) for batch in batches] == [8, 8, 8, 4]
    assert len({batch.schema for batch in batches}) == 1
    days = [day for batch in batches for day in batch["day"].to_pylist()]
    assert days == [datetime.date(2026, i % 12 + 1, i + 1) for i in range(28)]
    lines = [json.dumps({"uri": f"{i}", "n": i if i < 20 else "x"}) + "\n" for i in range(28)]
    batches = list(own_table.read_batches(written(tmp_path, "t.jsonl", "".join(lines))))
    assert {str(batch.schema.field("n").type) for batch in batches} == {"string"}


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("wrong", ["label", "time", "uri", "cells"])
def test_rows_are_named_in_later_batches_and_behind_empty_lines(tmp_path: Path, wrong: str) -> None:
    rows = [f"{i}.png,0,2026-05-07" for i in range(20)]
    rows[3] = '3.png,0,"2026-05-07\n"'  # one row, two lines
    rows[12] = {"label": "c,?,", "time": "c,0,noon", "uri": ",0,", "cells": "c,0"}[wrong]
    uri = written(tmp_path, "t.csv", "uri,label,time\n\n\n" + "\n".join(rows))
    with pytest.raises(DataError, match=r"row 13 \(line 17\)"):
        list(own_table.read_batches(uri))


@pytest.mark.usefixtures("small")
def test_an_image_named_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [f"{i}.png,{i % 2},{i}" for i in range(20)]
    same = own_table.read(written(tmp_path, "t.csv", "uri,label,n\n" + "\n".join([*rows, rows[4], "./4.png,0,4"])))
    assert len(same) == 20
    assert "2 rows name an image again, with the same in each column" in capsys.readouterr().out
    for other, column in (
        ("4.png,1,4", "split is 'train' in one and 'test'"),
        ("4.png,0,5", "n is '4' in one and '5'"),
    ):
        uri = written(tmp_path, "t.csv", "uri,label,n\n\n" + "\n".join([*rows, other]))
        with pytest.raises(
            DataError, match=rf"row 5 \(line 7\) and row 21 \(line 23\) both name '.*/4.png', but {column}"
        ):
            own_table.read(uri)
    given = pa.table({"uri": ["b.png", "a.png", "b.png"], "label": [0, 0, 1]})
    with pytest.raises(DataError, match="row 1 and row 3 both name"):
        own_table.read(written(tmp_path, "t.parquet", given))


@pytest.fixture
def memory() -> Iterator[str]:
    yield "memory://place"
    MemoryFileSystem.store.clear()


def test_tables_in_a_store(memory: str) -> None:
    for name, content in (
        ("t.csv", ("\ufeff" + PLAIN).encode("utf-16-le")),
        ("t.csv.gz", gzip.compress(PLAIN.encode(), mtime=0)),
        ("t.jsonl", b'{"uri": "../x.png", "label": 0}\n'),
        ("t.txt", b"x.png\n"),
    ):
        uri = storage.join(memory, "lists", name)
        storage.write_bytes(uri, content)
        assert all(row["uri"].startswith("memory://place/") for row in own_table.read(uri).to_pylist())


def test_no_file_of_a_table_is_held_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch is read when it is asked for: the rows behind it may be wrong, or not there yet."""
    monkeypatch.setattr(separated, "BATCH", 8)
    rows = "".join(f"{i}.png,0\n" for i in range(500_000))
    batches = own_table.read_batches(written(tmp_path, "t.csv", f"uri,label\n{rows}x\n"))
    before = pa.total_allocated_bytes()
    for _ in range(3):
        assert len(next(batches)) == 8
    assert pa.total_allocated_bytes() - before < 1_000_000
