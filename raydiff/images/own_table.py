"""A user's own table of images, CSV or Parquet, as an image table.

Only `uri` is required; relative uris start from the folder of the table. What is left out is filled in:

- `dataset` and `category`: the table's name without its extension;
- `split` without `label`: train is normal, test unknown; `label` without `split`: normals train, all others
  test; with neither, all images are normals to train on;
- `defect`: "good" for normals, else unknown; `mask_uri`: none.
"""

from __future__ import annotations

import posixpath

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from raydiff import storage
from raydiff.errors import DataError
from raydiff.images import table

_EXTENSIONS = (".csv", ".parquet")


def is_table(uri: str) -> bool:
    """Whether `uri` names a table and not a folder."""
    return uri.lower().endswith(_EXTENSIONS) and not storage.is_folder(uri)


def read(uri: str) -> pa.Table:
    """The image table that the user's table at `uri` (absolute) stands for.

    Raises:
        DataError: if it cannot be parsed, is empty or does not fit, naming the column and the row.
        StorageError: if it is missing or cannot be read.
    """
    given = table.cast(_parsed(uri), ["uri"], uri)
    if not len(given):
        raise DataError(f"{uri} has no rows; give one row for each image")
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
    return table.validate(pa.table([pa.array(columns[f.name], f.type) for f in table.SCHEMA], table.SCHEMA), uri)


def _parsed(uri: str) -> pa.Table:
    data = pa.BufferReader(storage.read_bytes(uri))
    try:
        if not uri.lower().endswith(".csv"):
            return pq.read_table(data)
        # All as text: a category "01" is not the number 1. An empty cell is no value.
        options = pyarrow.csv.ConvertOptions(
            column_types={name: pa.string() for name in table.SCHEMA.names},
            strings_can_be_null=True,
            null_values=[""],
        )
        return pyarrow.csv.read_csv(data, convert_options=options)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{uri} cannot be read as a table: {error}") from None


def _resolved(uri: str, folder: str) -> str:
    if uri.startswith("file://"):
        return storage.absolute(uri)
    if "://" in uri or uri.startswith("/"):
        return uri
    scheme, mark, path = folder.rpartition("://")
    return scheme + mark + posixpath.normpath(f"{path}/{uri}")
