"""The images of a scored archive that come in question: drawn by their value, in one pass over its scores.

An archive has millions of rows, and many thousands of them may lie next to a threshold. The most valuable alone would
all lie within a hair of it, and stains that alarm further up would never be seen. So images are drawn without
replacement, each with a chance in proportion to its value, by exponential races (Efraimidis and Spirakis, 2006): an
image runs for an exponential time, through its value, and the first ones come in. Which time that is its content and a
seed tell, so that the same bytes at two places run the same race and come in once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from raydiff.images.table import BIT_DEPTH, ROI
from raydiff.learning.teaching_value import teaching_value, ways_above
from raydiff.model.calibration import Calibration
from raydiff.scoring import table as scores
from raydiff.scoring.columns import by_category, read_columns

_COLUMNS = ["uri", "category", "category_guessed", "day", "score", "content_hash", BIT_DEPTH, ROI]
SHARD, APPLIED, WAYS, VALUE = "shard", "applied", "ways", "value"  # the columns that are added
_TIME = "time"


class Seen(NamedTuple):
    """What is judged already."""

    uris: pa.Array
    contents: pa.Array  # their content hashes


def rows_of(scores_uri: str, uris: Collection[str]) -> pa.Table:
    """The rows of some images that have a score, in the table's order, each with its `shard` of the image table.

    Raises:
        DataError: if there is no score table.
        StorageError: if a part cannot be read.
    """
    wanted = pa.array(list(uris), pa.string())
    found = [part.filter(pc.is_in(part["uri"], value_set=wanted)) for part in _parts(scores_uri)]
    return pa.concat_tables(found)


def drawn(scores_uri: str, calibration: Calibration, seen: Seen, count: int, seed: int) -> pa.Table:
    """At most `count` images of a score table that are not judged, drawn by their value; the most valuable first.

    The table is read part by part; what is held grows with `count` and the parts alone.

    Args:
        calibration: of the model that made the scores.

    Returns:
        Their rows with `shard`, `applied` (the category whose threshold applies), `ways` and `value`, each content
        once; of equal content the place with the higher value, then the first uri.

    Raises:
        DataError, StorageError: as `rows_of`.
    """
    kept: pa.Table | None = None
    for part in _parts(scores_uri):
        judged = pc.or_(pc.is_in(part["uri"], value_set=seen.uris), pc.is_in(part["content_hash"], seen.contents))
        found = _first(_running(part.filter(pc.invert(judged)), calibration, seed), count)
        kept = found if kept is None else _first(pa.concat_tables([kept, found]), count)
    assert kept is not None  # there are parts, or it would have been refused
    return kept.drop_columns([_TIME]).sort_by([(VALUE, "descending"), ("uri", "ascending")])


def _parts(scores_uri: str) -> Iterator[pa.Table]:
    """The rows that have a score, part by part."""
    uris = scores.parts(scores_uri)
    for uri, part in zip(uris, read_columns(uris, _COLUMNS), strict=True):
        rows = part.filter(pc.is_finite(part["score"]))
        yield rows.append_column(SHARD, pa.repeat(scores.part_name(uri), len(rows)))


def _running(rows: pa.Table, calibration: Calibration, seed: int) -> pa.Table:
    """The rows with their values and their times."""
    found, ways = rows["score"].to_numpy(), np.empty(len(rows))
    applied = np.full(len(rows), "", object)
    for name, mine in by_category(rows, calibration.categories):
        ways[mine] = ways_above(found[mine], calibration.of(name))
        applied[mine] = name
    value = teaching_value(ways)
    contents = pc.coalesce(rows["content_hash"], rows["uri"]).to_pylist()
    digests = b"".join(hashlib.blake2b(f"{seed} {each}".encode(), digest_size=8).digest() for each in contents)
    uniform = (np.frombuffer(digests, np.uint64) >> np.uint64(11)) + 0.5  # 53 bits, never 0
    times = -np.log(uniform / 2.0**53) / value
    told = {APPLIED: pa.array(applied, pa.string()), WAYS: ways, VALUE: value, _TIME: times}
    for name, column in told.items():
        rows = rows.append_column(name, pa.array(column))
    return rows


def _first(rows: pa.Table, count: int) -> pa.Table:
    """The first `count` different contents of some rows."""
    ordered = rows.sort_by([(_TIME, "ascending"), ("uri", "ascending")])
    contents = pc.coalesce(ordered["content_hash"], ordered["uri"]).combine_chunks().dictionary_encode()
    _, first = np.unique(contents.indices.to_numpy(zero_copy_only=False), return_index=True)
    return ordered.take(pa.array(np.sort(first)[:count]))
