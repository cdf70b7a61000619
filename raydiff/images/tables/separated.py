"""A user's table as text with separators between its cells: CSV as its many writers have it.

Not pyarrow's reader: it knows no line numbers, and nothing of spaces before a quote.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Sequence
from itertools import chain, islice
from typing import Any

import pyarrow as pa

from raydiff.errors import DataError
from raydiff.images.tables.files import BATCH, Batch, TextFile, as_text, row_name
from raydiff.images.tables.uri_list import SEPARATORS

_SEP = re.compile(r'"?sep=(.)"?\s*', re.IGNORECASE)  # Excel's first line
_ROWS_BELOW = 20  # that are looked at, where the first has not as many cells as the header
_NAMES = {"\t": "tab"}


class Separated(TextFile):
    """See `files.TableFile`. All columns are text; rows without anything in them are passed over."""

    def __init__(self, uri: str) -> None:
        super().__init__(uri)
        with self.lines() as lines:
            first = next(line for line in lines if line.strip())
            told = _SEP.fullmatch(first.strip("\r\n"))
            header = next((line for line in lines if line.strip()), "") if told else first
            self.separator = told[1] if told else _separator(header)
            self._told = False
            _, names = next(self._records(chain([header], lines)), (1, []))  # a name may go over several lines
        self.names = [name.strip() for name in names]
        self._told = bool(told)
        self.schema: pa.Schema = pa.schema([(name, pa.string()) for name in self.names])

    def batches(self, names: Sequence[str]) -> Iterator[Batch]:
        """As of `files.TableFile`."""
        wanted = [self.names.index(name) for name in names]
        first = 0
        with self.lines() as lines:
            records = self._records(lines)
            next(records)
            while True:
                rows: list[list[str]] = []
                at: list[int] = []
                for line, cells in records:
                    if len(cells) != len(self.names):
                        row = first + len(rows) + 1
                        raise DataError(
                            f"{self.uri}: {row_name(row, line)} has {len(cells)} cells, the header {len(self.names)}; "
                            f"{self._remedy(row, cells, records)}"
                        )
                    rows.append(cells)
                    at.append(line)
                    if len(rows) == BATCH:
                        break
                if not rows:
                    return
                columns = list(zip(*rows, strict=True))
                found = [as_text(columns[place]) for place in wanted]
                yield Batch(pa.table(found, names=list(names)), first, at)
                first += len(rows)

    def said(self) -> list[str]:
        """As of `files.TableFile`."""
        return [*([] if self.separator == "," else [f"separator {self._separator_name()}"]), *super().said()]

    def _remedy(self, row: int, cells: list[str], records: Iterator[tuple[int, list[str]]]) -> str:
        """What to do about a row that has not as many cells as the header."""
        one_more = len(self.names) + 1
        if len(cells) == one_more and not cells[-1]:
            return f"take the {self._separator_name()} off the row's end"
        below = [len(more) for _, more in islice(records, _ROWS_BELOW)] if row == 1 else []
        if len(cells) == one_more and below and set(below) == {one_more}:
            return "so have the rows below it; name all columns in the header (R: write.table with row.names=FALSE)"
        return f"put quotes around a cell that holds a {self._separator_name()}"

    def _separator_name(self) -> str:
        return _NAMES.get(self.separator, repr(self.separator))

    def _reader(self, lines: Iterator[str]) -> Any:
        return csv.reader(lines, delimiter=self.separator, skipinitialspace=True, strict=True)

    def _records(self, lines: Iterator[str]) -> Iterator[tuple[int, list[str]]]:
        """The header and the rows below it, with the line that each begins at."""
        last = [""]
        kept = _keeping(lines, last)
        before = 0
        if self._told:
            before = next(number for number, line in enumerate(kept, 1) if line.strip())
        reader = self._reader(kept)
        while True:
            begins = reader.line_num + 1
            try:
                cells = next(reader, None)
            except csv.Error as error:
                cells = self._without_spaces(last[0]) if reader.line_num == begins else None
                if cells is None:
                    raise DataError(
                        f"{self.uri}, line {before + begins} cannot be read ({error}); a quote must be closed, and one "
                        "within a cell is written twice"
                    ) from None
            if cells is None:
                return
            if any(cells):
                yield before + begins, cells

    def _without_spaces(self, line: str) -> list[str] | None:
        """The cells of a line that may have spaces between a closing quote and a separator."""
        line = re.sub(rf'"[ \t]+(?={re.escape(self.separator)}|[\r\n]|$)', '"', line)
        try:
            return next(self._reader(iter([line])), None)
        except csv.Error:
            return None


def _keeping(lines: Iterator[str], last: list[str]) -> Iterator[str]:
    """The lines, the last of them kept."""
    for line in lines:
        last[0] = line
        yield line


def _separator(header: str) -> str:
    """The separator that makes a column uri of the header, or else the most columns."""

    def cells(mark: str) -> list[str]:
        found = next(csv.reader([header], delimiter=mark, skipinitialspace=True), [])
        return [cell.strip().lower() for cell in found]

    return max(SEPARATORS, key=lambda mark: ("uri" in cells(mark), len(cells(mark))))
