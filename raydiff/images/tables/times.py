"""When images were taken, from a user's column `time`: the day of each, and the time of that day.

A date such as 05/07/2026 says by itself neither its day nor its month. Others in the same column may (31/12/2026), so
the column is read to its end once before such dates are taken, and then all in the same way.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Callable, Iterator
from math import isfinite

import pyarrow as pa
import pyarrow.compute as pc

from raydiff.errors import DataError
from raydiff.images import table
from raydiff.images.tables.files import Batch
from raydiff.images.tables.notes import Notes
from raydiff.images.tables.words import MISSING

_RULE = "must be a date or time, as 2026-05-07 or 2026-05-07T10:15:00, or seconds since 1970"
_HOUR, _MINUTE, _SECOND = r"(?:[01]?\d|2[0-4])", r"[0-5]\d", r"(?:[0-5]\d|60)(?:[.,:]\d+)?"
# Before or after noon, and the zone: Z, CEST, +02:00, [Europe/Berlin], (a name)
_NOON, _NAME = r"(?:\s*[AaPp]\.?\s?[Mm]\.?)?", r"[A-Za-z]{1,5}"
_ZONE = rf"{_NOON}(?:\s*{_NAME})?(?:\s*[+-]\d\d(?::?\d\d)?(?:\s+{_NAME})?)?(?:\s*\[[^\]]*\])?(?:\s*\([^)]*\))?\s*"
_CLOCK = rf"([^\s,])(?:T|\s+|,\s*){_HOUR}[:h.]{_MINUTE}(?:[:.m]{_SECOND})?{_ZONE}$"  # after the date
_ISO = rf"\d{{4}}-\d{{2}}-\d{{2}}(?:[T ]\s*{_HOUR}(?:[:h.]?{_MINUTE}(?:[:.m]?{_SECOND})?)?{_ZONE})?"
_YEAR_FIRST = re.compile(
    r"([12]\d{3})([-/.]?)(\d{2})\2(\d{2})(?:T?(?:[01]\d|2[0-4])[0-5]\d(?:[0-5]\d|60)?\s?[A-Za-z]{0,5})?"
)
_YEAR_LAST = re.compile(r"(\d{1,2})([-/.])(\d{1,2})\2(\d{4})")
# Of the day, in a cell whose day could be read.
_OF_DAY = re.compile(
    r"\s*(?:\d{4}([-/.]?)\d\d\1\d\d|\d{1,2}[-/.]\d{1,2}[-/.]\d{4})[T\s,]*"
    r"(\d{1,2})(?:[:h.]?(\d\d)(?:[:.m]?(\d\d)(?:[.,:](\d+))?)?)?(?:\s*([AaPp])\.?\s?[Mm]\b)?"
)
_NUMBER = re.compile(r"(\d{9,19})(?:[.,](\d+))?")
# Of a second. Each is told by its size: from mid 1998 to 2286 the numbers of no two meet.
_UNITS = {"seconds": 1, "milliseconds": 1_000, "microseconds": 1_000_000, "nanoseconds": 1_000_000_000}
_SINCE, _UNTIL = 9 * 10**8, 10**10
_EPOCH = datetime.date(1970, 1, 1)
_DAY = 86_400
_MICROSECONDS = 10**6


class Times:
    """The days, and the times of these days, of a column of times.

    Args:
        name: the column.
        batches: reads the column from its first row on.
        where: the table, for messages.
    """

    def __init__(self, name: str, batches: Callable[[], Iterator[Batch]], where: str, notes: Notes) -> None:
        self.name, self.where, self.notes = name, where, notes
        self._batches = batches
        self._day_first: bool | None = None  # not asked yet

    def days(self, batch: Batch) -> pa.Array:
        """Of some rows, date32; null where there is none.

        Raises:
            DataError: naming the row of a value that is no time, or that may be one of two days.
        """
        column = batch.columns[self.name].combine_chunks()
        if pa.types.is_dictionary(column.type):
            column = column.dictionary_decode()
        if pa.types.is_date(column.type):
            return column.cast(pa.date32())
        if pa.types.is_timestamp(column.type):  # the day where it was taken, if it has a zone
            return pc.utf8_slice_codeunits(column.cast(pa.string()), 0, 10).cast(pa.date32())
        if pa.types.is_null(column.type):
            return pa.nulls(len(column), pa.date32())
        if not (table.is_text(column.type) or pa.types.is_integer(column.type) or pa.types.is_floating(column.type)):
            raise DataError(f"{self.where}: column {self.name!r} holds {column.type}; each value {_RULE}")
        if table.is_text(column.type) and pc.all(pc.match_substring_regex(column, f"^{_ISO}$")).as_py():
            try:
                return pc.utf8_slice_codeunits(column.cast(pa.string()), 0, 10).cast(pa.date32())
            except pa.ArrowException:  # no such day: found by its row below
                pass
        dates = _dates(column)
        days = []
        for code, value in enumerate(dates.dictionary.to_pylist()):
            try:
                days.append(self._read(value))
            except ValueError:
                row = pc.index(dates.indices, code).as_py()
                raise DataError(f"{self._at(batch, row)}: {column[row].as_py()!r} {_RULE}") from None
        return pa.array(days, pa.date32()).take(dates.indices)

    def taken(self, batch: Batch) -> pa.Array:
        """Of some rows, timestamp[us] by the clock where the image was taken, a date's midnight; null where none is.

        Raises:
            DataError: as `days`.
        """
        days = self.days(batch).cast(pa.timestamp("us"))
        column = batch.columns[self.name].combine_chunks()
        if pa.types.is_dictionary(column.type):
            column = column.dictionary_decode()
        if pa.types.is_date(column.type) or pa.types.is_null(column.type):
            return days
        if pa.types.is_timestamp(column.type):
            here = pc.local_timestamp(column) if column.type.tz else column
            return here.cast(pa.timestamp("us"), safe=False)
        cells = (f"{value:.6f}" if isinstance(value, float) else str(value) for value in column.to_pylist())
        return pc.add(days, pa.array(map(_of_day, cells), pa.int64()).cast(pa.duration("us")))

    def _read(self, value: str) -> datetime.date | None:
        text = value.strip()
        if text.lower() in MISSING:
            return None
        if match := _YEAR_FIRST.fullmatch(text):
            return datetime.date(int(match[1]), int(match[3]), int(match[4]))
        if match := _YEAR_LAST.fullmatch(text):
            first, second, year = int(match[1]), int(match[3]), int(match[4])
            if match[2] == "." or first == second:  # with dots, the day is first wherever it is written so
                return datetime.date(year, second, first)
            if self._day_first is None:
                self._day_first = self._settle()
            return datetime.date(year, second, first) if self._day_first else datetime.date(year, first, second)
        if match := _NUMBER.fullmatch(text):
            return self._of_number(int(match[1]))
        raise ValueError

    def _of_number(self, number: int) -> datetime.date:
        for unit, part in _UNITS.items():
            if _SINCE * part <= number < _UNTIL * part:
                self.notes.say(f"column {self.name!r}: {unit} since 1970, days in UTC")
                return _EPOCH + datetime.timedelta(days=number // part // _DAY)
        raise ValueError

    def _settle(self) -> bool:
        """Whether the day comes first in the dates of this column."""
        unclear = day_first = month_first = None
        for batch in self._batches():
            dates = _dates(batch.columns[self.name].combine_chunks())
            for code, value in enumerate(dates.dictionary.to_pylist()):
                match = _YEAR_LAST.fullmatch(value.strip())
                if not match or match[2] == "." or match[1] == match[3]:
                    continue
                text = f"{batch.row(pc.index(dates.indices, code).as_py())}: {match[0]!r}"
                if int(match[1]) > 12:
                    day_first = day_first or text
                elif int(match[3]) > 12:
                    month_first = month_first or text
                else:
                    unclear = unclear or text
        if day_first and month_first:
            raise DataError(
                f"{self.where}: column {self.name!r}, {day_first} has the day first and {month_first} the month; write "
                "dates as 2026-05-07"
            )
        if not (day_first or month_first):
            raise DataError(
                f"{self.where}: column {self.name!r}, {unclear} may be one of two days, and no other row tells which; "
                "write dates as 2026-05-07"
            )
        first, seen = ("day", day_first) if day_first else ("month", month_first)
        self.notes.say(f"column {self.name!r}: the {first} is first in its dates, as {seen} shows")
        return day_first is not None

    def _at(self, batch: Batch, row: int) -> str:
        return f"{self.where}: column {self.name!r}, {batch.row(row)}"


def _of_day(text: str) -> int:
    """Microseconds from midnight to the time in a cell whose day could be read; 0 where there is none."""
    if match := _NUMBER.fullmatch(text.strip()):
        number = int(match[1])
        for part in _UNITS.values():
            if _SINCE * part <= number < _UNTIL * part:
                below = int((match[2] or "").ljust(6, "0")[:6]) if part == 1 else 0
                return number * _MICROSECONDS // part % (_DAY * _MICROSECONDS) + below
    match = _OF_DAY.match(text)
    if not match:
        return 0
    hour, minute, second = (int(match[at] or 0) for at in (2, 3, 4))
    if match[6]:
        hour = hour % 12 + 12 * (match[6] in "Pp")
    return (hour * 3600 + minute * 60 + second) * _MICROSECONDS + int((match[5] or "").ljust(6, "0")[:6])


def _dates(column: pa.Array) -> pa.DictionaryArray:
    """A column's cells as text without the time of the day, each of them once."""
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if pa.types.is_floating(column.type):  # a whole number has no decimals, and nan is nothing
        whole = [str(int(value)) if isfinite(value) else None for value in column.to_pylist() if value is not None]
        column = pc.replace_with_mask(column.cast(pa.string()), column.is_valid(), pa.array(whole, pa.string()))
    return pc.replace_substring_regex(column.cast(pa.string()), _CLOCK, r"\1").dictionary_encode()
