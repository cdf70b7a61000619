"""Verdicts as a table of the user's: CSV, Parquet or JSON lines with `uri`, `verdict`, and `region`, `note`, `when`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from raydiff.errors import DataError
from raydiff.images.tables import formats
from raydiff.images.tables.columns import plain
from raydiff.images.tables.files import TableFile, row_name
from raydiff.images.tables.json_lines import JsonLines
from raydiff.verdicts.said import Said, region, text, time
from raydiff.verdicts.words import Words

NEEDED = ("uri", "verdict")
OPTIONAL = ("region", "note", "when")


def read(uri: str, words: Words) -> Iterator[Said]:
    """The verdicts of a table, row by row.

    Raises:
        DataError: if it is no table that is read, or has no such columns.
        StorageError: if it is missing or cannot be fetched.
    """
    file = formats.opened(uri)
    names: dict[str, str] = {}
    for name in file.schema.names:
        if plain(name) in (*NEEDED, *OPTIONAL) and names.setdefault(plain(name), name) != name:
            raise DataError(
                f"{uri}: columns {names[plain(name)]!r} and {name!r} are both {plain(name)!r}; take one out"
            )
    for name in NEEDED:
        if name not in names:
            found = ", ".join(file.schema.names[:20])
            raise DataError(f"{uri}: column {name!r} is missing; verdicts need {' and '.join(NEEDED)}; found: {found}")
    for where, row in _rows(file, list(names.values())):
        yield _said(where, {name: row.get(theirs) for name, theirs in names.items()}, words)


def _rows(file: TableFile, names: list[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    if isinstance(file, JsonLines):  # as objects: a region may be a list, which no column of theirs is
        for number, line, found in file.objects():
            yield row_name(number, line), found
        return
    for batch in file.batches(names):
        for place, row in enumerate(batch.columns.to_pylist()):
            yield batch.row(place), row


def _said(where: str, row: dict[str, Any], words: Words) -> Said:
    uri, word = text(row["uri"]), text(row["verdict"])
    said = Said(where, (uri,) if uri else (), words.of_cell(word) if word else None, note=text(row.get("note")))
    if not said.verdict:
        return said._replace(
            fault=f"verdict {word!r} is no word for normal, defect or unsure" if word else "no verdict"
        )
    try:
        said = said._replace(region=region(row.get("region")))
    except (ValueError, TypeError):
        return said._replace(fault="the region is not x0,y0,x1,y1 with x0 < x1 and y0 < y1")
    try:
        return said._replace(when=time(row.get("when")))
    except ValueError:
        return said._replace(fault="the time is not as 2026-05-07T10:15:00+02:00")
