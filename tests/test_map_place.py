"""Where maps go, and that every image has a place that a file system and an object store take."""

from __future__ import annotations

import numpy as np
import pytest

from raydiff import storage
from raydiff.scoring.map_place import map_place
from raydiff.scoring.maps import read_map, write_map


@pytest.mark.parametrize(
    ("uri", "category", "split", "defect", "place"),
    [
        ("/d/bolt/test/spot/001.png", "bolt", "test", "spot", "bolt/test/spot/001"),
        ("/d/a/bolt/test/spot/001.png", "a/bolt", "test", "spot", "a/bolt/test/spot/001"),  # a name twice in the data
        ("s3://b/d/bolt/test/good/0.1.jpg", "bolt", "test", "good", "bolt/test/good/0.1"),
        ("s3://b/bolt/2026/x.png", "bolt", "test", None, "b/bolt/2026/x.png"),  # a folder of images to score
        ("/d/ko/x.png", "bolt", "test", "ko", "d/ko/x.png"),
        ("/d/screw/test/spot/1.png", "bolt", "test", "spot", "d/screw/test/spot/1.png"),  # a table of the user's own
        ("x.png", "bolt", "train", "good", "x.png"),
    ],
)
def test_where_a_map_goes(uri, category, split, defect, place):
    assert map_place(uri, category, split, defect) == place


def write_and_read(folder, uri, **row):
    """The place of an image's map, which was written and read there."""
    place = map_place(uri, row.get("category"), row.get("split"), row.get("defect"))
    there = storage.join(str(folder), "anomaly_maps", f"{place}.tiff")
    expected = np.full((2, 3), len(uri), np.float32)
    write_map(there, expected)
    np.testing.assert_array_equal(read_map(there), expected)
    return place


@pytest.mark.parametrize("letter", ["a", "ü", "蟲"])  # of one, two and three bytes
@pytest.mark.parametrize("size", [199, 220, 237, 251])
def test_a_long_name_gets_a_place_that_can_be_written(tmp_path, letter, size):
    name = letter * (size // len(letter.encode()))
    place = write_and_read(tmp_path, f"/d/line/{name}.png")
    assert len(place.rpartition("/")[2].encode()) <= 200
    assert place.startswith("d/line/")
    layout = {"category": "bolt", "split": "test", "defect": "spot"}
    assert write_and_read(tmp_path, f"/d/bolt/test/spot/{name}.png", **layout).startswith("bolt/test/spot/")


def test_long_names_stay_apart(tmp_path):
    names = [f"/d/{'a' * 230}{number}.png" for number in range(3)]
    places = {write_and_read(tmp_path, name) for name in names}
    assert len(places) == 3
    assert places == {map_place(name, None, None, None) for name in names}  # and are the same the next time


@pytest.mark.parametrize(
    "path",
    [
        "/".join(["a" * 190] * 5) + "/x.png",  # each name is short enough, all together are not
        "b" * 254 + "/x.png",  # as object stores allow folders to be called
        "b" * 300 + "/x.png",
        "c" * 1000,
    ],
)
def test_a_deep_place_is_cut(tmp_path, path):
    places = [write_and_read(tmp_path, f"s3://bucket/{path}{end}") for end in ("", "1")]
    assert places[0] != places[1]
    assert all(len(place.encode()) <= 700 for place in places)
    assert all(len(part.encode()) <= 200 for place in places for part in place.split("/"))
