"""Rows of a score table, grouped by the part that they are views of, in bounded memory.

An archive has millions of rows, and the views of a part may lie in any of its files. So the rows are read a stretch at
a time, each part's rows of a stretch become one, and these are put into buckets on disk by a hash of their part: no
more is in memory than a stretch or a bucket. However many views a part has, it is one row of each stretch.
"""

from __future__ import annotations

import itertools
import os
import tempfile
import zlib
from collections.abc import Iterable, Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from raydiff.images.table import PART

ROWS_AT_ONCE = 2**17  # of a stretch
ROWS_A_BUCKET = 2**18  # at most, for as many different parts as a hash spreads evenly

VIEWS, NOT_SCORED = "views", "views_not_scored"  # the columns that are added

_ORDER = [("group", "ascending"), ("p_value", "ascending"), ("score", "descending"), ("uri", "ascending")]


def by_part(rows: Iterable[pa.Table], count: int) -> Iterator[pa.Table]:
    """One row for each part: its worst view's, and behind its columns `views` and `views_not_scored` of the part.

    The worst view has the smallest p-value, of several the highest score, of several the first uri. A part is told by
    its category and its `part`; a row without `part` is a part of its own. Parts come sorted by the two, but in some
    tables of as many ranges; the same rows in the same order give the same tables.

    Args:
        rows: of a score table, with the columns `uri, category, part, p_value, score` and any others.
        count: of all rows, by which memory is divided; more or fewer do no harm.
    """
    with tempfile.TemporaryDirectory(prefix="raydiff-parts-") as folder:
        buckets = _Buckets(folder, max(1, -(-count // ROWS_A_BUCKET)))
        for stretch in _stretches(rows):
            buckets.add(_worst(stretch))
        for found in buckets:
            yield _worst(found).sort_by([("category", "ascending"), (PART, "ascending"), ("uri", "ascending")])


def _stretches(rows: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """The rows as parts of one view each, about ROWS_AT_ONCE at a time."""
    gathered: list[pa.Table] = []
    for some in rows:
        ones = pa.array(np.ones(len(some), np.int64))
        failed = pc.is_null(some["score"]).cast(pa.int64())
        gathered.append(some.append_column(VIEWS, ones).append_column(NOT_SCORED, failed))
        if sum(map(len, gathered)) >= ROWS_AT_ONCE:
            yield pa.concat_tables(gathered)
            gathered = []
    if gathered:
        yield pa.concat_tables(gathered)


def _keys(rows: pa.Table) -> pa.Array:
    """What tells a row's part from all others: text that no two parts share."""
    length = pc.binary_length(rows["category"]).cast(pa.string())  # so that it is known where the category ends
    of_part = pc.binary_join_element_wise(length, rows["category"], rows[PART], ":")
    return pc.coalesce(of_part, pc.binary_join_element_wise("", rows["uri"], ":")).combine_chunks()


def _worst(rows: pa.Table) -> pa.Table:
    """One row for each part that some are views of."""
    groups = _keys(rows).dictionary_encode().indices
    columns = {name: rows[name] for name in ("p_value", "score", "uri")}
    order = pc.sort_indices(pa.table({"group": groups, **columns}), sort_keys=_ORDER)  # what is null comes last
    first = np.flatnonzero(np.diff(groups.take(order).to_numpy(), prepend=-1))
    found = rows.take(order.take(pa.array(first)))
    for name in (VIEWS, NOT_SCORED) if len(rows) else ():
        counts = np.add.reduceat(rows[name].take(order).to_numpy(), first)
        found = found.set_column(found.column_names.index(name), name, pa.array(counts))
    return found


class _Buckets:
    """Rows on disk, in as many buckets as are asked for; all rows of a part are in one."""

    def __init__(self, folder: str, count: int) -> None:
        self._folder, self._count = folder, count
        self._files: list[str] = []

    def add(self, rows: pa.Table) -> None:
        """Put rows into their buckets: a file that has a batch for each of them."""
        # Not Python's own hash, which differs from one process to the next.
        places = np.array([zlib.crc32(key.encode()) % self._count for key in _keys(rows).to_pylist()], np.int64)
        order = np.argsort(places, kind="stable")
        bounds = np.searchsorted(places[order], np.arange(self._count + 1))
        path = os.path.join(self._folder, f"{len(self._files)}.arrow")
        sorted_rows = rows.take(pa.array(order)).combine_chunks()
        how = pa.ipc.IpcWriteOptions(compression="lz4")
        with pa.OSFile(path, "wb") as sink, pa.ipc.new_file(sink, rows.schema, options=how) as file:
            for begin, end in itertools.pairwise(bounds.tolist()):
                some = sorted_rows.slice(begin, end - begin).to_batches()
                file.write_batch(some[0] if some else pa.RecordBatch.from_pylist([], rows.schema))
        self._files.append(path)

    def __iter__(self) -> Iterator[pa.Table]:
        return map(self._rows, range(self._count if self._files else 0))

    def _rows(self, bucket: int) -> pa.Table:
        batches = []
        for path in self._files:
            with pa.OSFile(path) as source, pa.ipc.open_file(source) as file:
                batches.append(file.get_batch(bucket))
        return pa.Table.from_batches(batches)
