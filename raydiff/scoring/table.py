"""The score table: one row per input image, bad ones too."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa
import pyarrow.parquet as pq

from raydiff import storage
from raydiff.errors import DataError

SCHEMA = pa.schema(
    [
        ("uri", pa.string()),
        ("dataset", pa.string()),
        ("category", pa.string()),
        ("split", pa.string()),
        ("label", pa.int8()),  # 0 normal, 1 anomalous, null unknown
        ("defect", pa.string()),
        ("mask_uri", pa.string()),
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
    ]
)


def part_uri(scores_uri: str, part: int) -> str:
    """Where part number `part` of a score table lies."""
    return storage.join(scores_uri, f"part-{part:06d}.parquet")


def parts(scores_uri: str) -> list[str]:
    """The finished parts of a score table.

    Raises:
        DataError: if there are none.
    """
    found = [uri for uri in storage.list_files(scores_uri) if _is_part(uri)]
    if not found:
        raise DataError(f"{scores_uri} holds no score table (part-*.parquet); run `raydiff score` into it first")
    return found


def write_part(scores_uri: str, part: int, rows: pa.Table) -> None:
    """Write one finished part, whole or not at all; writing it again replaces it with the same rows."""
    sink = pa.BufferOutputStream()
    pq.write_table(rows.cast(SCHEMA), sink)
    storage.write_bytes(part_uri(scores_uri, part), sink.getvalue().to_pybytes())


def read_parts(scores_uri: str) -> Iterator[pa.Table]:
    """The score table, one finished part at a time."""
    for uri in parts(scores_uri):
        yield pq.read_table(pa.BufferReader(storage.read_bytes(uri)), schema=SCHEMA)


def read(scores_uri: str) -> pa.Table:
    """The whole score table: a few hundred bytes a row, no pixels."""
    return pa.concat_tables(list(read_parts(scores_uri)))


def _is_part(uri: str) -> bool:
    file = storage.name(uri)
    return file.startswith("part-") and file.endswith(".parquet")
