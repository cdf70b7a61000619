"""The order of a table's rows by their URIs, in bounded memory.

An archive's table is in that order already, or in a few runs of it, one a listing. So first it is looked at once, for
the ends of each file. If files overlap, the URIs are taken a range at a time, from those files alone that reach into
it: of an archive that has grown each is read a few times, and only of a table in no order at all each for every range.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from raydiff.review.files import Files

ROWS_AT_ONCE = 2**18  # of a range, about
SAMPLES_A_FILE = 64  # by which the ranges are chosen


def places(files: Files, rows_at_once: int = ROWS_AT_ONCE) -> np.ndarray:
    """Of each row its place among all by URI, ascending; uint32 (rows,). Of equal URIs the earlier row comes first.

    Raises:
        StorageError, DataError: as `Files.columns`.
    """
    ends: list[tuple[str, str]] = []
    samples: list[str] = []
    ascending = True
    for _, rows in files.columns(["uri"]):
        uris = rows["uri"].combine_chunks()
        if not len(uris):
            ends.append(("", ""))
            continue
        least, most = (value.as_py() for value in pc.min_max(uris).values())
        inside = bool(pc.all(pc.less_equal(uris[:-1], uris[1:])).as_py()) if len(uris) > 1 else True
        ascending = ascending and inside and (not ends or ends[-1][1] <= least)
        ends.append((least, most))
        samples += uris.take(pa.array(np.linspace(0, len(uris) - 1, SAMPLES_A_FILE).astype(np.int64))).to_pylist()
    if ascending:
        return np.arange(files.rows, dtype=np.uint32)
    found = np.empty(files.rows, np.uint32)
    done = 0
    for after, upto in _ranges(sorted(samples), max(1, -(-files.rows // rows_at_once))):
        reaching = [
            part
            for part, (least, most) in enumerate(ends)
            if (after is None or most > after) and (upto is None or least <= upto)
        ]
        uris, numbers = _within(files, reaching, after, upto)
        order = pc.sort_indices(pa.table({"uri": uris, "row": numbers}), [("uri", "ascending"), ("row", "ascending")])
        found[numbers[order.to_numpy()]] = np.arange(done, done + len(numbers), dtype=np.uint32)
        done += len(numbers)
    return found


def _ranges(samples: list[str], count: int) -> list[tuple[str | None, str | None]]:
    """So many ranges (above the first, up to the second) with about as many rows in each; None: without an end."""
    cuts = sorted({samples[len(samples) * number // count] for number in range(1, count)})
    return list(zip([None, *cuts], [*cuts, None], strict=True))


def _within(files: Files, among: list[int], after: str | None, upto: str | None) -> tuple[pa.ChunkedArray, np.ndarray]:
    """The URIs of a range, and the numbers of their rows."""
    uris, numbers = [], []
    for part, rows in files.columns(["uri"], among):
        column = rows["uri"]
        mask = pc.greater(column, after) if after is not None else pc.is_valid(column)
        if upto is not None:
            mask = pc.and_(mask, pc.less_equal(column, upto))
        kept = np.flatnonzero(mask.to_numpy())
        uris += column.take(pa.array(kept)).chunks
        numbers.append(kept + files.starts[part])
    return pa.chunked_array(uris, pa.string()), np.concatenate(numbers) if numbers else np.empty(0, np.int64)
