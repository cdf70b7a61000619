"""Which format a user's table is in: what the file holds decides that, and not its name."""

from __future__ import annotations

import contextlib
import gzip
import re
import zlib

from raydiff import storage
from raydiff.errors import DataError
from raydiff.images.tables.files import TableFile, TextFile, content
from raydiff.images.tables.json_lines import JsonLines
from raydiff.images.tables.parquet import ParquetTable
from raydiff.images.tables.separated import Separated
from raydiff.images.tables.uri_list import UriList, is_list

_JSON = (".jsonl", ".ndjson", ".json")
_TEXT = (".csv", ".tsv", ".txt", *_JSON)
_OFFICE = (".xlsx", ".xls", ".ods")  # refused with a sentence
_EXTENSIONS = (*_TEXT, *(f"{ending}.gz" for ending in _TEXT), ".parquet", *_OFFICE)
# An array, and what pandas' to_json writes by itself: each column an object of its rows.
_ONE_JSON = re.compile(rb'(?:\xef\xbb\xbf)?\s*(?:\[|\{\s*"[^"]*"\s*:\s*\{\s*"0"\s*:)')
_OFFICE_BEGINS = (b"PK\x03\x04", b"\xd0\xcf\x11\xe0")


def has_tables_name(uri: str) -> bool:
    """Whether a name is that of a table, be it one that is refused."""
    return uri.lower().endswith(_EXTENSIONS)


def stem(uri: str) -> str:
    """A table's name without its extension."""
    name = storage.name(uri)
    ending = max((ending for ending in _EXTENSIONS if name.lower().endswith(ending)), key=len, default="")
    return name[: len(name) - len(ending)]


def opened(uri: str) -> TableFile:
    """The table at `uri`.

    Raises:
        DataError: if it is none that can be read.
        StorageError: if it is missing or cannot be fetched.
    """
    with content(uri) as file:
        head = file.read(4)
        beginning = head
        with contextlib.suppress(EOFError, zlib.error, gzip.BadGzipFile):  # said when it is read
            beginning += file.read(1024)
    if head == b"PAR1":
        return ParquetTable(uri)
    if uri.lower().endswith(_OFFICE) or head in _OFFICE_BEGINS:
        raise DataError(f"{uri} is an office program's file; save its sheet as CSV (UTF-8) and give that")
    if _ONE_JSON.match(beginning):
        raise DataError(
            f"{uri} is one JSON value and not a JSON object a line; pandas writes those with "
            'to_json(orient="records", lines=True)'
        )
    with TextFile(uri).lines() as lines:
        first = next((line.strip() for line in lines if line.strip()), "")
    if not first:
        raise DataError(f"{uri} is empty; give a header with a column 'uri' and one row for each image")
    if uri.lower().removesuffix(".gz").endswith(_JSON) or first[0] in "{[":
        return JsonLines(uri)
    return UriList(uri) if is_list(uri) else Separated(uri)
