"""From the image table to decoded batches, on Ray Data, in bounded memory.

The table is cut into numbered parts of a fixed number of rows. A part is fetched, decoded and resized by one task and
travels as one block, so that whatever is made of it can be written as one finished file under its number, and a part
that is done need not be done again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import ray
import ray.data

from raydiff import storage
from raydiff.errors import ImageError, StorageError
from raydiff.images.decode import decode, resize

ROWS_PER_PART = 64
FETCHES_AT_ONCE = 8  # per decoding task; object stores answer slowly but many at a time


def row_count(table_uri: str) -> int:
    """How many images the table has."""
    fs, path = storage.arrow_filesystem(table_uri)
    return int(pq.read_metadata(path, filesystem=fs).num_rows)


def part_count(table_uri: str, rows_per_part: int = ROWS_PER_PART) -> int:
    """How many parts the table has."""
    return -(-row_count(table_uri) // rows_per_part)


def stream(
    table_uri: str,
    size: int,
    parts: Iterable[int] | None = None,
    rows_per_part: int = ROWS_PER_PART,
    num_cpus: float = 1,
) -> ray.data.Dataset:
    """The table's images as a Ray dataset, each block one whole part.

    Columns:
        part: number of the part;
        record: the image table's row as JSON (Ray's blocks turn a column of nulls into one of NaN);
        image: uint8 (size, size, 3), all zero where there is an error;
        height, width: of the image in the archive, pixels (0 where unreadable);
        content_hash: SHA-256 of the file's bytes (empty where it could not be fetched);
        error: why the image cannot be used, or empty. No image ends the job and none vanishes.

    Args:
        table_uri: an image table.
        size: images are resized to size x size (bilinear).
        parts: which parts; all by default.
        num_cpus: what a decoding task asks of Ray.
    """
    chosen = list(range(part_count(table_uri, rows_per_part)) if parts is None else parts)
    dataset = ray.data.from_items([{"part": part} for part in chosen], override_num_blocks=max(1, len(chosen)))
    decode_parts: Any = partial(decode_part, table_uri=table_uri, size=size, rows_per_part=rows_per_part)
    return dataset.map_batches(decode_parts, batch_size=None, num_cpus=num_cpus)


def decode_part(batch: dict[str, Any], table_uri: str, size: int, rows_per_part: int) -> dict[str, Any]:
    """Fetch and decode the parts named in `batch["part"]`; see `stream` for what comes out."""
    parts = [int(part) for part in batch["part"]]
    tables = [read_rows(table_uri, part * rows_per_part, (part + 1) * rows_per_part) for part in parts]
    columns = decode_rows(pa.concat_tables(tables), size)
    return columns | {"part": np.repeat(parts, [len(table) for table in tables])}


def decode_rows(rows: pa.Table, size: int) -> dict[str, Any]:
    """The images of some rows of an image table, as columns; see `stream`."""
    with ThreadPoolExecutor(FETCHES_AT_ONCE) as pool:
        decoded = list(pool.map(lambda uri: _fetch(uri, size), rows["uri"].to_pylist()))
    images, heights, widths, hashes, errors = zip(*decoded, strict=True)
    return {
        "record": np.array([json.dumps(row) for row in rows.to_pylist()]),
        "image": np.stack(images),
        "height": np.array(heights, np.int32),
        "width": np.array(widths, np.int32),
        "content_hash": np.array(hashes),
        "error": np.array(errors),
    }


def read_rows(table_uri: str, start: int, stop: int) -> pa.Table:
    """Rows start to stop of an image table, reading only the row groups that hold them."""
    fs, path = storage.arrow_filesystem(table_uri)
    with pq.ParquetFile(path, filesystem=fs) as file:
        first, offset = 0, 0
        groups: list[int] = []
        for group in range(file.metadata.num_row_groups):
            rows = file.metadata.row_group(group).num_rows
            if first < stop and first + rows > start:
                offset = first if not groups else offset
                groups.append(group)
            first += rows
        return file.read_row_groups(groups).slice(start - offset, stop - start)


def _fetch(uri: str, size: int) -> tuple[np.ndarray, int, int, str, str]:
    digest = ""
    try:
        data = storage.read_bytes(uri)
        digest = hashlib.sha256(data).hexdigest()
        image = decode(data)
        return resize(image, size), image.shape[0], image.shape[1], digest, ""
    except (ImageError, StorageError) as error:
        return np.zeros((size, size, 3), np.uint8), 0, 0, digest, str(error)
