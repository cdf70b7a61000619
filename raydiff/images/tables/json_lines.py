"""A user's table as JSON lines: one object a line."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

import pyarrow as pa

from raydiff import storage
from raydiff.errors import DataError
from raydiff.images.tables.files import BATCH, Batch, TextFile, row_name

MOST_COLUMNS = 1000
_WHOLE = range(-(2**63), 2**63)


class JsonLines(TextFile):
    """See `files.TableFile`.

    Lines need not have the same keys. A column's type is what all its values have in common: true and false, whole
    numbers, numbers, and else text; so the file is read once before its first batch.
    """

    def __init__(self, uri: str) -> None:
        super().__init__(uri)
        kinds: defaultdict[str, set[str]] = defaultdict(set)
        for _, _, found in self.objects():
            for name, value in found.items():
                kinds[name].add(_kind(value))
            if len(kinds) > MOST_COLUMNS:
                raise DataError(f"{uri} has more than {MOST_COLUMNS} columns; give one object an image")
        self.schema: pa.Schema = pa.schema([(name, _type(found)) for name, found in kinds.items()])

    def batches(self, names: Sequence[str]) -> Iterator[Batch]:
        """As of `files.TableFile`."""
        fields = [self.schema.field(name) for name in names]
        objects = self.objects()
        while some := list(islice(objects, BATCH)):
            columns = [_column([found.get(field.name) for *_, found in some], field.type) for field in fields]
            yield Batch(pa.table(columns, schema=pa.schema(fields)), some[0][0] - 1, [line for _, line, _ in some])

    def said(self) -> list[str]:
        """As of `files.TableFile`."""
        return ["JSON lines", *super().said()] if "json" not in storage.name(self.uri).lower() else super().said()

    def objects(self) -> Iterator[tuple[int, int, dict[str, Any]]]:
        """Each row, its line and the object there, as they lie in the file; DataError names one that is none."""
        row = 0
        with self.lines() as lines:
            for number, line in enumerate(lines, 1):
                if not line.strip():
                    continue
                row += 1
                try:
                    found = json.loads(line)
                    if "\\u" in line:  # half a character, which no other format holds
                        json.dumps(found, ensure_ascii=False).encode()
                except (ValueError, RecursionError) as error:
                    found = error
                if not isinstance(found, dict):
                    raise DataError(
                        f"{self.uri}: {row_name(row, number)} is not a JSON object; write one a line, as in "
                        '{"uri": "a.png", "label": 0}'
                    )
                yield row, number, found


def _kind(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int):
        return "int" if value in _WHOLE else "text"
    return {float: "float", str: "text"}.get(type(value), "nested")


def _type(kinds: set[str]) -> pa.DataType:
    kinds = kinds - {"null"}
    if "nested" in kinds:
        return pa.list_(pa.null())  # left out, or refused, by those who know the column's name
    if kinds == {"bool"}:
        return pa.bool_()
    if kinds == {"int"}:
        return pa.int64()
    return pa.float64() if kinds and kinds <= {"int", "float"} else pa.string()


def _column(values: list[Any], kind: pa.DataType) -> pa.Array:
    if pa.types.is_nested(kind):
        return pa.nulls(len(values), kind)
    return pa.array([_value(value, kind) for value in values], kind)


def _value(value: Any, kind: pa.DataType) -> Any:
    if kind == pa.string() and value is not None and not isinstance(value, str):
        return json.dumps(value)
    return float(value) if kind == pa.float64() and isinstance(value, int) else value
