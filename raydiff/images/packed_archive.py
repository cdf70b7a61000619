"""A packed archive as it is read (`pack` makes it): the files of a part of its image table, or of one image."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyarrow.compute as pc

from raydiff import storage
from raydiff.errors import DataError, ImageError, StorageError
from raydiff.images import pages, parts
from raydiff.images.pages import File
from raydiff.images.shards import Part, Shard, read_rows, shards
from raydiff.images.tables import own_table
from raydiff.storage.patience import patiently

ABOUT = "pack.json"


def is_packed(uri: str) -> bool:
    """Whether a folder is a packed archive."""
    return not own_table.is_table(uri) and storage.exists(storage.join(uri, ABOUT))


def source(packed_uri: str) -> str:
    """The folder or table that was packed."""
    return str(storage.read_json(storage.join(packed_uri, ABOUT))["data"])


def images_uri(packed_uri: str) -> str:
    """Where the image table's shards lie."""
    return storage.join(packed_uri, "images")


def data_uri(packed_uri: str) -> str:
    """Where the shards with the files' bytes lie, each under the name of the image table's."""
    return storage.join(packed_uri, "packed")


def shards_of(packed_uri: str) -> list[Shard]:
    """The shards of a packed archive's image table whose files are packed."""
    done = {shard.name for shard in shards(data_uri(packed_uri))}
    return [shard for shard in shards(images_uri(packed_uri)) if shard.name in done]


def read_bytes(packed_uri: str | None, part: Part) -> list[bytes | ImageError] | None:
    """The files of a part of a packed archive, or why there is none; None where nothing is packed."""
    if packed_uri is None:
        return None
    uri = storage.join(data_uri(packed_uri), f"{part.shard}.parquet")
    rows = patiently(read_rows, uri, part.start, part.stop, ["data", "error"])
    return [
        ImageError(error) if error else data
        for data, error in zip(rows["data"].to_pylist(), rows["error"].to_pylist(), strict=True)
    ]


def scored(run: Mapping[str, Any]) -> str:
    """The archive that scores are of, packed or not, as the `run.json` beside them says; empty where it does not."""
    return parts.unclaimed(str(run.get("images", "")))


def fetch(uri: str, archive_uri: str, shard: str) -> File:
    """The file of an image of an archive: as it lies there now, or, where it is gone, as it was packed.

    Args:
        archive_uri: as `scored` gives it.
        shard: of the image table, that the image is in.

    Raises:
        StorageError: if it can be read neither here nor there; it is told of the image's own URI.
        ImageError: if it is gone, and was not there to be packed either.
    """
    try:
        return pages.read(uri)
    except StorageError:
        found = _kept(uri, archive_uri, shard) if archive_uri else None
        if found is None:
            raise
        return found


def _kept(uri: str, packed_uri: str, shard: str) -> File | None:
    """The file of an image as it was packed; None where it was not."""
    place = storage.join(data_uri(packed_uri), f"{shard}.parquet")
    try:
        if not storage.exists(place):
            return None
        with storage.parquet(place) as file:
            row = pc.index(file.read(columns=["uri"])["uri"], uri).as_py()
        if row < 0:
            return None
        ((data, error),) = zip(*read_rows(place, row, row + 1, ["data", "error"]).to_pydict().values(), strict=True)
    except (StorageError, DataError):
        return None
    if error:
        raise ImageError(error)
    return File(data, pages.split(uri)[1])
