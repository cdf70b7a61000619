"""Pictures of images that were packed, scored and deleted: viewer and report take them from the packed archive."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from conftest import made_images
from made_archive import calibration, score_rows, write_archive
from PIL import Image

from raydiff import cluster, storage
from raydiff.errors import ImageError, StorageError
from raydiff.images import archive, pack, packed_archive
from raydiff.images.pages import Pages
from raydiff.images.parts import PartPattern
from raydiff.images.shards import Shard
from raydiff.report.archive import write_archive_report
from raydiff.review.serving import opened
from raydiff.review.thumbnails import Picture
from raydiff.scoring import table

CALIBRATED = calibration(("bolt",))
PIXELS = made_images(7, 40, seed=4)


@pytest.fixture
def packed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Five images and a stack of two pages, in shards of three; one was not there when it was to be packed."""

    def here(missing: list[Shard], place: str) -> Iterator[Any]:
        for shard in missing:
            yield shard, pack._pack_shard._function(shard, place)

    monkeypatch.setattr(cluster, "connect", lambda: None)
    monkeypatch.setattr(pack, "_on_cluster", here)
    monkeypatch.setattr(pack, "ROWS_PER_PACK", 3)
    (tmp_path / "bolt").mkdir()
    *single, first, second = map(Image.fromarray, PIXELS)
    for number, picture in enumerate(single):
        picture.save(tmp_path / f"bolt/{number}.png")
    first.save(tmp_path / "bolt/stack.tif", save_all=True, append_images=[second])
    names = [*(f"bolt/{number}.png" for number in range(5)), "bolt/gone.png", "bolt/stack.tif"]
    listed = "".join(f"{tmp_path}/{name},bolt\n" for name in names)
    (tmp_path / "images.csv").write_text(f"uri,category\n{listed}")
    place = str(tmp_path / "packed")
    done = pack.pack(str(tmp_path / "images.csv"), place, Pages.parse("all"))
    assert (done.images, done.unreadable) == (8, 1)
    return place


def scored(packed_uri: str, out: Path, noted: str) -> str:
    """Scores of a packed archive, as a run leaves them; its folder.

    Args:
        noted: what they are noted to be of.
    """
    shards = packed_archive.shards_of(packed_uri)
    assert [shard.rows for shard in shards] == [3, 3, 2]
    images = [archive.read_shard(shard.uri) for shard in shards]
    uris = pa.concat_tables(images)["uri"].combine_chunks()
    rows = score_rows(len(uris), CALIBRATED)
    rows = rows.set_column(rows.column_names.index("uri"), "uri", uris)
    uri = write_archive(out, rows, CALIBRATED)
    storage.delete(table.part_uri(uri, "000000"))
    for number, shard in enumerate(shards):
        table.write(table.part_uri(uri, shard.name), rows.slice(3 * number, 3))
    place = storage.join(uri, table.RUN)
    storage.write_json(place, storage.read_json(place) | {"images": noted})
    return uri


def delete_originals(root: Path) -> None:
    for path in (root / "bolt").iterdir():
        path.unlink()


def pictures(scores: str) -> dict[str, Picture]:
    viewer = opened(scores)
    uris = viewer.table.files.take(range(8), ["uri"])["uri"].to_pylist()
    found = {Path(uri).name: viewer.pictures.of(row, "small") for row, uri in enumerate(uris)}
    viewer.table.files.close()
    return found


def shown(scores: str) -> list[str]:
    """The pictures of a report's gallery."""
    page = storage.read_bytes(write_archive_report(scores)).decode()
    return re.findall(r'src="(data:image/jpeg[^"]*)"', page)


@pytest.mark.parametrize("part_from", [None, PartPattern(r"(\d)\.png")], ids=["plain", "parts"])
def test_what_is_gone_is_shown_as_it_was_packed(packed, tmp_path, part_from):
    scores = scored(packed, tmp_path / "scores", part_from.claimed(packed) if part_from else packed)
    before, report = pictures(scores), shown(scores)
    assert sum(picture.image is not None for picture in before.values()) == 7
    assert len(report) == 7
    delete_originals(tmp_path)
    assert pictures(scores) == before | {"gone.png": pictures(scores)["gone.png"]}
    assert shown(scores) == report
    assert "gone.png is not there" in pictures(scores)["gone.png"].error


def test_what_lies_there_now_comes_before_what_was_packed(packed, tmp_path):
    scores = scored(packed, tmp_path / "scores", packed)
    before = pictures(scores)
    Image.fromarray(255 - PIXELS[0]).save(tmp_path / "bolt/0.png")
    after = pictures(scores)
    assert after.pop("0.png") != before.pop("0.png")
    assert after == before


@pytest.mark.parametrize("noted", ["", "0" * 64, "/elsewhere"])
def test_what_is_gone_and_not_packed_is_told_by_its_own_name(packed, tmp_path, noted):
    scores = scored(packed, tmp_path / "scores", noted)
    delete_originals(tmp_path)
    for name, picture in pictures(scores).items():
        file = name.split("#")[0]
        assert picture.error == f"{tmp_path}/bolt/{file} is not there; check the bucket, the folder and the name"


def test_a_file_is_taken_from_the_shard_that_it_is_in(packed, tmp_path):
    first, second, _ = packed_archive.shards_of(packed)
    uri = f"{tmp_path}/bolt/1.png"
    data = Path(uri).read_bytes()
    delete_originals(tmp_path)
    assert packed_archive.fetch(uri, packed, first.name) == (data, None)
    assert packed_archive.fetch(f"{tmp_path}/bolt/stack.tif#2", packed, "0001-000002-2").page == 2
    with pytest.raises(StorageError, match=r"1\.png is not there"):
        packed_archive.fetch(uri, packed, second.name)
    with pytest.raises(ImageError, match=r"gone\.png is not there"):
        packed_archive.fetch(f"{tmp_path}/bolt/gone.png", packed, second.name)
