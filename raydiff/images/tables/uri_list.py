"""A list of images: a text file with one URI a line and no header."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice

import pyarrow as pa

from raydiff.images.names import IMAGE_EXTENSIONS
from raydiff.images.pages import file_of
from raydiff.images.tables.files import BATCH, Batch, TextFile, as_text

SEPARATORS = (",", ";", "\t", "|")


def is_list(uri: str) -> bool:
    """Whether a file is one: a .txt whose first line names an image and has no separator in it."""
    if not uri.lower().removesuffix(".gz").endswith(".txt"):
        return False
    with TextFile(uri).lines() as lines:
        first = next((line.strip() for line in lines if _counts(line)), "")
    return file_of(first).lower().endswith(IMAGE_EXTENSIONS) and not any(mark in first for mark in SEPARATORS)


class UriList(TextFile):
    """See `files.TableFile`. Empty lines and those that begin with # are passed over."""

    schema = pa.schema([("uri", pa.string())])

    def batches(self, names: Sequence[str]) -> Iterator[Batch]:
        """As of `files.TableFile`."""
        first = 0
        with self.lines() as lines:
            numbered = ((number, line) for number, line in enumerate(lines, 1) if _counts(line))
            while some := list(islice(numbered, BATCH)):
                yield Batch(pa.table({"uri": as_text([line for _, line in some])}), first, [at for at, _ in some])
                first += len(some)

    def said(self) -> list[str]:
        """As of `files.TableFile`."""
        return ["a list of one URI a line", *super().said()]


def _counts(line: str) -> bool:
    line = line.strip()
    return bool(line) and not line.startswith("#")
