"""The images that are suggested for a look, in their order: `suggestions.parquet` beside a score table."""

from __future__ import annotations

import threading
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from raydiff import storage
from raydiff.errors import DataError, RaydiffError
from raydiff.review.files import Files
from raydiff.review.uri_search import UriSearch

FILE = "suggestions.parquet"
COLUMNS = ["uri", "rank", "reason"]  # that are looked at


class Ranked(NamedTuple):
    """The rows that are suggested, ascending, and their ranks."""

    rows: np.ndarray  # uint32 (N,)
    ranks: np.ndarray  # float64 (N,)


class Suggestions:
    """What is suggested; may be used by several threads."""

    def __init__(self, files: Files, search: UriSearch) -> None:
        """Nothing is read before the first `refresh`."""
        self._uri = storage.join(files.uri, FILE)
        self._search = search
        self._data = b""
        self._told: dict[str, dict[str, Any]] = {}
        self._ranked: Ranked | None = None
        self._lock = threading.Lock()
        self.edition = 0  # one more each time that the file was found changed
        self.trouble = ""  # why it could not be read

    def __len__(self) -> int:
        return len(self._told)

    def refresh(self) -> None:
        """Read the file, if it is there; what is wrong with it is told in `trouble`."""
        with self._lock:
            try:
                data = storage.read_bytes(self._uri) if storage.exists(self._uri) else b""
                if data != self._data:
                    self._told, self._ranked = (_told(self._uri, data) if data else {}), None
                    self._data = data
                    self.edition += 1
                self.trouble = ""
            except RaydiffError as error:
                self.trouble = str(error)

    def of(self, uri: str | None) -> dict[str, Any] | None:
        """`rank` and `reason` of an image; None where it is not suggested."""
        return self._told.get(uri or "")

    def ranked(self) -> Ranked:
        """The rows of the table that are suggested.

        Raises:
            StorageError, DataError: as `UriSearch.rows`.
        """
        with self._lock:
            if self._ranked is None:
                ranks = {row: self._told[uri]["rank"] for uri, rows in self._rows().items() for row in rows}
                ordered = np.array(sorted(ranks), np.uint32)
                self._ranked = Ranked(ordered, np.array([ranks[row] for row in ordered.tolist()], np.float64))
            return self._ranked

    def ranks(self, rows: np.ndarray) -> np.ndarray:
        """The rank of each of some rows, float64; NaN where it is not suggested. Errors as of `ranked`."""
        ranked = self.ranked()
        found = np.full(len(rows), np.nan)
        if len(ranked.rows):
            places = np.minimum(np.searchsorted(ranked.rows, rows), len(ranked.rows) - 1)
            there = ranked.rows[places] == rows
            found[there] = ranked.ranks[places[there]]
        return found

    def _rows(self) -> dict[str, list[int]]:
        return self._search.rows(self._told)


def _told(uri: str, data: bytes) -> dict[str, dict[str, Any]]:
    try:
        rows = pq.read_table(pa.BufferReader(data), columns=COLUMNS)
        ranks, reasons = rows["rank"].cast(pa.int64()), rows["reason"].cast(pa.string())
        told = zip(rows["uri"].cast(pa.string()).to_pylist(), ranks.to_pylist(), reasons.to_pylist(), strict=True)
        return {image: {"rank": rank, "reason": reason} for image, rank, reason in told if image and rank is not None}
    except (pa.ArrowException, ValueError, KeyError) as error:
        raise DataError(
            f"{uri} has no suggestions with {', '.join(COLUMNS)} ({error}); write it anew or move it away"
        ) from None
