"""An image table as one file, or as a folder of shards that only grows; and the parts that it is worked on in.

A shard's name tells which listing found it, its number and its rows (`0001-000003-4096.parquet`), so that work on
millions of images is planned from a listing of names. A part is what one task decodes and what is scored or lost as a
whole.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

import pyarrow as pa

from raydiff import storage
from raydiff.errors import DataError

ROWS_PER_SHARD = 4096  # a hundred million images are 24,000 files of scores, and a few hundred KB each
ROWS_PER_PART = 64
ROWS_PER_TILED_PART = 8  # of images that are seen at their own scale, tile by tile: each may have a hundred megabytes

_NAME = re.compile(r"(\d{4,})-(\d{6,})-(\d+)\.parquet")


class Shard(NamedTuple):
    """One file of an image table."""

    name: str
    uri: str
    rows: int


class Part(NamedTuple):
    """Some consecutive rows of a shard."""

    number: int  # in the whole table
    shard: str
    uri: str  # of the shard
    start: int
    stop: int


def shard_name(listing: int, number: int, rows: int) -> str:
    """Name of a shard, without extension; sorts by listing, then number."""
    return f"{listing:04d}-{number:06d}-{rows}"


def shards(table_uri: str) -> list[Shard]:
    """The shards of an image table, in order; a table that is one file (*.parquet) is one shard.

    Raises:
        StorageError: if there is no such file. A folder that is not there has no shards yet.
    """
    if not is_one_file(table_uri):
        if not storage.exists(table_uri):
            return []
        found = [(match, uri) for uri in storage.list_files(table_uri) if (match := _NAME.fullmatch(storage.name(uri)))]
        return [Shard(storage.name(uri).removesuffix(".parquet"), uri, int(match[3])) for match, uri in found]
    with storage.parquet(table_uri) as file:
        rows = int(file.metadata.num_rows)
    return [Shard(shard_name(0, 0, rows), table_uri, rows)] if rows else []


def is_one_file(table_uri: str) -> bool:
    """Whether an image table is one file, and so never grows."""
    return table_uri.endswith(".parquet")


def listing_of(shard: Shard) -> int:
    """Which listing found a shard's images."""
    return int(shard.name.split("-")[0])


def row_count(table_uri: str) -> int:
    """How many images the table has."""
    return sum(shard.rows for shard in shards(table_uri))


def parts(table_uri: str, rows_per_part: int = ROWS_PER_PART) -> list[Part]:
    """All parts of a table."""
    return list(parts_of(shards(table_uri), rows_per_part))


def parts_of(table: list[Shard], rows_per_part: int = ROWS_PER_PART) -> Iterator[Part]:
    """The parts of some shards, one after the other."""
    number = 0
    for shard in table:
        for start in range(0, shard.rows, rows_per_part):
            yield Part(number, shard.name, shard.uri, start, min(start + rows_per_part, shard.rows))
            number += 1


def read_rows(shard_uri: str, start: int, stop: int, columns: list[str] | None = None) -> pa.Table:
    """Rows start to stop of a Parquet file, reading only the row groups that hold them.

    Raises:
        DataError: if the file has fewer rows.
    """
    with storage.parquet(shard_uri) as file:
        first, offset = 0, 0
        groups: list[int] = []
        for group in range(file.metadata.num_row_groups):
            rows = file.metadata.row_group(group).num_rows
            if first < stop and first + rows > start:
                offset = first if not groups else offset
                groups.append(group)
            first += rows
        if first < stop:
            raise DataError(f"{shard_uri} has {first} rows, {stop} were expected: it was changed since it was planned")
        return file.read_row_groups(groups, columns=columns).slice(start - offset, stop - start)
