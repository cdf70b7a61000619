"""The table of verdicts beside a score table: append-only, one row a verdict, safe with several writers at once.

Each append is a file of its own, written whole or not at all, under a name that nobody else takes; no file is ever
changed, merged or deleted. So no writer can lose or tear another's verdicts, whenever it is killed, locally or in
object storage. The table is all files together, in the order of their names.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from raydiff import storage
from raydiff.errors import DataError, RaydiffError, StorageError
from raydiff.storage.patience import patiently

NORMAL, DEFECT, UNSURE = "normal", "defect", "unsure"
VERDICTS = (NORMAL, DEFECT, UNSURE)

TABLE = "verdicts"  # its own folder beside score_table/, with nothing else in it: any Parquet reader takes it whole
SCHEMA = pa.schema(
    [
        ("uri", pa.string()),  # of the image, as in the score table
        ("verdict", pa.string()),  # one of VERDICTS
        ("region", pa.list_(pa.float64())),  # x0, y0, x1, y1 of the place meant, pixels of the image; null: all of it
        ("note", pa.string()),
        ("who", pa.string()),
        ("when", pa.timestamp("us", "UTC")),
    ]
)
READS_AT_ONCE = 16  # object stores answer slowly but many at a time

_NAME = re.compile(r"verdicts-\d{8}T\d{6}\.\d{6}Z-[0-9a-f]{32}\.parquet")


class Verdict(NamedTuple):
    """What somebody said of an image; fields as of SCHEMA."""

    uri: str
    verdict: str
    who: str
    when: datetime  # with its time zone
    region: tuple[float, float, float, float] | None = None
    note: str | None = None


class Found(NamedTuple):
    """The files of the table, each by its name, in the order of the names."""

    names: frozenset[str]  # of all that are there
    tables: dict[str, pa.Table]  # in SCHEMA, of those that were read
    errors: dict[str, RaydiffError]  # StorageError or DataError, of those that could not be


def of(verdicts: Sequence[Verdict]) -> pa.Table:
    """Some verdicts as rows of the table."""
    return pa.table(
        [pa.array([getattr(each, field.name) for each in verdicts], field.type) for field in SCHEMA], schema=SCHEMA
    )


def append(scores_uri: str, rows: pa.Table) -> str:
    """Add verdicts to the table beside a score table: all of them or, if this process is killed, none.

    Args:
        scores_uri: folder of the score table; whether the images are in it is not looked at.
        rows: in SCHEMA.

    Returns:
        The URI of the file they lie in.

    Raises:
        DataError: if there is no row, or one does not hold what SCHEMA says.
        StorageError: if the file cannot be written.
    """
    check(rows)
    sink = pa.BufferOutputStream()
    pq.write_table(rows.cast(SCHEMA), sink)
    written = f"{datetime.now(UTC):%Y%m%dT%H%M%S.%f}Z-{uuid.uuid4().hex}"
    place = storage.join(scores_uri, TABLE, f"verdicts-{written}.parquet")
    patiently(storage.write_bytes, place, sink.getvalue().to_pybytes())
    return place


def read(scores_uri: str) -> pa.Table:
    """All verdicts in SCHEMA, file by file in the order of their names; no rows where there is none yet.

    Raises:
        StorageError: if a file cannot be read.
        DataError: if one is not as `append` writes them.
    """
    found = read_files(scores_uri)
    for error in found.errors.values():
        raise error
    return pa.concat_tables([SCHEMA.empty_table(), *found.tables.values()]).combine_chunks()


def read_files(
    scores_uri: str, known: Collection[str] = (), told: Callable[[int, int], None] = lambda *_: None
) -> Found:
    """The files of the table; one that cannot be read keeps none of the others away.

    As no file is ever changed, who has read some before reads those alone that were added since.

    Args:
        known: names of files that are not read.
        told: called after each file with how many are read, and of how many.

    Raises:
        StorageError: if the folder cannot be listed.
    """
    folder = storage.join(scores_uri, TABLE)
    found = storage.list_files(folder) if storage.exists(folder) else []
    files = {storage.name(uri): uri for uri in found}
    there = frozenset(name for name in files if _NAME.fullmatch(name))
    names = [name for name in files if name in there and name not in known]
    tables: dict[str, pa.Table] = {}
    errors: dict[str, RaydiffError] = {}
    with ThreadPoolExecutor(READS_AT_ONCE) as pool:
        read_ones = pool.map(_tried, [files[name] for name in names])
        for done, (name, rows) in enumerate(zip(names, read_ones, strict=True), 1):
            if isinstance(rows, RaydiffError):
                errors[name] = rows
            else:
                tables[name] = rows
            told(done, len(names))
    return Found(there, tables, errors)


def newest(rows: pa.Table) -> pa.Table:
    """The verdict that counts of each image: that with the latest `when`; one row a uri, sorted by uri.

    Of several at the same microsecond the one that comes last in `rows` counts: as `read` gives them that is the one
    in the file with the later name (which begins with the time when it was written), and of one file the later row.

    Args:
        rows: (N,) in SCHEMA, as `read` gives them.
    """
    if not len(rows):
        return rows
    uris = rows["uri"].combine_chunks().dictionary_encode()
    codes = uris.indices.to_numpy(zero_copy_only=False)
    order = np.argsort(rows["when"].cast(pa.int64()).to_numpy(), kind="stable")
    last = np.empty(len(uris.dictionary), np.int64)
    last[codes[order]] = order  # of an index that is there several times the last one is kept
    return rows.take(pa.array(last)).sort_by("uri")


def check(rows: pa.Table) -> None:
    """Whether rows hold what SCHEMA says.

    Raises:
        DataError: if not, or if there are none; the first row is row 0.
    """
    if rows.schema.names != SCHEMA.names or not len(rows):
        raise DataError(f"verdicts are rows of {', '.join(SCHEMA.names)}; found {len(rows)} of {rows.schema.names}")
    for name in ("uri", "who"):
        _refuse(rows, name, pc.equal(rows[name], ""), "must not be empty")
    _refuse(rows, "verdict", pc.invert(pc.is_in(rows["verdict"], pa.array(VERDICTS))), f"is none of {VERDICTS}")
    _refuse(rows, "when", pc.is_null(rows["when"]), "must be a time")
    for place, region in enumerate(rows["region"].to_pylist()):
        if region is not None and not is_region(region):
            raise DataError(f"verdicts: region, row {place}: {region} is not x0, y0, x1, y1 with x0 < x1 and y0 < y1")


def is_region(values: Sequence[object]) -> bool:
    """Whether values are a rectangle: x0, y0, x1, y1, finite, x0 < x1 and y0 < y1."""
    if len(values) != 4 or not all(isinstance(each, int | float) and np.isfinite(each) for each in values):
        return False
    x0, y0, x1, y1 = (float(each) for each in values if isinstance(each, int | float))
    return x0 < x1 and y0 < y1


def _refuse(rows: pa.Table, name: str, bad: pa.ChunkedArray, rule: str) -> None:
    place = pc.index(pc.fill_null(bad, True), True).as_py()
    if place >= 0:
        raise DataError(f"verdicts: {name}, row {place}: {rows[name][place].as_py()!r} {rule}")


def _tried(uri: str) -> pa.Table | RaydiffError:
    try:
        return _read(uri)
    except (StorageError, DataError) as error:
        return error


def _read(uri: str) -> pa.Table:
    data = pa.BufferReader(patiently(storage.read_bytes, uri))
    try:
        with pq.ParquetFile(data) as file:
            return file.read(columns=SCHEMA.names, use_threads=False).cast(SCHEMA)
    except (pa.ArrowException, ValueError, KeyError) as error:
        raise DataError(
            f"{uri} is not as raydiff writes verdicts ({error}); restore the file or move it away"
        ) from None
