"""Where some URIs stand in a table, without reading all of its URIs for each question.

The first question that names a URI reads the column once and keeps of each file its least and its greatest URI. From
then on only the files are read that may hold what is asked for: of an archive's table, which is sorted, about one a
URI.
"""

from __future__ import annotations

import threading
from bisect import bisect_left, bisect_right
from collections.abc import Collection

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from raydiff.review.files import Files


class UriSearch:
    """Finds rows by their URIs; may be used by several threads."""

    def __init__(self, files: Files) -> None:
        self._files = files
        self._ends: list[tuple[str, str] | None] = [None] * len(files.parts)  # of each file; None: not read yet
        self._lock = threading.Lock()

    def rows(self, uris: Collection[str]) -> dict[str, list[int]]:
        """The numbers of the rows that have each URI, ascending; those that no row has are left out.

        Raises:
            StorageError, DataError: as `Files.columns`.
        """
        wanted = sorted(set(uris))
        found: dict[str, list[int]] = {}
        if not wanted:
            return found
        with self._lock:
            among = [part for part, ends in enumerate(self._ends) if ends is None or _between(wanted, ends)]
            for part, rows in self._files.columns(["uri"], among):
                column = rows["uri"].combine_chunks()
                ends = self._ends[part] or _ends(column)
                self._ends[part] = ends
                some = _between(wanted, ends)
                if not some:
                    continue
                is_some = pc.is_in(column, pa.array(some, column.type)).to_numpy(zero_copy_only=False)
                places = np.flatnonzero(is_some)
                numbers = (places + self._files.starts[part]).tolist()
                for number, uri in zip(numbers, column.take(pa.array(places)).to_pylist(), strict=True):
                    found.setdefault(uri, []).append(number)
        return found


def _ends(column: pa.Array) -> tuple[str, str]:
    least, most = (value.as_py() for value in pc.min_max(column).values())
    return least or "", most or ""


def _between(wanted: list[str], ends: tuple[str, str]) -> list[str]:
    """Those of sorted URIs that lie from the first end to the second."""
    return wanted[bisect_left(wanted, ends[0]) : bisect_right(wanted, ends[1])]
