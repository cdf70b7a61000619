"""The rows of a score table that a filter leaves, in an order, a page at a time.

What is kept of a filter and an order is the numbers of its rows, 4 bytes each; the rows themselves are read when their
page is asked for.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from datetime import date
from typing import Literal, NamedTuple, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field, model_validator

from raydiff.images.table import PART
from raydiff.review.columns import ALARM, ERROR, NORMAL, NOTHING, UNJUDGED, Columns
from raydiff.review.files import Files
from raydiff.review.judged import CODES, Judged
from raydiff.review.recent import Recent
from raydiff.review.suggestions import Suggestions
from raydiff.review.uri_search import UriSearch
from raydiff.settings import Settings

PAGE = 60
MOST_A_PAGE = 500
ORDERS_BYTES = 128 * 2**20  # of the filters and orders that were asked for last
SHOWN = ["uri", "category", "category_guessed", "day", "score", "p_value", "is_anomalous", "error"]  # of a page's rows

_Test = Callable[[pa.ChunkedArray], pa.ChunkedArray]
_EPOCH = date(1970, 1, 1)
_STATES = {"alarm": ALARM, "normal": NORMAL, "error": ERROR, "none": UNJUDGED}


class Filter(Settings):
    """Which rows are wanted: those that have all that is given."""

    category: str | None = None  # of the column `category`; empty: rows that have none
    first_day: date | None = None
    last_day: date | None = None
    verdict: Literal["alarm", "normal", "error", "none"] | None = None
    reason: str | None = None  # what kind of error (see `summary.reason`)
    min_score: float | None = Field(None, allow_inf_nan=False)
    max_score: float | None = Field(None, allow_inf_nan=False)
    min_p: float | None = Field(None, ge=0, le=1)
    max_p: float | None = Field(None, ge=0, le=1)
    part: str | None = None  # of the column `part`
    text: str | None = Field(None, min_length=1, max_length=1000)  # somewhere in the URI, in large or small letters
    judged: Literal["none", "normal", "defect", "unsure"] | None = None  # an inspector's verdict that counts
    changes: int | None = Field(None, ge=0)  # of verdicts that `judged` heeds (see `Judged`); None: all there are
    suggested: bool = False

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        ends = ((self.first_day, self.last_day), (self.min_score, self.max_score), (self.min_p, self.max_p))
        for low, high in ends:
            if low is not None and high is not None and low > high:  # type: ignore[operator]
                raise ValueError(f"{low} to {high} is no range; give the lower end first")
        return self


class Order(Settings):
    """By what rows are sorted. Rows without a value come last either way, and equal ones in the table's order.

    Of equal p-values, which are many where a calibration had few images, the higher score comes first either way.
    """

    sort: Literal["score", "p_value", "time", "uri", "rank"] = "score"  # rank: of suggestions
    descending: bool = True


class Found(NamedTuple):
    """What a filter leaves."""

    rows: np.ndarray  # their numbers in order, uint32
    alarms: int
    errors: int


class Table:
    """A score table to be looked through."""

    def __init__(self, files: Files) -> None:
        self.files = files
        self.columns = Columns(files)
        search = UriSearch(files)
        self.judged = Judged(files, search)
        self.suggestions = Suggestions(files, search)
        self._found: Recent[Found] = Recent(ORDERS_BYTES)
        self._lock = threading.Lock()  # one search at a time: what it needs in memory is needed once

    def find(self, wanted: Filter, order: Order) -> Found:
        """The rows that a filter leaves, in an order.

        Raises:
            StorageError, DataError: as `Files.columns`.
        """
        with self._lock:
            found = self.known(wanted, order)
            if found is None:
                wanted = self.dated(wanted)
                left = self._left(wanted)
                found = left._replace(rows=self._ordered(left.rows, order))
                self._found.put(self._key(wanted, order), found, found.rows.nbytes)
            return found

    def known(self, wanted: Filter, order: Order) -> Found | None:
        """What `find` gives, if it was found lately."""
        return self._found.get(self._key(self.dated(wanted), order))

    def dated(self, wanted: Filter) -> Filter:
        """A filter that says which verdicts it heeds: as many as were given by now, if it did not say so."""
        now = self.judged.changes
        heeded = min(now if wanted.changes is None else wanted.changes, now) if wanted.judged else None
        return wanted if wanted.changes == heeded else wanted.changed(changes=heeded)

    def _key(self, wanted: Filter, order: Order | None) -> Hashable:
        by_rank = wanted.suggested or (order is not None and order.sort == "rank")
        return wanted, order, self.suggestions.edition if by_rank else 0

    def page(self, found: Found, offset: int, limit: int = PAGE) -> pa.Table:
        """Some of the rows that were found, with the columns SHOWN."""
        return self.files.take(found.rows[offset : offset + limit], SHOWN)

    def _left(self, wanted: Filter) -> Found:
        left = self._found.get(self._key(wanted, None))
        if left is None:
            self.columns.load(*_needed(wanted), "state")
            mask = self._mask(wanted)
            rows = np.arange(self.files.rows, dtype=np.uint32) if mask is None else np.flatnonzero(mask).astype("u4")
            alarms, errors = (int(np.count_nonzero(self.columns["state"][rows] == each)) for each in (ALARM, ERROR))
            left = Found(rows, alarms, errors)
            self._found.put(self._key(wanted, None), left, left.rows.nbytes)
        return left

    def _ordered(self, rows: np.ndarray, order: Order) -> np.ndarray:
        keys = self.suggestions.ranks(rows) if order.sort == "rank" else self.columns[order.sort][rows]
        if order.sort == "uri":
            keys = keys.astype(np.int64)
        nothing = np.isnan(keys) if keys.dtype.kind == "f" else keys == NOTHING
        there, last = rows[~nothing], rows[nothing]
        keys = keys[~nothing]
        if order.descending:
            np.negative(keys, out=keys)  # rather than backwards, which would turn equal ones round, too
        if order.sort == "p_value":
            by = np.lexsort((-self.columns["score"][there], keys))
        else:
            by = np.argsort(keys, kind="stable")
        return np.concatenate([there[by], last])

    def _mask(self, wanted: Filter) -> np.ndarray | None:
        """True for the rows that are left, (rows,); None where nothing is filtered."""
        column = self.columns
        tests = []
        if wanted.category is not None:
            tests.append(column["category"] == column.number("category", wanted.category))
        if wanted.verdict is not None:
            tests.append(column["state"] == _STATES[wanted.verdict])
        if wanted.reason is not None:
            number = column.number("reason", wanted.reason)
            tests.append(column["reason"] == (number if number >= 0 else NOTHING))
        for name, low, high in (
            ("day", _days(wanted.first_day), _days(wanted.last_day)),
            ("score", wanted.min_score, wanted.max_score),
            ("p_value", wanted.min_p, wanted.max_p),
        ):
            if low is not None:
                tests.append(column[name] >= low)
            if high is not None:
                tests.append(column[name] <= high)
            if name == "day" and low is None and high is not None:
                tests.append(column[name] != NOTHING)
        if wanted.judged is not None:
            assert wanted.changes is not None
            tests.append(self.judged.states(wanted.changes) == CODES[wanted.judged])
        if wanted.suggested:
            suggested = np.zeros(self.files.rows, bool)
            suggested[self.suggestions.ranked().rows] = True
            tests.append(suggested)
        mask = np.logical_and.reduce(tests) if tests else None
        if wanted.part is not None:
            mask = self._scanned(PART, lambda parts: pc.equal(parts, wanted.part), mask)
        if wanted.text is not None:
            mask = self._scanned("uri", lambda uris: pc.match_substring(uris, wanted.text, ignore_case=True), mask)
        return mask

    def _scanned(self, name: str, test: _Test, mask: np.ndarray | None) -> np.ndarray:
        """Rows of a mask that pass a test of a column of text; files that have none of them are not read."""
        starts = self.files.starts
        among = None
        if mask is not None:
            among = np.unique(np.searchsorted(starts, np.flatnonzero(mask), "right") - 1).tolist()
        found = np.zeros(self.files.rows, bool)
        for part, rows in self.files.columns([name], among):
            found[starts[part] : starts[part + 1]] = test(rows[name]).fill_null(False).to_numpy()
        return found if mask is None else found & mask


def _needed(wanted: Filter) -> list[str]:
    """The columns of numbers that a filter looks at."""
    asked = {
        "category": wanted.category,
        "day": wanted.first_day or wanted.last_day,
        "score": wanted.min_score if wanted.min_score is not None else wanted.max_score,
        "p_value": wanted.min_p if wanted.min_p is not None else wanted.max_p,
    }
    return [name for name, value in asked.items() if value is not None]


def _days(day: date | None) -> int | None:
    return None if day is None else (day - _EPOCH).days
