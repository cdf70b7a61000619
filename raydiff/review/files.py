"""The Parquet files of a score table, of which only what is asked for is read: some columns, or some rows.

The table is taken as it is when it is opened. A row is named by its number in all files together, in their order.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import datetime

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from raydiff import storage
from raydiff.errors import DataError
from raydiff.review.recent import Recent
from raydiff.scoring import table
from raydiff.scoring.columns import KINDS
from raydiff.storage.patience import patiently

READS_AT_ONCE = 8  # object stores answer slowly but many at a time
KEPT_BYTES = 128 * 2**20  # of row groups whose rows were shown last
PATIENCE_SECONDS = 10.0  # somebody is waiting

_ROWS = re.compile(r"part-\d{4,}-\d{6,}-(\d+)\.parquet")  # as `shards.shard_name` has it, see `table.part_uri`


class Files:
    """The finished parts of a score table."""

    def __init__(self, scores_uri: str) -> None:
        """Look which there are; of files that are named as this program names them not one is opened.

        Raises:
            DataError: if there is no score table.
            StorageError: if it is not there or cannot be listed.
        """
        self.uri = scores_uri
        self.parts = _parts(scores_uri)
        with ThreadPoolExecutor(READS_AT_ONCE) as pool:
            counts = list(pool.map(_count, self.parts))
        self.starts = np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])
        self.rows = int(self.starts[-1])
        with storage.parquet(self.parts[0]) as file:
            self.schema: pa.Schema = file.schema_arrow
        self._kept: Recent[pa.Table] = Recent(KEPT_BYTES)
        self._pool = ThreadPoolExecutor(READS_AT_ONCE, thread_name_prefix="review-files")

    def columns(self, names: list[str], among: Sequence[int] | None = None) -> Iterator[tuple[int, pa.Table]]:
        """Columns of each part, in order, as (its number, its rows), a few parts ahead of what is asked for.

        Of a column that a file's statistics say all of (one value, or none), nothing is read. A column that a part
        lacks is null there.

        Args:
            among: the numbers of the parts, ascending; by default all.

        Raises:
            StorageError: if a part cannot be read.
            DataError: if one is no longer what it was.
        """
        waiting: deque[tuple[int, Future[pa.Table]]] = deque()
        for part in range(len(self.parts)) if among is None else among:
            waiting.append((part, self._pool.submit(patiently, self._columns, part, names, seconds=PATIENCE_SECONDS)))
            if len(waiting) > 2 * READS_AT_ONCE:
                number, found = waiting.popleft()
                yield number, found.result()
        for number, found in waiting:
            yield number, found.result()

    def take(self, rows: Sequence[int] | np.ndarray, names: list[str] | None = None) -> pa.Table:
        """Rows by their numbers, in that order.

        Args:
            names: of columns; by default all that there are.

        Raises:
            StorageError, DataError: as `columns`.
        """
        wanted = np.asarray(rows, np.int64)
        part_of = np.searchsorted(self.starts, wanted, "right") - 1
        order = np.argsort(part_of, kind="stable")
        asked = []
        for part in np.unique(part_of).tolist():
            inside = wanted[order[part_of[order] == part]] - self.starts[part]
            asked.append(self._pool.submit(patiently, self._some, part, inside, names, seconds=PATIENCE_SECONDS))
        if not asked:
            return pa.schema([self._field(name) for name in names or self.schema.names]).empty_table()
        found = pa.concat_tables([each.result() for each in asked], promote_options="permissive")
        back = np.empty_like(order)
        back[order] = np.arange(len(order))
        return found.take(pa.array(back))

    def shard(self, row: int) -> str:
        """The shard of the image table that a row is of."""
        return table.part_name(self.parts[int(np.searchsorted(self.starts, row, "right")) - 1])

    def close(self) -> None:
        """End its threads."""
        self._pool.shutdown(cancel_futures=True)

    def _field(self, name: str) -> pa.Field:
        place = self.schema.get_field_index(name)
        if place >= 0:
            return self.schema.field(place)
        return KINDS.field(name) if name in KINDS.names else pa.field(name, pa.string())

    def _columns(self, part: int, names: list[str]) -> pa.Table:
        with storage.parquet(self.parts[part]) as file:
            rows = self._check(file, part)
            known = _constants(file.metadata, names)
            read = [name for name in names if name in file.schema_arrow.names and name not in known]
            found = file.read(columns=read, use_threads=False) if read else None
            columns = {}
            for name in names:
                if found is not None and name in read:
                    columns[name] = found[name]
                    continue
                kind, value = self._field(name).type, known.get(name)
                columns[name] = pa.repeat(pa.scalar(value, kind), rows) if value is not None else pa.nulls(rows, kind)
        return pa.table(columns)

    def _some(self, part: int, inside: np.ndarray, names: list[str] | None) -> pa.Table:
        """Rows of a part, by their places in it."""
        key = (part, tuple(names or ()))
        kept = self._kept.get(key)
        if kept is not None:
            return kept.take(pa.array(inside))
        with storage.parquet(self.parts[part]) as file:
            self._check(file, part)
            groups = np.array([file.metadata.row_group(g).num_rows for g in range(file.metadata.num_row_groups)])
            ends = np.cumsum(groups)
            of = np.searchsorted(ends, inside, "right")
            needed, among = np.unique(of, return_inverse=True)
            there = [name for name in names if name in file.schema_arrow.names] if names else None
            found = file.read_row_groups(needed.tolist(), columns=there, use_threads=False)
        for name in names or ():
            if name not in found.column_names:
                found = found.append_column(name, pa.nulls(len(found), self._field(name).type))
        if names and len(needed) == len(groups):
            self._kept.put(key, found, found.nbytes)
        return found.take(pa.array(inside - _starts(groups)[of] + _starts(groups[needed])[among]))

    def _check(self, file: pq.ParquetFile, part: int) -> int:
        rows, expected = int(file.metadata.num_rows), int(self.starts[part + 1] - self.starts[part])
        if rows != expected:
            raise DataError(
                f"{self.parts[part]} has {rows} rows, {expected} were expected: it was changed since the viewer was "
                "started; start it again"
            )
        return rows


def _parts(scores_uri: str) -> list[str]:
    try:
        return table.parts(scores_uri)
    except DataError:
        storage.list_folders(scores_uri)  # which says so where it is not there at all
        scores = storage.join(scores_uri, "scores")
        found = storage.list_folders(scores) if storage.exists(scores) else []
        tests = [uri for uri in (storage.join(each, "test") for each in found) if table.part_names(uri)]
        if tests:
            raise DataError(
                f"{scores_uri} is a run's folder; give one of its score tables: {', '.join(tests)}"
            ) from None
        raise DataError(
            f"{scores_uri} holds no {table.TABLE}/part-*.parquet; give the --out of jobs/score_archive.py, or a run's "
            "RUN/scores/MODEL/test"
        ) from None


def _count(uri: str) -> int:
    named = _ROWS.fullmatch(storage.name(uri))
    if named:
        return int(named[1])
    with storage.parquet(uri) as file:
        return int(file.metadata.num_rows)


def _starts(counts: np.ndarray) -> np.ndarray:
    return np.cumsum(counts) - counts


def _constants(metadata: pq.FileMetaData, names: list[str]) -> dict[str, object]:
    """Columns of which the statistics say all: the value of each row, None where all are null."""
    found: dict[str, object] = {}
    wanted, lost = set(names), set()
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        for place in range(group.num_columns):
            column = group.column(place)
            name = column.path_in_schema
            if name not in wanted or name in lost:
                continue
            said, value = _said(column.statistics, group.num_rows)
            if not said or (name in found and found[name] != value):
                lost.add(name)
            found[name] = value
    return {name: value for name, value in found.items() if name not in lost}


def _said(statistics: pq.Statistics | None, rows: int) -> tuple[bool, object]:
    """Whether a column chunk holds one value, or none, and which."""
    if statistics is None or not statistics.has_null_count:
        return False, None
    if statistics.null_count == rows:
        return True, None
    if statistics.null_count or not statistics.has_min_max or isinstance(statistics.min, float | datetime):
        return False, None
    return statistics.min == statistics.max, statistics.min
