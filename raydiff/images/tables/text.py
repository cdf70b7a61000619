"""The text of a table's file in whatever encoding it was saved, line by line and in bounded memory."""

from __future__ import annotations

import codecs
import gzip
import io
import re
import zlib
from collections.abc import Iterator
from typing import IO, Any

from raydiff.errors import DataError

CHUNK = 1 << 20  # bytes read at a time
LONGEST_LINE = 1_000_000  # characters, and a reading more; a file without line ends is not held whole

_MARKS = (  # of the byte orders, the longer ones first
    (codecs.BOM_UTF8, "utf-8-sig", "UTF-8"),
    (codecs.BOM_UTF32_LE, "utf-32", "UTF-32"),
    (codecs.BOM_UTF32_BE, "utf-32", "UTF-32"),
    (codecs.BOM_UTF16_LE, "utf-16", "UTF-16"),
    (codecs.BOM_UTF16_BE, "utf-16", "UTF-16"),
)
WINDOWS = "Windows-1252"
# Western text has a few accented letters in a row at most. Chinese or Cyrillic read as Windows-1252 has many.
_NOT_WESTERN = re.compile(r"[^\x00-\x7f]{4}")


def lines(file: IO[bytes], where: str) -> tuple[Utf8, Iterator[str]]:
    """What is known of the encoding so far, and the lines of `file` with their ends.

    Raises:
        DataError: while they are read, if this is no text, naming the line.
    """
    decoded = Utf8(file, where)
    return decoded, io.TextIOWrapper(io.BufferedReader(decoded, CHUNK), "utf-8", newline="")


class Utf8(io.RawIOBase):
    """A file's text as UTF-8.

    UTF-8, UTF-16 and UTF-32 are told by their first bytes; what begins as UTF-8 and turns out not to be, though all
    before was ASCII, is taken for Windows-1252, of which Latin-1's text is a part.
    """

    def __init__(self, file: IO[bytes], where: str) -> None:
        self._file, self._where = file, where
        self._ready = b""
        self._line = 1
        self._unended = 0  # characters of a line so far
        self._only_ascii = True
        self._ended = False
        head = self._read()
        codec, self.encoding = next(
            ((codec, name) for mark, codec, name in _MARKS if head.startswith(mark)), _without_mark(head)
        )
        self._decoder = codecs.getincrementaldecoder(codec)()
        self._decode(head)

    def readable(self) -> bool:
        """It is."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill `buffer`; see `io.RawIOBase`."""
        while not self._ready and not self._ended:
            self._decode(self._read())
        taken = self._ready[: len(buffer)]
        buffer[: len(taken)] = taken
        self._ready = self._ready[len(taken) :]
        return len(taken)

    def _read(self) -> bytes:
        try:
            return self._file.read(CHUNK)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise DataError(f"{self._where} cannot be unpacked ({error}); is it whole?") from None

    def _decode(self, data: bytes) -> None:
        self._ended = not data
        try:
            text = self._decoder.decode(data, self._ended)
        except UnicodeDecodeError as error:
            text = self._as_windows(error)
        if "\0" in text:
            line = self._line + text[: text.index("\0")].count("\n")
            raise DataError(f"{self._where}, line {line} holds a NUL byte; this is no table in text")
        if self.encoding == WINDOWS and (match := _NOT_WESTERN.search(text)):
            raise self._unknown(self._line + text[: match.start()].count("\n"))
        self._only_ascii = self._only_ascii and text.isascii()
        self._line += text.count("\n")
        end = max(text.rfind("\n"), text.rfind("\r"))
        self._unended = len(text) - end - 1 if end >= 0 else self._unended + len(text)
        if self._unended > LONGEST_LINE:
            raise DataError(
                f"{self._where}, line {self._line} is longer than {LONGEST_LINE:,} characters; this is no table"
            )
        self._ready = text.encode()

    def _as_windows(self, error: UnicodeDecodeError) -> str:
        line = self._line + error.object[: error.start].count(b"\n")
        if self.encoding != "UTF-8" or not (self._only_ascii and error.object[: error.start].isascii()):
            raise self._unknown(line) from None
        self._decoder = codecs.getincrementaldecoder("cp1252")()
        self.encoding = WINDOWS
        try:
            return self._decoder.decode(error.object, self._ended)
        except UnicodeDecodeError:
            raise self._unknown(line) from None

    def _unknown(self, line: int) -> DataError:
        return DataError(f"{self._where}, line {line} is not in {self.encoding} or is damaged; save the table as UTF-8")


def _without_mark(head: bytes) -> tuple[str, str]:
    """Codec and name; a table's header is ASCII, so that every other byte of UTF-16 is zero."""
    start = head[:64][: len(head[:64]) // 2 * 2]
    if start and not any(start[1::2]) and all(start[::2]):
        return "utf-16-le", "UTF-16"
    if start and not any(start[::2]) and all(start[1::2]):
        return "utf-16-be", "UTF-16"
    return "utf-8", "UTF-8"
