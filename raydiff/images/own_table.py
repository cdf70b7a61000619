"""A user's own table of images, CSV or Parquet, as an image table.

Only `uri` is required; relative uris start from the folder of the table. What is left out is filled in:

- `dataset` and `category`: the table's name without its extension;
- `split` without `label`: train is normal, test unknown; `label` without `split`: normals train, all others
  test; with neither, all images are normals to train on;
- `defect`: "good" for normals, else unknown; `mask_uri`: none.

A column `time` (date, timestamp or ISO text) says when an image was taken, for the summary of an archive.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from raydiff import storage
from raydiff.errors import DataError, StorageError
from raydiff.images import table

_EXTENSIONS = (".csv", ".parquet")
_TIME = "time"
_BATCH = 65_536  # rows read at a time


def is_table(uri: str) -> bool:
    """Whether `uri` names a table and not a folder."""
    return uri.lower().endswith(_EXTENSIONS) and not storage.is_folder(uri)


def read(uri: str) -> pa.Table:
    """The image table that the user's table at `uri` (absolute) stands for.

    Raises:
        DataError: if it cannot be parsed, is empty or does not fit, naming the column and the row.
        StorageError: if it is missing or cannot be read.
    """
    found = pa.concat_tables([batch.drop_columns("day") for batch in read_batches(uri)])
    return table.validate(found, uri)


def read_batches(uri: str) -> Iterator[pa.Table]:
    """As `read`, but a batch of rows at a time, in the table's order, with a column `day` (date32, null unknown).

    An image that is named again is left to the reader.
    """
    rows = 0
    for parsed in _parsed(uri):
        where = f"{uri}, after row {rows}" if rows else uri
        days = _days(parsed, where)
        given = parsed.drop_columns(_TIME) if _TIME in parsed.column_names else parsed
        yield table.checked(_filled(table.cast(given, ["uri"], where), uri), where).append_column("day", days)
        rows += len(parsed)
    if not rows:
        raise DataError(f"{uri} has no rows; give one row for each image")


def _filled(given: pa.Table, uri: str) -> pa.Table:
    """All columns of an image table, those that are missing made from the others."""
    columns = {name: given[name].to_pylist() for name in given.column_names}
    count = len(given)
    stem = storage.name(uri).rpartition(".")[0]
    columns.setdefault("dataset", [stem] * count)
    columns.setdefault("category", [stem] * count)
    if "label" not in columns:
        splits = columns.get("split", ["train"] * count)
        columns["label"] = [0 if split == "train" else None for split in splits]
    columns.setdefault("split", ["train" if label == 0 else "test" for label in columns["label"]])
    columns.setdefault("defect", ["good" if label == 0 else None for label in columns["label"]])
    columns.setdefault("mask_uri", [None] * count)
    folder = uri.rpartition("/")[0]
    for name in ("uri", "mask_uri"):
        columns[name] = [_resolved(value, folder) if value else value for value in columns[name]]
    return pa.table([pa.array(columns[field.name], field.type) for field in table.SCHEMA], table.SCHEMA)


def _days(parsed: pa.Table, where: str) -> pa.Array:
    """The days of a table's times."""
    if _TIME not in parsed.column_names:
        return pa.nulls(len(parsed), pa.date32())
    times = parsed[_TIME].combine_chunks()
    try:
        # ISO text may have a time, a zone and fractions; its day is its first ten letters.
        return pc.utf8_slice_codeunits(times.cast(pa.string()), 0, 10).cast(pa.date32())
    except pa.ArrowException as error:
        raise DataError(
            f"{where}: column 'time' must hold dates or times as in 2026-05-07T10:15:00 ({error})"
        ) from None


def _parsed(uri: str) -> Iterator[pa.Table]:
    if not storage.exists(uri):
        raise StorageError(f"{uri} is not there; check the bucket, the folder and the name")
    fs, path = storage.arrow_filesystem(uri)
    try:
        if not uri.lower().endswith(".csv"):
            with pq.ParquetFile(path, filesystem=fs) as file:
                for batch in file.iter_batches(_BATCH):
                    yield pa.Table.from_batches([batch])
            return
        # All as text: a category "01" is not the number 1. An empty cell is no value.
        options = pyarrow.csv.ConvertOptions(
            column_types={name: pa.string() for name in (*table.SCHEMA.names, _TIME)},
            strings_can_be_null=True,
            null_values=[""],
        )
        with fs.open_input_stream(path) as stream, pyarrow.csv.open_csv(stream, convert_options=options) as reader:
            for batch in reader:
                yield pa.Table.from_batches([batch])
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{uri} cannot be read as a table: {error}") from None


def _resolved(uri: str, folder: str) -> str:
    if uri.startswith("file://"):
        return storage.absolute(uri)
    if "://" in uri or uri.startswith("/"):
        return uri
    scheme, mark, path = folder.rpartition("://")
    return scheme + mark + posixpath.normpath(f"{path}/{uri}")
