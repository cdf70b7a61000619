"""What of a score table is done and what is missing.

A bulk run writes each part of a shard (64 images, or 8 that are cut into tiles) as a small file under `_work/`, and
when the last part of a shard is there, all of them as one file of the score table. So a run that is killed loses the
parts it had in hand and nothing else, readers find whole shards only, and millions of images end in thousands of files
and not in a hundred thousand.

Ray Data's own checkpoints were measured for this and left: they commit whole blocks, hold every id in memory, and know
nothing of rows that failed or of shards that are whole.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from raydiff import storage
from raydiff.errors import DataError
from raydiff.images.shards import ROWS_PER_PART, Part, Shard, parts_of
from raydiff.scoring import table
from raydiff.storage.patience import patiently

WORK = "_work"
READS_AT_ONCE = 8


class Counts(NamedTuple):
    """Of some rows of the score table."""

    images: int
    errors: int
    alarms: int


class Unfinished(NamedTuple):
    """A shard that is not in the score table yet."""

    shard: Shard
    begun: frozenset[int]  # starts of its parts that are scored already
    rows_per_part: int = ROWS_PER_PART

    @property
    def parts(self) -> list[Part]:
        """Its parts that are still to be scored."""
        return [part for part in parts_of([self.shard], self.rows_per_part) if part.start not in self.begun]

    @property
    def rows(self) -> int:
        """Its images that are still to be scored."""
        return sum(part.stop - part.start for part in self.parts)


def work_uri(scores_uri: str, shard: str, start: int) -> str:
    """Where the finished part of an unfinished shard lies."""
    return storage.join(scores_uri, WORK, shard, f"{start:06d}.parquet")


def unfinished(
    scores_uri: str, shards: Iterable[Shard], finished: Collection[str], rows_per_part: int = ROWS_PER_PART
) -> list[Unfinished]:
    """What is to be done, shard by shard; what is left over of finished shards is deleted."""
    begun = begun_parts(scores_uri)
    for name in begun.keys() & finished:  # killed between the last two steps of `finish`
        patiently(storage.delete, storage.join(scores_uri, WORK, name))
    return [
        Unfinished(shard, frozenset(begun[shard.name]), rows_per_part) for shard in shards if shard.name not in finished
    ]


def finish(scores_uri: str, shard: Shard, rows_per_part: int = ROWS_PER_PART) -> Counts:
    """Put the parts of a shard together as one file of the score table.

    Raises:
        DataError: if they are not all there.
    """
    places = [work_uri(scores_uri, shard.name, part.start) for part in parts_of([shard], rows_per_part)]
    with ThreadPoolExecutor(READS_AT_ONCE) as pool:
        rows = table.concat(pool.map(table.read_file, places))
    if len(rows) != shard.rows:
        raise DataError(f"{shard.uri}: {shard.rows} images, {len(rows)} scores; it was changed while it was scored")
    table.write(table.part_uri(scores_uri, shard.name), rows)
    patiently(storage.delete, storage.join(scores_uri, WORK, shard.name))
    return count(rows)


def count(rows: pa.Table) -> Counts:
    """How many rows, errors and alarms there are."""
    return Counts(len(rows), len(rows) - rows["error"].null_count, pc.sum(rows["is_anomalous"]).as_py() or 0)


def begun_parts(scores_uri: str) -> defaultdict[str, set[int]]:
    """Starts of the parts under `_work/`, by shard."""
    folder = storage.join(scores_uri, WORK)
    found: defaultdict[str, set[int]] = defaultdict(set)
    for uri in storage.list_files(folder) if storage.exists(folder) else ():
        shard, file = uri.split("/")[-2:]
        if file.endswith(".parquet") and not file.startswith("."):
            found[shard].add(int(file.removesuffix(".parquet")))
    return found
