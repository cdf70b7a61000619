"""The image table: one row per image, sorted by uri.

Behind the columns of SCHEMA, and `day` in an archive's, stand `roi_uri`, `bit_depth`, `part` and `time` where they are
known, and those that a user's own table has beyond them. They are carried into the score table as they are.
"""

from __future__ import annotations

from collections.abc import Callable

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

DAY = "day"  # when an image was taken, date32; in the image table of an archive
ROI = "roi_uri"  # of a mask that says where to look at an image: white; null everywhere, or where its model does
BIT_DEPTH = "bit_depth"  # of the camera, 10, 12 or 14, for what it keeps in 16-bit files; null where its model says it
PART = "part"  # which physical part an image shows, within its category; text, null unknown
TIME = "time"  # when an image was taken, timestamp[us] by its own clock, null unknown; in a table to train on
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

    Further columns stay as they are, behind those of SCHEMA.

    Raises:
        DataError: naming the column and the row (the first is row 1) that is wrong in the table at `where`.
    """
    images = checked(images, where)
    counts = images["uri"].value_counts()
    if len(counts) < len(images):
        twice = counts.filter(pc.greater(counts.field("counts"), 1)).field("values")
        bad = pc.is_in(images["uri"], value_set=twice)
        _refuse(images["uri"], "uri", bad, "must not appear twice", where, row_number)
    return images.sort_by("uri")


def is_text(kind: pa.DataType) -> bool:
    """Whether a column of that type holds text."""
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def row_number(index: int) -> str:
    """A row as messages name it."""
    return f"row {index + 1}"


def checked(images: pa.Table, where: str, row: Callable[[int], str] = row_number) -> pa.Table:
    """`images` in SCHEMA, as they come: what can be said of each row alone.

    Args:
        row: what a row is called, by its index.

    Raises:
        DataError: as `validate`.
    """
    images = _cast(images, where, row)
    for name in _NEVER_EMPTY:
        empty = pc.fill_null(pc.equal(images[name], ""), True)
        _refuse(images[name], name, empty, "must not be empty", where, row)
    for name in ("dataset", "category", "defect"):
        bad = pc.match_substring_regex(images[name], _NO_FOLDER)
        _refuse(images[name], name, bad, "cannot be the name of a folder", where, row)
    bad = _not_in(images["split"], ["train", "test"])
    _refuse(images["split"], "split", bad, "must be train or test", where, row)
    return images


def extra(images: pa.Table | pa.Schema) -> list[pa.Field]:
    """The columns beyond those of SCHEMA and `day`, which are carried along."""
    schema = images.schema if isinstance(images, pa.Table) else images
    return [field for field in schema if field.name not in (*SCHEMA.names, DAY)]


def _cast(images: pa.Table, where: str, row: Callable[[int], str]) -> pa.Table:
    """The columns of `images` in the types and the order of SCHEMA, then the others."""
    found = images.column_names
    for name in found:
        if found.count(name) > 1:
            raise DataError(f"{where}: column {name!r} is there twice; take one out")
    for name in SCHEMA.names:
        if name not in found:
            raise DataError(f"{where}: column {name!r} is missing; found: {', '.join(found) or 'none'}")
    others = extra(images)
    columns = [_column(images[field.name], field, where, row) for field in SCHEMA]
    columns += [images[field.name] for field in others]
    return pa.table(columns, schema=pa.schema([*SCHEMA, *others]))


def _column(column: pa.ChunkedArray, field: pa.Field, where: str, row: Callable[[int], str]) -> pa.ChunkedArray:
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    text = is_text(kind)
    number = pa.types.is_integer(kind) or pa.types.is_floating(kind)
    if not (text or pa.types.is_null(kind) or (number and field.name == "label")):
        raise DataError(f"{where}: column {field.name!r} holds {column.type}; it must hold {field.type}")
    if field.name == "label":  # looked at before the cast, which would not say in which row it failed
        if text:
            bad = _not_in(column.cast(pa.string()), ["0", "1", "0.0", "1.0"])
            _refuse(column, "label", bad, "must be 0, 1 or null", where, row)
            column = column.cast(pa.string())
        column = column.cast(pa.float64(), safe=False)
        _refuse(column, "label", _not_in(column, [0.0, 1.0]), "must be 0, 1 or null", where, row)
    return column.cast(field.type)


def _not_in(column: pa.ChunkedArray, allowed: list[str] | list[float]) -> pa.ChunkedArray:
    return pc.and_(pc.is_valid(column), pc.invert(pc.is_in(column, value_set=pa.array(allowed, column.type))))


def _refuse(
    column: pa.ChunkedArray, name: str, bad: pa.ChunkedArray, rule: str, where: str, row: Callable[[int], str]
) -> None:
    index = pc.index(pc.fill_null(bad, False), True).as_py()
    if index >= 0:
        raise DataError(f"{where}: column {name!r}, {row(index)}: {column[index].as_py()!r} {rule}")
