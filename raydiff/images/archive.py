"""The image table of an archive: shards that only grow, made in bounded memory whatever the archive's size.

Object stores promise no order across listings, and a table has its own. So what a listing finds is sorted outside
memory (sorted runs on disk, merged), held against the shards that are there, and only what is new becomes new shards:
no image is ever in two rows, and a listing that was cut short is simply done again.
"""

from __future__ import annotations

import contextlib
import heapq
import os
import tempfile
from collections.abc import Iterable, Iterator
from itertools import groupby, islice
from operator import itemgetter
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from raydiff import storage
from raydiff.images import table
from raydiff.images.shards import ROWS_PER_PART, ROWS_PER_SHARD, Shard, listing_of, shard_name, shards
from raydiff.patience import patiently

SCHEMA = table.SCHEMA.append(pa.field("day", pa.date32()))  # when the image was taken, null unknown
RUN_ROWS = 65_536  # sorted in memory at a time
READ_ROWS = 1024  # of each run at a time, while they are merged


class Growth(NamedTuple):
    """What a listing brought."""

    new: int  # images
    known: int  # of the listing, in the table before
    repeated: int  # rows of the listing that name an image again


def grow(images_uri: str, found: Iterable[pa.Table], rows_per_shard: int = ROWS_PER_SHARD) -> Growth:
    """Add those images to the shards at `images_uri` that are not in them yet.

    Args:
        found: the listing, as tables in SCHEMA, in any order.

    Raises:
        StorageError: if a shard cannot be read or written. Shards are written whole; do it again to go on.
    """
    there = shards(images_uri)
    listing = 1 + max((listing_of(shard) for shard in there), default=0)
    counts = {"known": 0, "repeated": 0}
    with new_images(there, found, counts) as new:
        number = total = 0
        while chunk := list(islice(new, rows_per_shard)):
            write_shard(images_uri, shard_name(listing, number, len(chunk)), pa.Table.from_pylist(chunk, SCHEMA))
            number += 1
            total += len(chunk)
    return Growth(total, **counts)


@contextlib.contextmanager
def new_images(
    there: list[Shard], found: Iterable[pa.Table], counts: dict[str, int]
) -> Iterator[Iterator[dict[str, Any]]]:
    """The rows of a listing that are in no shard yet, ascending; `known` and `repeated` of `counts` grow meanwhile."""
    with tempfile.TemporaryDirectory(prefix="raydiff-listing-") as folder:
        runs = list(_sorted_runs(found, folder))
        rows = heapq.merge(*map(_rows, runs), key=itemgetter("uri"))
        yield _unknown(rows, _known(there), counts)


def write_shard(images_uri: str, name: str, rows: pa.Table) -> None:
    """Write one shard, whole or not at all."""
    sink = pa.BufferOutputStream()
    pq.write_table(rows, sink, row_group_size=ROWS_PER_PART * 8)
    patiently(storage.write_bytes, storage.join(images_uri, f"{name}.parquet"), sink.getvalue().to_pybytes())


def read_shard(uri: str, columns: list[str] | None = None) -> pa.Table:
    """One shard, or some of its columns."""
    return pq.read_table(pa.BufferReader(patiently(storage.read_bytes, uri)), columns=columns)


def _sorted_runs(found: Iterable[pa.Table], folder: str) -> Iterator[str]:
    """Files of at most RUN_ROWS rows and somewhat, each sorted by uri."""
    gathered: list[pa.Table] = []
    number = 0

    def run() -> str:
        path = os.path.join(folder, f"{number}.parquet")
        pq.write_table(pa.concat_tables(gathered).sort_by("uri"), path, row_group_size=READ_ROWS)
        return path

    for batch in found:
        gathered.append(batch)
        if sum(len(one) for one in gathered) >= RUN_ROWS:
            yield run()
            gathered, number = [], number + 1
    if gathered:
        yield run()


def _rows(path: str) -> Iterator[dict[str, Any]]:
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(READ_ROWS):
            yield from batch.to_pylist()


def _known(there: list[Shard]) -> Iterator[str]:
    """All URIs of the shards, ascending: those of one listing are, so the listings are merged."""

    def uris(of: Iterable[Shard]) -> Iterator[str]:
        for shard in of:
            yield from read_shard(shard.uri, ["uri"])["uri"].to_pylist()

    return heapq.merge(*(uris(list(of)) for _, of in groupby(there, listing_of)))


def _unknown(rows: Iterable[dict[str, Any]], known: Iterator[str], counts: dict[str, int]) -> Iterator[dict[str, Any]]:
    """Rows whose uri is not among the known ones, each once; both ascending."""
    last_known = next(known, None)
    last: str | None = None
    for row in rows:
        uri = row["uri"]
        while last_known is not None and last_known < uri:
            last_known = next(known, None)
        if uri == last:
            counts["repeated"] += 1
        elif uri == last_known:
            counts["known"] += 1
        else:
            yield row
        last = uri
