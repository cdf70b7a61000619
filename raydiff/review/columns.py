"""What rows are filtered and sorted by: columns of a score table as numbers, each read once it is asked for and kept.

| column | bytes a row | what it holds |
|---|---|---|
| state | 1 | one of ALARM, NORMAL, ERROR, UNJUDGED |
| score, p_value | 8 each | NaN where there is none |
| time | 8 | microseconds since 1970, or days where the table has no times; NOTHING where it is unknown |
| day | 4 | days since 1970; NOTHING where it is unknown |
| category, reason | 4 each | a number in `names` |
| uri | 4 | the row's place among all, by its URI |
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from raydiff.images.table import TIME
from raydiff.review import uri_order
from raydiff.review.files import Files

UNJUDGED, NORMAL, ALARM, ERROR = range(4)  # no verdict: the model has no calibration
NOTHING = int(np.iinfo(np.int32).min)
NO_CATEGORY = ""
_SAME_ERRORS = 4096  # texts whose reason is remembered: most errors of an archive are alike


class Columns:
    """The columns of a table that fit into memory as numbers."""

    def __init__(self, files: Files) -> None:
        self._files = files
        self._found: dict[str, np.ndarray] = {}
        self._lock = threading.RLock()
        self.names: dict[str, list[str]] = {}  # of the numbers in `category` and `reason`

    def __getitem__(self, name: str) -> np.ndarray:
        """A column (rows,), read if it was not yet; not to be changed.

        Raises:
            StorageError, DataError: as `Files.columns`.
        """
        with self._lock:
            if name not in self._found:
                self.load(name)
            return self._found[name]

    def load(self, *names: str) -> None:
        """Read several in one pass; errors as of reading one."""
        with self._lock:
            missing = [name for name in names if name not in self._found]
            plain = {name: _PLAIN[name] for name in missing if name in _PLAIN}
            if plain:
                self._found |= self._numbers(plain)
            for name in missing:
                if name not in plain:
                    self._found[name] = getattr(self, f"_{name}")()

    def number(self, name: str, value: str) -> int:
        """The number that stands for a category or a reason in its column; -1 where no row has it."""
        with self._lock:
            self.load(name)
            return self.names[name].index(value) if value in self.names[name] else -1

    def _numbers(self, plain: dict[str, _Plain]) -> dict[str, np.ndarray]:
        found = {name: np.empty(self._files.rows, dtype) for name, (dtype, _, _) in plain.items()}
        sources = list(dict.fromkeys(source for _, needs, _ in plain.values() for source in needs))
        for part, rows in self._parts(sources):
            for name, (_, needs, read) in plain.items():
                found[name][part] = read(*(rows[source] for source in needs))
        return found

    def _parts(self, sources: list[str], among: list[int] | None = None) -> Iterator[tuple[slice, pa.Table]]:
        for number, rows in self._files.columns(sources, among):
            yield slice(*self._files.starts[number : number + 2].tolist()), rows

    def _category(self) -> np.ndarray:
        numbers: dict[str, int] = {}
        found = np.empty(self._files.rows, np.int32)
        for part, rows in self._parts(["category"]):
            told = rows["category"].combine_chunks().fill_null(NO_CATEGORY).dictionary_encode()
            known = [numbers.setdefault(name, len(numbers)) for name in told.dictionary.to_pylist()]
            found[part] = np.array(known, np.int32)[told.indices.to_numpy()]
        self.names["category"] = list(numbers)
        return found

    def _reason(self) -> np.ndarray:
        """Of each error what kind it is (see `summary.reason`); -1 where there is none."""
        from raydiff.scoring.summary import reason  # and scipy, for which the first page need not wait

        numbers: dict[str, int] = {}
        known: dict[str, int] = {}
        found = np.full(self._files.rows, -1, np.int32)
        bad = np.flatnonzero(self["state"] == ERROR)
        parts = np.unique(np.searchsorted(self._files.starts, bad, "right") - 1).tolist()
        for part, rows in self._parts(["error", "uri"], parts):
            places = np.flatnonzero(pc.is_valid(rows["error"]).to_numpy())
            some = rows.take(pa.array(places))
            for place, error, uri in zip(places, some["error"].to_pylist(), some["uri"].to_pylist(), strict=True):
                text = error.replace(uri, "\0") if uri else error
                if text not in known:
                    if len(known) >= _SAME_ERRORS:
                        known.clear()
                    kind = reason(error, uri)
                    known[text] = numbers.setdefault(kind, len(numbers))
                found[part.start + place] = known[text]
        self.names["reason"] = list(numbers)
        return found

    def _time(self) -> np.ndarray:
        if TIME not in self._files.schema.names:
            return self["day"]
        return self._numbers({"time": (np.dtype(np.int64), [TIME], _microseconds)})["time"]

    def _uri(self) -> np.ndarray:
        return uri_order.places(self._files)


_Plain = tuple[np.dtype[Any], list[str], Callable[..., np.ndarray]]


def _float(column: pa.ChunkedArray) -> np.ndarray:
    return column.cast(pa.float64()).fill_null(float("nan")).to_numpy()


def _day(column: pa.ChunkedArray) -> np.ndarray:
    return column.cast(pa.date32()).cast(pa.int32()).fill_null(NOTHING).to_numpy()


def _microseconds(column: pa.ChunkedArray) -> np.ndarray:
    if not pa.types.is_timestamp(column.type):
        return np.full(len(column), NOTHING, np.int64)
    return column.cast(pa.timestamp("us", column.type.tz), safe=False).cast(pa.int64()).fill_null(NOTHING).to_numpy()


def _state(alarm: pa.ChunkedArray, error: pa.ChunkedArray) -> np.ndarray:
    found = pc.if_else(alarm, ALARM, NORMAL).fill_null(UNJUDGED)
    return pc.if_else(pc.is_valid(error), ERROR, found).to_numpy().astype(np.uint8)


_PLAIN: dict[str, _Plain] = {
    "score": (np.dtype(np.float64), ["score"], _float),
    "p_value": (np.dtype(np.float64), ["p_value"], _float),
    "day": (np.dtype(np.int32), ["day"], _day),
    "state": (np.dtype(np.uint8), ["is_anomalous", "error"], _state),
}
