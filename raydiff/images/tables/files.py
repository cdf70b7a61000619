"""What every format of a user's table is to its reader: named columns that are read a batch of rows at a time."""

from __future__ import annotations

import contextlib
import gzip
from collections.abc import Iterator, Sequence
from typing import IO, NamedTuple, Protocol, cast

import pyarrow as pa
import pyarrow.compute as pc

from raydiff import storage
from raydiff.images.tables import text
from raydiff.storage.errors import explained

BATCH = 16_384  # rows read at a time


class Batch(NamedTuple):
    """Some rows as they lie in the file; in those of text no spaces are around a cell, and an empty one is null."""

    columns: pa.Table
    first: int  # rows before these
    lines: Sequence[int] | None  # where each lies in a file of text

    def row(self, index: int) -> str:
        """What a user calls a row."""
        return row_name(self.first + index + 1, self.lines[index] if self.lines else None)


class TableFile(Protocol):
    """A table that can be read, more than once."""

    @property
    def schema(self) -> pa.Schema:
        """Its columns."""

    def batches(self, names: Sequence[str]) -> Iterator[Batch]:
        """Some of the columns, from the first row on; no batch is empty.

        Raises:
            DataError: if a row cannot be read, naming it.
        """

    def said(self) -> list[str]:
        """How it was read where that was not plain; complete once it has been read to its end."""


class TextFile:
    """What the formats in text share."""

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self.encoding = "UTF-8"

    @contextlib.contextmanager
    def lines(self) -> Iterator[Iterator[str]]:
        """The file's lines with their ends. What its encoding is may be known at its end only."""
        with content(self.uri) as file:
            decoded, found = text.lines(file, self.uri)
            try:
                yield found
            finally:
                self.encoding = decoded.encoding

    def said(self) -> list[str]:
        """As of `TableFile`."""
        if self.encoding == "UTF-8":
            return []
        why = ", because it is not UTF-8" if self.encoding == text.WINDOWS else ""
        return [f"encoding {self.encoding}{why}"]


@contextlib.contextmanager
def content(uri: str) -> Iterator[IO[bytes]]:
    """A file's bytes, unpacked if they are gzip's.

    Raises:
        StorageError: if it is missing or cannot be fetched.
    """
    fs, path = storage.filesystem(uri)
    with explained(uri, fs), fs.open(path, "rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
        file.seek(0)
        yield cast(IO[bytes], gzip.GzipFile(fileobj=file) if packed else file)


def row_name(row: int, line: int | None) -> str:
    """A row, the first below the header being row 1, and its line in a file of text."""
    return f"row {row}" if line is None else f"row {row} (line {line})"


def as_text(cells: Sequence[str | None]) -> pa.Array:
    """Cells of text as a column: no spaces around them, null where nothing is left."""
    column = pc.utf8_trim_whitespace(pa.array(cells, pa.string()))
    return pc.if_else(pc.equal(column, ""), None, column)
