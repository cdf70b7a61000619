"""Days put together to weeks, months or years, so that a figure over time has a bounded number of points."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

MOST = 100  # points of a figure
Days = NDArray[np.datetime64]


def _weeks(days: Days) -> Days:
    number = days.astype(np.int64)
    return (number - (number + 3) % 7).astype("datetime64[D]")  # to Monday: day 0 was a Thursday


_STARTS: dict[str, Callable[[Days], Days]] = {
    "day": lambda days: days,
    "week": _weeks,
    "month": lambda days: days.astype("datetime64[M]").astype("datetime64[D]"),
    "year": lambda days: days.astype("datetime64[Y]").astype("datetime64[D]"),
}


class Periods:
    """The shortest periods of which all these days make at most `MOST` (years may be more).

    Attributes:
        unit: day, week, month or year.
        starts: (P,) the first day of each period that has any of the days, ascending.
    """

    def __init__(self, days: Iterable[str]) -> None:
        """Of days in ISO form; one at least."""
        known = np.unique(np.array(list(days), "datetime64[D]"))
        for unit, start in _STARTS.items():
            self.unit, self.starts, self._start = unit, np.unique(start(known)), start
            if len(self.starts) <= MOST:
                break
        self._of_day = dict(zip(known.astype(str).tolist(), self._numbers(known).tolist(), strict=True))

    def number(self, day: str) -> int:
        """Which period one of the days belongs to."""
        return self._of_day[day]

    def numbers(self, days: pa.ChunkedArray) -> NDArray[np.int64]:
        """(N,) the same of a column of dates; -1 where there is none."""
        known = pc.fill_null(days.cast(pa.int32()), 0).to_numpy().astype("datetime64[D]")
        found = self._numbers(known)
        found[days.is_null().to_numpy()] = -1
        return found

    def label(self, number: int) -> str:
        """A period as it is called: a day in ISO form, `2026-05` for a month."""
        start = str(self.starts[number])
        return {"day": start, "week": f"week of {start}", "month": start[:7], "year": start[:4]}[self.unit]

    def _numbers(self, days: Days) -> NDArray[np.int64]:
        return np.searchsorted(self.starts, self._start(days)).astype(np.int64)
