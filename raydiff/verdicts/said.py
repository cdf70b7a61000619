"""A verdict as a file says it, before it is known whether it can be taken."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

from raydiff.verdicts.table import is_region

Region = tuple[float, float, float, float]


class Said(NamedTuple):
    """One row of a file, or one label drawn in an image."""

    where: str  # what a user calls it: its row, or its image
    names: tuple[str, ...]  # of the image, the likeliest first; none: it is not named
    verdict: str | None
    region: Region | None = None
    note: str | None = None
    when: datetime | None = None  # None: as it is brought
    fault: str = ""  # why it cannot be taken


def text(value: Any) -> str | None:
    """A cell's text without spaces around it; None where nothing is left."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    return str(value).strip() or None


def number(value: Any) -> float:
    """A number of a cell.

    Raises:
        ValueError, TypeError: if it is none, or larger than a number in a table can be.
    """
    try:
        return float(value)
    except OverflowError:
        raise ValueError from None


def region(value: Any) -> Region | None:
    """A region of a cell: a list of four numbers, or text with commas, semicolons or spaces between; null: none.

    Raises:
        ValueError: if it is not x0, y0, x1, y1 with x0 < x1 and y0 < y1.
    """
    if isinstance(value, str) or value is None:
        parts: Sequence[Any] = (text(value) or "").strip("[]()").replace(",", " ").replace(";", " ").split()
        if not parts:
            return None
    elif isinstance(value, Sequence):
        parts = value
    else:
        raise ValueError
    x0, y0, x1, y1 = map(number, parts)
    if not is_region((x0, y0, x1, y1)):
        raise ValueError
    return x0, y0, x1, y1


def time(value: Any) -> datetime | None:
    """A time of a cell: ISO 8601 or a timestamp, in UTC where it says no zone; None where there is none.

    Raises:
        ValueError: if it is none.
    """
    found = text(value)
    if found is None:
        return None
    told = value.isoformat(timespec="microseconds") if isinstance(value, datetime) else found  # pandas' has nanoseconds
    when = datetime.fromisoformat(told)
    try:
        return when.astimezone(UTC) if when.tzinfo else when.replace(tzinfo=UTC)
    except OverflowError:  # before the year 1 in UTC, or after 9999
        raise ValueError from None
