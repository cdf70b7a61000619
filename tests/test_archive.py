"""The image table of an archive: grown in bounded memory, every image once, whatever order a listing comes in."""

from __future__ import annotations

import datetime
import random
from pathlib import Path

import pyarrow as pa
import pytest
from PIL import Image

from raydiff.errors import DataError
from raydiff.images import archive
from raydiff.images.archive import SCHEMA, grow, read_shard
from raydiff.images.listing import Listing, day_of
from raydiff.images.shards import parts, row_count, shards


def listed(uris, batch=7):
    """A listing of some URIs, a few at a time."""
    rows = [{"uri": uri, "dataset": "d", "category": "bolt", "split": "test"} for uri in uris]
    for start in range(0, len(rows), batch):
        yield pa.Table.from_pylist(rows[start : start + batch], SCHEMA)


def content(folder) -> list[list[str]]:
    """URIs in each shard."""
    return [read_shard(shard.uri, ["uri"])["uri"].to_pylist() for shard in shards(str(folder))]


def test_every_image_is_in_one_shard_whatever_comes_when(tmp_path, monkeypatch):
    monkeypatch.setattr(archive, "RUN_ROWS", 20)  # several runs to merge
    rng = random.Random(0)
    names = [f"s3://b/{rng.choice('aäZ~_')}{number % 50:02d}/{number}.png" for number in range(230)]
    seen: set[str] = set()
    for upto, repeats in ((100, 0), (100, 5), (160, 30), (230, 0)):  # the listing grows, and names some twice
        given = names[:upto] + rng.choices(names[:upto], k=repeats)
        rng.shuffle(given)
        growth = grow(str(tmp_path / "images"), listed(given), rows_per_shard=16)
        new = set(names[:upto]) - seen
        assert (growth.new, growth.known + growth.repeated) == (len(new), len(given) - len(new))
        seen |= new
    found = content(tmp_path / "images")
    assert sorted(uri for shard in found for uri in shard) == sorted(names)
    assert all(shard == sorted(shard) for shard in found)
    assert [len(shard) for shard in found] == [shard.rows for shard in shards(str(tmp_path / "images"))]
    assert [shard.name for shard in shards(str(tmp_path / "images"))][5:9] == [
        "0001-000005-16",
        "0001-000006-4",
        "0002-000000-16",
        "0002-000001-16",
    ]


def test_a_listing_cut_short_is_gone_on_with(tmp_path, monkeypatch):
    names = [f"/{number:03d}.png" for number in range(40)]
    whole = archive.write_shard

    def dies(uri, name, rows):
        if name.startswith("0001-000002"):
            raise KeyboardInterrupt
        whole(uri, name, rows)

    monkeypatch.setattr(archive, "write_shard", dies)
    with pytest.raises(KeyboardInterrupt):
        grow(str(tmp_path), listed(names), rows_per_shard=8)
    monkeypatch.setattr(archive, "write_shard", whole)
    assert grow(str(tmp_path), listed(names), rows_per_shard=8)[:2] == (24, 16)
    assert sorted(uri for shard in content(tmp_path) for uri in shard) == names


def test_parts_cover_every_row_of_every_shard(tmp_path):
    grow(str(tmp_path), listed(f"/{number:03d}.png" for number in range(50)), rows_per_shard=20)
    found = parts(str(tmp_path), rows_per_part=8)
    assert [part.number for part in found] == list(range(8))
    assert [(part.start, part.stop) for part in found] == [(0, 8), (8, 16), (16, 20)] * 2 + [(0, 8), (8, 10)]
    assert row_count(str(tmp_path)) == 50
    assert parts(str(tmp_path / "none")) == []


@pytest.mark.parametrize(
    ("path", "day"),
    [
        ("2026-05-07/x.png", (2026, 5, 7)),
        ("line4/2026/05/07/x.png", (2026, 5, 7)),
        ("cam2_20260507.png", (2026, 5, 7)),
        ("cam2_20260507101500.png", (2026, 5, 7)),
        ("20260507T101500Z_12.png", (2026, 5, 7)),
        ("year=2026/month=05/day=07/x.png", (2026, 5, 7)),
        ("2026-05-01/2026-05-07_3.png", (2026, 5, 7)),  # the last one
        ("2026-02-30/x.png", None),
        ("2026-05/x.png", None),
        ("2026-05_07/x.png", None),
        ("120260507.png", None),
        ("202605071.png", None),
        ("serial_99990507.png", None),
    ],
)
def test_the_day_in_a_path(path, day):
    assert day_of(path) == (datetime.date(*day) if day else None)


@pytest.fixture
def line(tmp_path):
    """A folder of two categories with things between them that are no images to score."""
    for path in (
        "bolt/2026-05-07/1.png",
        "bolt/x/y/2.JPG",
        "nut/3.tif",
        "nut/.hidden/4.png",
        "nut/readme.txt",
        "ground_truth/nut/3.png",
        "anomaly_maps/nut/3.png",
    ):
        (tmp_path / "line" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "line" / path).write_bytes(b"")
    return tmp_path / "line"


def rows_of(listing: Listing) -> dict[str, dict]:
    rows = pa.concat_tables(list(listing)).to_pylist()
    return {row["uri"].split("/line/")[-1]: row for row in rows}


@pytest.mark.parametrize("categories", [("bolt", "nut"), ()])
def test_a_folder_is_listed_with_its_categories(line, categories):
    listing = Listing(str(line), categories)
    found = rows_of(listing)
    assert {path: row["category"] for path, row in found.items()} == {
        "bolt/2026-05-07/1.png": "bolt",
        "bolt/x/y/2.JPG": "bolt",
        "nut/3.tif": "nut",
    }
    assert found["bolt/2026-05-07/1.png"]["day"] == datetime.date(2026, 5, 7)
    assert all((row["split"], row["label"], row["dataset"]) == ("test", None, "line") for row in found.values())
    assert listing.left_out == 4
    assert "nut/readme.txt" in listing.left_out_names


def test_one_category_needs_no_folder_and_images_of_none_are_counted(line):
    listing = Listing(str(line), ["screw"])
    assert ({row["category"] for row in rows_of(listing).values()}, listing.unknown) == ({"screw"}, 0)
    listing = Listing(str(line), ["bolt", "screw"])
    assert {path: row["category"] for path, row in rows_of(listing).items()}["nut/3.tif"] == "nut"
    assert listing.unknown == 1
    assert Listing(str(line), ["y", "bolt/x", "nut"]).category(f"{line}/bolt/x/y/2.JPG") == "bolt/x"


def test_a_table_says_itself_what_its_images_are(tmp_path):
    (tmp_path / "own.csv").write_text(
        "uri,category,time,label\na.png,bolt,2026-05-07T10:15:00Z,1\ns3://b/c.png,nut,2026-05-08,\nd.png,nut,,0\n"
    )
    found = rows_of(Listing(str(tmp_path / "own.csv"), ["bolt"]))
    assert [(row["category"], row["day"], row["label"]) for row in found.values()] == [
        ("bolt", datetime.date(2026, 5, 7), 1),
        ("nut", datetime.date(2026, 5, 8), None),
        ("nut", None, 0),
    ]
    assert list(found)[:2] == [str(tmp_path / "a.png"), "s3://b/c.png"]


def test_times_that_are_none_are_refused(tmp_path):
    (tmp_path / "own.csv").write_text("uri,time\na.png,yesterday\n")
    with pytest.raises(DataError, match=r"own.csv: column 'time', row 1 \(line 2\): 'yesterday' must be a date"):
        list(Listing(str(tmp_path / "own.csv")))


def test_timestamps_of_a_parquet_table(tmp_path):
    times = pa.array([datetime.datetime(2026, 5, 7, 23, 59), None], pa.timestamp("us"))
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"uri": ["a.png", "b.png"], "time": times}), tmp_path / "own.parquet")
    (batch,) = Listing(str(tmp_path / "own.parquet"))
    assert batch["day"].to_pylist() == [datetime.date(2026, 5, 7), None]


def test_names_that_are_hard_to_read_stay_what_they_are(tmp_path):
    names = ["a b.png", "ä#1.png", "50%25.png", "q?x=1.png", "a::b.png", "new\nline.png", "'\".png"]
    for name in names:
        Image.new("RGB", (4, 4)).save(tmp_path / name, "PNG")
    grow(str(tmp_path / "images"), Listing(str(tmp_path)))
    (shard,) = content(tmp_path / "images")
    assert sorted(shard) == sorted(str(tmp_path / name) for name in names)


def with_columns(number: range, **columns) -> pa.Table:
    rows = [{"uri": f"/{i:03d}.png", "dataset": "d", "category": "bolt", "split": "test"} for i in number]
    found = pa.Table.from_pylist(rows, SCHEMA)
    for name, column in columns.items():
        found = found.append_column(name, column)
    return found


def test_further_columns_are_in_every_shard_in_their_own_types(tmp_path, capsys):
    """Those of the first listing: what a later one has beyond them is left out and said, what it lacks is null."""
    serial = pa.array([f"{i:04d}" for i in range(20)])
    at = pa.array([1_777_777_777_777_777_000 + i for i in range(20)], pa.timestamp("ns"))
    first = with_columns(range(20), serial=serial, at=at, exact=pa.array(range(20), pa.uint8()))
    given = [first.slice(start, 3) for start in range(0, 20, 3)]
    grow(str(tmp_path), given[::-1], rows_per_shard=8)
    grow(str(tmp_path), [with_columns(range(18, 24), line=pa.array(["x"] * 6), exact=pa.array([7] * 6))])
    found = [read_shard(shard.uri) for shard in shards(str(tmp_path))]
    assert len({table.schema for table in found}) == 1
    whole = pa.concat_tables(found)
    assert whole.slice(0, 20).equals(first)
    assert (
        whole.slice(20).select(["serial", "at", "exact"]).to_pylist() == [{"serial": None, "at": None, "exact": 7}] * 4
    )
    assert "listing: line left out: the images listed before have no such columns" in capsys.readouterr().out
    with pytest.raises(DataError, match="column 'exact' holds uint8 in the images listed before, and now string"):
        grow(str(tmp_path), [with_columns(range(30, 32), exact=pa.array(["a", "b"]))])


def test_rows_that_say_different_things_of_one_image_are_refused(tmp_path: Path) -> None:
    rows = [{"uri": "/d/1.png", "category": name, "dataset": "d", "split": "test"} for name in ("bolt", "nut")]
    found = [pa.Table.from_pylist([row], archive.SCHEMA) for row in rows]
    with pytest.raises(DataError, match=r"two rows .* '/d/1.png', but category is '(bolt|nut)' in one"):
        archive.grow(str(tmp_path), found)
    assert archive.grow(str(tmp_path), [found[0], found[0]]) == archive.Growth(1, 0, 1)
