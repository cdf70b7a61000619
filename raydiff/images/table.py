"""The image table: one row per image, sorted by uri."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from raydiff import storage
from raydiff.errors import DataError

SCHEMA = pa.schema(
    [
        ("uri", pa.string()),
        ("dataset", pa.string()),
        ("category", pa.string()),
        ("split", pa.string()),  # train or test
        ("label", pa.int8()),  # 0 normal, 1 anomalous, null unknown
        ("defect", pa.string()),  # "good" for normals, null unknown
        ("mask_uri", pa.string()),
    ]
)

ROW_GROUP = 1024  # rows; small groups let Ray Data read a table in parallel

_NEVER_EMPTY = ("uri", "dataset", "category", "split")
# Category and defect become folders of anomaly maps: no empty part, and none that leads elsewhere.
_NO_FOLDER = r"(^|/)\.{0,2}(/|$)"


def write(uri: str, images: pa.Table) -> None:
    """Write an image table as one Parquet file, whole or not at all.

    Raises:
        DataError: if `images` is not an image table.
    """
    sink = pa.BufferOutputStream()
    pq.write_table(validate(images, uri), sink, row_group_size=ROW_GROUP)
    storage.write_bytes(uri, sink.getvalue().to_pybytes())


def read(uri: str) -> pa.Table:
    """The image table in a Parquet file.

    Raises:
        DataError: if it is not one, naming the column and the row.
        StorageError: if the file is missing or cannot be read.
    """
    data = storage.read_bytes(uri)
    try:
        images = pq.read_table(pa.BufferReader(data))
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{uri} is not a Parquet file ({error}); write it with `raydiff index`") from None
    return validate(images, uri)


def validate(images: pa.Table, where: str) -> pa.Table:
    """`images` in SCHEMA, sorted by uri, each once; other Arrow types of text and numbers are converted.

    Raises:
        DataError: naming the column and the row (the first is row 1) that is wrong in the table at `where`.
    """
    images = checked(images, where)
    counts = images["uri"].value_counts()
    if len(counts) < len(images):
        twice = counts.filter(pc.greater(counts.field("counts"), 1)).field("values")
        bad = pc.is_in(images["uri"], value_set=twice)
        _refuse(images["uri"], "uri", bad, "must not appear twice", where)
    return images.sort_by("uri")


def checked(images: pa.Table, where: str) -> pa.Table:
    """`images` in SCHEMA, as they come: what can be said of each row alone.

    Raises:
        DataError: as `validate`.
    """
    images = cast(images, SCHEMA.names, where)
    for name in _NEVER_EMPTY:
        empty = pc.fill_null(pc.equal(images[name], ""), True)
        _refuse(images[name], name, empty, "must not be empty", where)
    for name in ("dataset", "category", "defect"):
        bad = pc.match_substring_regex(images[name], _NO_FOLDER)
        _refuse(images[name], name, bad, "cannot be the name of a folder", where)
    bad = _not_in(images["split"], ["train", "test"])
    _refuse(images["split"], "split", bad, "must be train or test", where)
    return images


def cast(images: pa.Table, required: Sequence[str], where: str) -> pa.Table:
    """The columns of `images` in the types and the order of SCHEMA.

    Raises:
        DataError: if a column is unknown, there twice, or required and missing, or does not hold its type.
    """
    found = images.column_names
    for name in found:
        if name not in SCHEMA.names:
            near = difflib.get_close_matches(name.lower(), SCHEMA.names, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known columns: {', '.join(SCHEMA.names)}"
            raise DataError(f"{where}: unknown column {name!r}; {hint}")
        if found.count(name) > 1:
            raise DataError(f"{where}: column {name!r} is there twice; take one out")
    for name in required:
        if name not in found:
            raise DataError(f"{where}: column {name!r} is missing; found: {', '.join(found) or 'none'}")
    fields = [field for field in SCHEMA if field.name in found]
    return pa.table([_column(images[field.name], field, where) for field in fields], schema=pa.schema(fields))


def _column(column: pa.ChunkedArray, field: pa.Field, where: str) -> pa.ChunkedArray:
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    text = pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    number = pa.types.is_integer(kind) or pa.types.is_floating(kind)
    if not (text or pa.types.is_null(kind) or (number and field.name == "label")):
        raise DataError(f"{where}: column {field.name!r} holds {column.type}; it must hold {field.type}")
    if field.name == "label":  # looked at before the cast, which would not say in which row it failed
        if text:
            bad = _not_in(column.cast(pa.string()), ["0", "1", "0.0", "1.0"])
            _refuse(column, "label", bad, "must be 0, 1 or null", where)
            column = column.cast(pa.string())
        column = column.cast(pa.float64(), safe=False)
        _refuse(column, "label", _not_in(column, [0.0, 1.0]), "must be 0, 1 or null", where)
    return column.cast(field.type)


def _not_in(column: pa.ChunkedArray, allowed: list[str] | list[float]) -> pa.ChunkedArray:
    return pc.and_(pc.is_valid(column), pc.invert(pc.is_in(column, value_set=pa.array(allowed, column.type))))


def _refuse(column: pa.ChunkedArray, name: str, bad: pa.ChunkedArray, rule: str, where: str) -> None:
    row = pc.index(pc.fill_null(bad, False), True).as_py()
    if row >= 0:
        raise DataError(f"{where}: column {name!r}, row {row + 1}: {column[row].as_py()!r} {rule}")
