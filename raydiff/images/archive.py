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
from itertools import chain, groupby, islice
from operator import itemgetter
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from raydiff import storage
from raydiff.errors import DataError
from raydiff.images import table
from raydiff.images.shards import ROWS_PER_PART, ROWS_PER_SHARD, Shard, listing_of, shard_name, shards
from raydiff.progress import console
from raydiff.storage.patience import patiently

SCHEMA = table.SCHEMA.append(pa.field(table.DAY, pa.date32()))  # when the image was taken, null unknown
RUN_ROWS = 65_536  # sorted in memory at a time
READ_ROWS = 1024  # of each run at a time, while they are merged


class Growth(NamedTuple):
    """What a listing brought."""

    new: int  # images
    known: int  # of the listing, in the table before
    repeated: int  # rows of the listing that name an image again


def grow(images_uri: str, found: Iterable[pa.Table], rows_per_shard: int = ROWS_PER_SHARD) -> Growth:
    """Add those images to the shards at `images_uri` that are not in them yet.

    Further columns are carried along. Those of the first listing are the archive's: what a later one has beyond them is
    left out (and said), what it lacks is null.

    Args:
        found: the listing, as tables in SCHEMA and with the same further columns in each, in any order.

    Raises:
        DataError: if a further column no longer holds what it held.
        StorageError: if a shard cannot be read or written. Shards are written whole; do it again to go on.
    """
    there = shards(images_uri)
    listing = 1 + max((listing_of(shard) for shard in there), default=0)
    counts = {"known": 0, "repeated": 0}
    schema, found = _alike(images_uri, there, iter(found))
    with new_images(there, found, counts) as new:
        number = total = 0
        while chunk := list(islice(new, rows_per_shard)):
            rows = pa.Table.from_pylist(chunk, _in_python(schema)).cast(schema)
            write_shard(images_uri, shard_name(listing, number, len(chunk)), rows)
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


def _alike(images_uri: str, there: list[Shard], found: Iterator[pa.Table]) -> tuple[pa.Schema, Iterator[pa.Table]]:
    """The schema of an archive's shards, and a listing in it."""
    first = next(found, SCHEMA.empty_table())
    if there:
        with storage.parquet(there[0].uri) as file:
            extra = table.extra(file.schema_arrow)
    else:
        extra = table.extra(first)
    schema = pa.schema([*SCHEMA, *extra])
    others = [field.name for field in table.extra(first) if field.name not in schema.names]
    if others:
        console.print(
            f"listing: {', '.join(others)} left out: the images listed before have no such columns; give another "
            "folder for the results to have them carried",
            markup=False,
        )

    def alike(rows: pa.Table) -> pa.Table:
        columns = []
        for field in schema:
            if field.name not in rows.column_names:
                columns.append(pa.nulls(len(rows), field.type))
                continue
            try:
                columns.append(rows[field.name].cast(field.type))
            except pa.ArrowException:
                raise DataError(
                    f"{images_uri}: column {field.name!r} holds {field.type} in the images listed before, and now "
                    f"{rows[field.name].type}; rename it, or give another folder for the results"
                ) from None
        return pa.table(columns, schema=schema)

    return schema, map(alike, chain([first], found))


def _in_python(schema: pa.Schema) -> pa.Schema:
    """The same with whole numbers in the place of times, as Python's own times are coarser than Arrow's."""

    def plain(kind: pa.DataType) -> pa.DataType:
        fine = pa.types.is_timestamp(kind) or pa.types.is_duration(kind) or pa.types.is_time64(kind)
        return pa.int64() if fine else kind

    return pa.schema([field.with_type(plain(field.type)) for field in schema])


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
            rows = pa.Table.from_batches([batch])
            yield from rows.cast(_in_python(rows.schema)).to_pylist()


def _known(there: list[Shard]) -> Iterator[str]:
    """All URIs of the shards, ascending: those of one listing are, so the listings are merged."""

    def uris(of: Iterable[Shard]) -> Iterator[str]:
        for shard in of:
            yield from read_shard(shard.uri, ["uri"])["uri"].to_pylist()

    return heapq.merge(*(uris(list(of)) for _, of in groupby(there, listing_of)))


def _unknown(rows: Iterable[dict[str, Any]], known: Iterator[str], counts: dict[str, int]) -> Iterator[dict[str, Any]]:
    """Rows whose uri is not among the known ones, each once; both ascending."""
    last_known = next(known, None)
    last: dict[str, Any] = {"uri": None}
    for row in rows:
        uri = row["uri"]
        while last_known is not None and last_known < uri:
            last_known = next(known, None)
        if uri == last["uri"]:
            _check_same(row, last)
            counts["repeated"] += 1
        elif uri == last_known:
            counts["known"] += 1
        else:
            yield row
        last = row


def _check_same(row: dict[str, Any], other: dict[str, Any]) -> None:
    """Two rows of one image.

    Raises:
        DataError: if they say different things of it.
    """
    for name, value in row.items():
        if value != other[name] and not (value != value and other[name] != other[name]):
            raise DataError(
                f"two rows of the table name {row['uri']!r}, but {name} is {other[name]!r} in one and {value!r} in the "
                "other; leave one out"
            )
