"""Some columns of a score table, read part by part: an archive's has millions of rows."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import pyarrow as pa
import pyarrow.parquet as pq

from raydiff import storage
from raydiff.images.table import BIT_DEPTH, PART
from raydiff.scoring import table
from raydiff.storage.patience import patiently

READS_AT_ONCE = 8  # object stores answer slowly but many at a time

# The score table's own columns, and those of its images' own table that are read by their names.
KINDS = table.SCHEMA.append(pa.field(PART, pa.string())).append(pa.field(BIT_DEPTH, pa.int64()))


def read_columns(uris: Sequence[str], columns: list[str]) -> Iterator[pa.Table]:
    """Columns of the parts in their order, a few parts ahead of what is asked for; null where a part lacks one.

    Args:
        uris: of the parts (see `table.parts`).
        columns: of the score table's own, `part` and `bit_depth`.
    """
    with ThreadPoolExecutor(READS_AT_ONCE) as pool:
        waiting: deque[Future[pa.Table]] = deque()
        for uri in uris:
            waiting.append(pool.submit(read_part, uri, columns))
            if len(waiting) > READS_AT_ONCE:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def read_part(uri: str, columns: list[str]) -> pa.Table:
    """Columns of one part; arguments as of `read_columns`."""
    # Parts are small: the whole file is one request, its footer and then its columns would be several.
    with pq.ParquetFile(pa.BufferReader(patiently(storage.read_bytes, uri))) as file:
        found = file.read(columns=columns, use_threads=False)
    nothing = pa.schema([KINDS.field(name) for name in columns]).empty_table()
    return pa.concat_tables([found, nothing], promote_options="default")  # a part of before may lack a column
