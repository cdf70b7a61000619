"""Some columns of a score table, read part by part: an archive's has millions of rows."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from raydiff import storage
from raydiff.images.table import BIT_DEPTH, PART, ROI
from raydiff.scoring import table
from raydiff.storage.patience import patiently

OTHERS = ""  # stands for all categories that the model does not know
READS_AT_ONCE = 8  # object stores answer slowly but many at a time

# The score table's own columns, and those of its images' own table that are read by their names.
KINDS = pa.schema([*table.SCHEMA, (PART, pa.string()), (BIT_DEPTH, pa.int64()), (ROI, pa.string())])


def read_columns(uris: Sequence[str], columns: list[str]) -> Iterator[pa.Table]:
    """Columns of the parts in their order, a few parts ahead of what is asked for; null where a part lacks one.

    Args:
        uris: of the parts (see `table.parts`).
        columns: of the score table's own, `part`, `bit_depth` and `roi_uri`.
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


def applied_categories(rows: pa.Table) -> pa.ChunkedArray:
    """The category whose threshold applies to each row, as the score table says it; null where it says none."""
    return pc.coalesce(rows["category_guessed"], rows["category"])


def category_key(category: str | None, known: Collection[str] | None) -> str:
    """A category that a threshold applies to, by what it counts: one of `known`, all where that is None, or OTHERS."""
    return category if category and (known is None or category in known) else OTHERS


def by_category(rows: pa.Table, known: Collection[str] | None) -> Iterator[tuple[str, NDArray[np.bool_]]]:
    """(`category_key` of the category that applies, which rows (N,)) of some rows; each key once, none without rows."""
    names = applied_categories(rows).combine_chunks().dictionary_encode()
    keys = [category_key(name, known) for name in names.dictionary.to_pylist()]
    codes = pc.fill_null(names.indices, len(keys)).to_numpy(zero_copy_only=False)
    keys.append(OTHERS)  # of a row without any
    for key in dict.fromkeys(keys):
        mine = np.isin(codes, [code for code, other in enumerate(keys) if other == key])
        if mine.any():
            yield key, mine
