"""Maps that are written some rows at a time: the file of a whole map, or none."""

import numpy as np
import pytest
import tifffile

from raydiff.errors import DataError, ImageError, StorageError
from raydiff.scoring import maps
from raydiff.scoring.maps import read_map, write_map, write_map_rows
from raydiff.storage import files


def bands(found: np.ndarray, rows: int) -> list[np.ndarray]:
    return [found[top : top + rows] for top in range(0, len(found), rows)]


@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize(("shape", "strip"), [((37, 21), 2**20), ((37, 21), 400), ((40, 300), 1), ((1, 1), 1)])
def test_any_reader_finds_the_map(shape, strip, big, tmp_path, monkeypatch):
    monkeypatch.setattr(maps, "_STRIP", strip)
    monkeypatch.setattr(maps, "_LARGEST", 0 if big else 2**32)
    found = np.random.default_rng(0).random(shape, np.float32)
    uri, rows = str(tmp_path / "maps" / "a.tiff"), min(shape[0], max(1, strip // (4 * shape[1])))
    write_map_rows(uri, bands(found, 8), *shape)
    np.testing.assert_array_equal(read_map(uri), found)
    with tifffile.TiffFile(uri) as file:
        assert file.is_bigtiff == big
        assert len(file.pages) == 1
        assert (file.pages[0].dataoffsets[0] % 2, file.pages[0].rowsperstrip) == (0, rows)
        np.testing.assert_array_equal(file.asarray(), found)
    assert [each.name for each in (tmp_path / "maps").iterdir()] == ["a.tiff"]


def test_a_map_of_more_than_four_gigabytes_has_places_of_64_bits():
    assert maps._head(32768, 32767)[:4] == b"II*\0"
    assert maps._head(32768, 32768)[:4] == b"II+\0"


def test_what_fails_half_way_leaves_the_old_map_or_none(tmp_path):
    def broken():
        yield np.ones((4, 8), np.float32)
        raise ImageError("damaged")

    for before in ([], ["a.tiff"]):
        with pytest.raises(ImageError, match="damaged"):
            write_map_rows(str(tmp_path / "a.tiff"), broken(), 8, 8)
        assert [each.name for each in tmp_path.iterdir()] == before
        write_map(str(tmp_path / "a.tiff"), np.zeros((2, 2)))
    np.testing.assert_array_equal(read_map(str(tmp_path / "a.tiff")), np.zeros((2, 2)))


def test_what_a_killed_writer_has_left_goes(tmp_path):
    """And nothing else."""
    lost, others = ".a[1].tiff.0123abcd.partial", ["a1.tiff.0123abcd.partial", ".a1.tiff.0123abcd.partial", "a[1].tif"]
    for name in (lost, *others):
        (tmp_path / name).write_bytes(b"")
    write_map_rows(str(tmp_path / "a[1].tiff"), [np.ones((2, 2))], 2, 2)
    assert sorted(each.name for each in tmp_path.iterdir()) == sorted([*others, "a[1].tiff"])


def test_a_disk_that_takes_no_more_is_a_sentence():
    with (
        files._in_pieces("/dev/full") as write,
        pytest.raises(StorageError, match=r"full: .*No space left.*; free some"),
    ):
        write(b"some")


def test_strips_that_lie_elsewhere_are_no_map(tmp_path):
    place = tmp_path / "a.tiff"
    tifffile.imwrite(place, np.ones((8, 8), np.float32), rowsperstrip=4)
    assert read_map(str(place)).shape == (8, 8)
    with tifffile.TiffFile(place, mode="r+") as file:
        offsets = file.pages[0].tags["StripOffsets"]
        offsets.overwrite(offsets.value[::-1])
    with pytest.raises(DataError, match="its strips do not lie one behind the other"):
        read_map(str(place))
