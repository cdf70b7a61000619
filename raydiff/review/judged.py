"""The verdicts that count of a table's images, in memory: read once, and then what was added by whomever.

Each change of what counts has a number. A list that leaves the images of some verdict is of the changes up to one, so
that it stays as it is while somebody goes through it and judges what is in it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from datetime import datetime
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from raydiff import storage
from raydiff.errors import DataError, RaydiffError
from raydiff.review.files import Files
from raydiff.review.uri_search import UriSearch
from raydiff.verdicts import table
from raydiff.verdicts.table import DEFECT, NORMAL, UNSURE, Verdict

REFRESH_SECONDS = 5.0  # at least between two listings: there may be thousands of files, in object storage
NONE = "none"
CODES = {NONE: 0, NORMAL: 1, DEFECT: 2, UNSURE: 3}


class _Newest(NamedTuple):
    since: tuple[datetime, str, int]  # the later counts: when, the file's name, the row in it (see `table.newest`)
    said: Verdict


class Judged:
    """What is said of a table's images; may be used by several threads."""

    def __init__(self, files: Files, search: UriSearch) -> None:
        """Nothing is read before the first `refresh`."""
        self._uri, self._rows, self._search = files.uri, files.rows, search
        self._read: set[str] = set()  # names of files
        self._bad: dict[str, DataError] = {}  # by names of files that are not as they should be, and not read again
        self._newest: dict[str, _Newest] = {}  # by URI
        self._changes: list[tuple[str, int]] = []  # URI and CODES
        self._places: dict[str, list[int]] = {}  # rows of URIs
        self._states, self._applied = np.zeros(files.rows, np.uint8), 0
        self._taking = threading.Lock()
        self._reading = threading.Lock()
        self._looked = -REFRESH_SECONDS
        self.trouble = ""  # why the files that others added could not be read

    @property
    def changes(self) -> int:
        """How many there were."""
        return len(self._changes)

    def refresh(self, told: Callable[[int, int], None] = lambda *_: None) -> None:
        """Read the files that were added since, unless that was done within REFRESH_SECONDS.

        What cannot be read is told in `trouble`: the table can be looked through without it, and without what another
        thread is reading.

        Args:
            told: called after each file with how many are read, and of how many.
        """
        if not self._reading.acquire(blocking=False):
            return
        try:
            if time.monotonic() - self._looked < REFRESH_SECONDS:
                return
            try:
                self.trouble = self._refreshed(told)
            except RaydiffError as error:
                self.trouble = str(error)
            self._looked = time.monotonic()
        finally:
            self._reading.release()

    def _refreshed(self, told: Callable[[int, int], None]) -> str:
        """Take in the files that were added since; what is wrong with others, in a sentence."""
        with self._taking:
            known = self._read | self._bad.keys()
        found = table.read_files(self._uri, known, told)
        bad = {name: error for name, error in self._bad.items() if name in found.names}
        unread: list[RaydiffError] = []  # may be there later
        for name, rows in found.tables.items():
            try:
                self._take(name, _verdicts(name, rows))
            except DataError as error:
                bad[name] = error
        for name, failed in found.errors.items():
            if isinstance(failed, DataError):
                bad[name] = failed
            else:
                unread.append(failed)
        self._bad = bad
        sentences = [str(error) for error in (*bad.values(), *unread)] or [""]
        others = len(sentences) - 1
        return sentences[0] + (f" (files of verdicts with such faults beside it: {others:,})" if others else "")

    def give(self, verdicts: Sequence[Verdict]) -> None:
        """Append verdicts to the table, in one file.

        Raises:
            StorageError: if it cannot be written.
        """
        place = table.append(self._uri, table.of(verdicts))
        self._take(storage.name(place), verdicts)

    def of(self, uri: str | None) -> dict[str, Any] | None:
        """The verdict that counts of an image, as JSON has it; None where there is none."""
        found = self._newest.get(uri or "")
        if found is None:
            return None
        said = found.said
        region = list(said.region) if said.region else None
        told = {"verdict": said.verdict, "who": said.who, "when": said.when.isoformat()}
        return {**told, "note": said.note, "region": region}

    def states(self, changes: int) -> np.ndarray:
        """CODES of each row after so many changes, uint8 (rows,); not to be changed. For one thread at a time.

        Raises:
            StorageError, DataError: as `UriSearch.rows`.
        """
        if changes < self._applied:
            self._states, self._applied = np.zeros(self._rows, np.uint8), 0
        some = self._changes[self._applied : changes]
        self._find({uri for uri, _ in some})
        for uri, code in some:
            self._states[self._places[uri]] = code
        self._applied += len(some)
        return self._states

    def _find(self, uris: Collection[str]) -> None:
        unknown = [uri for uri in uris if uri not in self._places]
        found = self._search.rows(unknown)
        self._places |= {uri: found.get(uri, []) for uri in unknown}

    def _take(self, name: str, verdicts: Iterable[Verdict]) -> None:
        """Take a file in, by its name."""
        with self._taking:
            if name in self._read:  # given here, and listed before it was taken in
                return
            for place, said in enumerate(verdicts):
                since = (said.when, name, place)
                before = self._newest.get(said.uri)
                if before is None or before.since < since:
                    self._newest[said.uri] = _Newest(since, said)
                    if before is None or before.said.verdict != said.verdict:
                        self._changes.append((said.uri, CODES[said.verdict]))
            self._read.add(name)


def _verdicts(name: str, rows: pa.Table) -> list[Verdict]:
    try:
        table.check(rows)  # somebody may have made the file by hand
    except DataError as error:
        raise DataError(f"{name}: {error}; mend the file or move it away") from None
    regions = [tuple(region) if region else None for region in rows["region"].to_pylist()]
    return [Verdict(**{**row, "region": region}) for row, region in zip(rows.to_pylist(), regions, strict=True)]
