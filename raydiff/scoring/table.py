"""The score table: one row per input image, bad ones too.

Behind the columns of SCHEMA stand those that a user's own table has beyond the image table's, as they were there.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

import pyarrow as pa
import pyarrow.parquet as pq

from raydiff import storage
from raydiff.errors import DataError
from raydiff.storage.patience import patiently

SCHEMA = pa.schema(
    [
        ("uri", pa.string()),
        ("dataset", pa.string()),
        ("category", pa.string()),
        ("split", pa.string()),
        ("label", pa.int8()),  # 0 normal, 1 anomalous, null unknown
        ("defect", pa.string()),
        ("mask_uri", pa.string()),
        (
            "category_guessed",
            pa.string(),
        ),  # by the model, where it does not know `category`; its threshold applied
        ("day", pa.date32()),  # when the image was taken, where its path or its table says so
        ("height", pa.int32()),  # of the image as it lies in the archive, null if unreadable
        ("width", pa.int32()),
        ("content_hash", pa.string()),  # SHA-256 of the file's bytes
        ("score", pa.float64()),  # higher = more anomalous, null where there is an error
        ("p_value", pa.float64()),  # conformal, null without a calibration
        ("threshold", pa.float64()),  # the alarm threshold that applied to this image's category
        ("is_anomalous", pa.bool_()),
        ("details", pa.map_(pa.string(), pa.float64())),  # what else the method tells of the image, by name
        ("map_uri", pa.string()),  # the anomaly map, if one was written
        ("method", pa.string()),
        ("model_id", pa.string()),
        ("error", pa.string()),  # why the image could not be scored, null otherwise
        ("note", pa.string()),  # what is odd about a file that was read all the same, null otherwise
    ]
)


TABLE = "score_table"  # its own folder, with nothing else in it, so that any Parquet reader takes it whole
RUN = "run.json"  # beside it: which model's scores of which images these are, and how they are made
MANIFEST = "manifest.json"  # beside it: which shards of the images are finished
SUMMARY = "summary.json"  # beside it: what an archive's scores say as a whole (see `summary`)


def part_uri(scores_uri: str, name: str) -> str:
    """Where the part of a score table lies that holds the images of one shard of the image table."""
    return storage.join(scores_uri, TABLE, f"part-{name}.parquet")


def part_names(scores_uri: str) -> list[str]:
    """Names of the finished parts, in order; none where there is no score table yet."""
    folder = storage.join(scores_uri, TABLE)
    found = storage.list_files(folder) if storage.exists(folder) else ()
    return [part_name(uri) for uri in found if re.fullmatch(r"part-.*\.parquet", storage.name(uri))]


def part_name(uri: str) -> str:
    """The shard of the image table whose images a part holds, by the part's URI."""
    return storage.name(uri).removeprefix("part-").removesuffix(".parquet")


def parts(scores_uri: str) -> list[str]:
    """The finished parts of a score table.

    Raises:
        DataError: if there are none.
    """
    names = part_names(scores_uri)
    if not names:
        raise DataError(f"{scores_uri} holds no {TABLE}/part-*.parquet; run `raydiff score` into it first")
    return [part_uri(scores_uri, name) for name in names]


def says_complete(scores_uri: str) -> bool:
    """Whether the manifest beside a score table says that all images are in it."""
    place = storage.join(scores_uri, MANIFEST)
    return storage.exists(place) and bool(storage.read_json(place)["complete"])


def write(uri: str, rows: pa.Table) -> None:
    """Write rows as one Parquet file, whole or not at all; writing it again replaces it with the same rows."""
    sink = pa.BufferOutputStream()
    pq.write_table(rows.cast(_schema(rows.schema)), sink)
    patiently(storage.write_bytes, uri, sink.getvalue().to_pybytes())


def read_file(uri: str, columns: list[str] | None = None) -> pa.Table:
    """One Parquet file of rows, or some of its columns."""
    data = pa.BufferReader(patiently(storage.read_bytes, uri))
    return pq.read_table(data, schema=_schema(pq.read_schema(data)), columns=columns)


def read_parts(scores_uri: str) -> Iterator[pa.Table]:
    """The score table, one finished part at a time."""
    return map(read_file, parts(scores_uri))


def read(scores_uri: str) -> pa.Table:
    """The whole score table: a few hundred bytes a row, no pixels."""
    return concat(read_parts(scores_uri))


def with_carried(rows: pa.Table, carried: pa.Table | None) -> pa.Table:
    """Rows of the score table with the columns that their images' own table has beyond the image table's."""
    if carried is None:
        return rows
    for field in carried.schema:
        rows = rows.append_column(field, carried[field.name])
    return rows


def concat(parts: Iterable[pa.Table]) -> pa.Table:
    """Several as one; a column that some lack is null there."""
    return pa.concat_tables(list(parts), promote_options="default")


def _schema(found: pa.Schema) -> pa.Schema:
    return pa.schema([*SCHEMA, *(field for field in found if field.name not in SCHEMA.names)])
