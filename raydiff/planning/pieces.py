"""Pieces of the work on a few real images, timed in this process. No files but in the process's own memory."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import repeat
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from raydiff import storage
from raydiff.errors import DataError
from raydiff.images import pack
from raydiff.images.shards import Part
from raydiff.images.stream import Reading, decode_rows
from raydiff.methods.base import Method, ScoreSettings
from raydiff.model.calibration import Calibration
from raydiff.model.scored import Scored
from raydiff.model.scorer import CHUNK, examples_of, image_key, score_examples
from raydiff.planning.timing import Memory, Timing, peak_memory, timed
from raydiff.scoring import table
from raydiff.scoring.map_place import Maps
from raydiff.scoring.part_scorer import MAPS, PartScorer

DECODED = 16  # images at a time
WRITTEN = 8  # rows, with their maps
_FILES = "memory://raydiff-plan"  # fsspec's, in this process and gone with it


class Scoring(NamedTuple):
    """What an image of a bulk run costs."""

    decode: Timing  # fetching, decoding and resizing
    score: Timing
    write: Timing  # its row of the score table, and its map
    row_bytes: float
    file_bytes: int  # of a file of the score table, beside its rows
    map_bytes: float
    memory: Memory  # of a replica


def decoded(
    rows: pa.Table, reading: Reading, seconds: float, part: Part | None = None
) -> tuple[dict[str, Any], Timing]:
    """The images of some rows that can be read, as columns (see `stream`), as many as time allows; what one took.

    Args:
        part: of a packed archive, that the rows are.

    Raises:
        DataError: if there are none.
    """
    files: list[Any] = []
    groups: list[dict[str, Any]] = []

    def open_part() -> int:
        files.extend(pack.read_bytes(reading.packed_uri, part) or () if part else ())
        return len(rows)

    def decode_from(start: int) -> int:
        some = rows.slice(start, DECODED)
        groups.append(decode_rows(some, reading, files[start : start + DECODED] or None))
        return len(some)

    opened = timed([open_part], seconds)
    each = timed((partial(decode_from, start) for start in range(0, len(rows), DECODED)), seconds)
    columns = {name: np.concatenate([group[name] for group in groups]) for name in groups[0]}
    good = columns["error"] == ""
    if not good.any():
        raise DataError(
            f"none of {len(good)} images looked at can be read; the first: {columns['error'][0]}. `raydiff index` "
            "looks at all of them"
        )
    return {name: values[good] for name, values in columns.items()}, both(opened, each)


def both(one: Timing, other: Timing) -> Timing:
    """One after the other."""
    return Timing(one.wall + other.wall, one.cpu + other.cpu)


def scoring_cost(
    method: Method,
    score: ScoreSettings,
    columns: dict[str, Any],
    decode: Timing,
    maps: Maps,
    calibration: Calibration | None,
    seconds: float,
) -> Scoring:
    """What scoring an image costs, told from those in `columns`; what decoding does is known already."""
    batch = filled_batch(method, columns["image"])
    each = timed(repeat(lambda: len(score_examples(method, *score_batch(method, batch), score).scores)), seconds)
    memory = peak_memory()
    few = {name: values[:WRITTEN] for name, values in columns.items()}
    examples, keys = score_batch(method, few["image"])
    scored = score_examples(method, examples, keys, score)
    # With maps as pictures, a model that is still to be calibrated needs a scale of colours.
    calibration = calibration or Calibration.fit({"": scored.scores.tolist()}, rate=0.5)
    told = {"method": method.name, "id": "0" * 16, "calibration": calibration.model_dump(mode="json")}
    handle: Any = _Known(scored)
    scorer = PartScorer(handle, told, _FILES, maps)
    sizes: dict[int, int] = {}

    def write() -> int:
        records = scorer.records(few)
        for count in {1, len(records)}:
            sizes[count] = _file_bytes(records[:count])
        return len(records)

    written = timed(repeat(write), seconds)
    count = len(few["error"])
    row_bytes = (sizes[count] - sizes[1]) / (count - 1) if count > 1 else 0.0
    place = storage.join(_FILES, MAPS)
    map_files = storage.list_files(place) if maps != "none" else []
    map_bytes = sum(len(storage.read_bytes(uri)) for uri in map_files) / max(1, len(map_files))
    storage.delete(_FILES)
    return Scoring(decode, each, written, row_bytes, round(sizes[1] - row_bytes), map_bytes, memory)


def score_batch(method: Method, images: np.ndarray) -> tuple[Tensor, list[str]]:
    """Examples and keys, as `score_images` makes them."""
    return examples_of(method, images), [image_key(image) for image in images]


def filled_batch(method: Method, images: np.ndarray) -> np.ndarray:
    """As many images as the device takes at a time, some of them again where there are fewer."""
    return images[np.arange(CHUNK[method.device.type]) % len(images)]


def trial_costs(method: Method, images: np.ndarray, asked: Sequence[ScoreSettings], seconds: float) -> list[float]:
    """Seconds an image under each of some score settings, its example computed already; each is tried once.

    When `seconds` have passed, the others are taken for the mean.
    """
    examples, keys = score_batch(method, filled_batch(method, images))
    found: list[float] = []

    def trial(score: ScoreSettings) -> int:
        return len(score_examples(method, examples, keys, score).scores)

    for score in asked:
        if sum(found) * len(keys) > seconds > 0:
            break
        found.append(timed([partial(trial, score)], 0).wall)
    return found + [sum(found) / len(found)] * (len(asked) - len(found)) if found else []


def state_bytes(state: Any) -> int:
    """Of all tensors in nested dicts and lists."""
    if isinstance(state, torch.Tensor):
        return state.nbytes
    below = state.values() if isinstance(state, dict) else state if isinstance(state, list | tuple) else ()
    return sum(map(state_bytes, below))


def _file_bytes(records: list[dict[str, Any]]) -> int:
    place = storage.join(_FILES, "rows.parquet")
    table.write(place, pa.Table.from_pylist(records, schema=table.SCHEMA))
    return len(storage.read_bytes(place))


def table_bytes(rows: pa.Table) -> float:
    """Of one row, stored with many as Parquet."""
    if not len(rows):
        return 0.0
    whole, one = (_parquet_bytes(rows.slice(0, count)) for count in (len(rows), 1))
    return (whole - one) / (len(rows) - 1) if len(rows) > 1 else float(one)


def _parquet_bytes(rows: pa.Table) -> int:
    sink = pa.BufferOutputStream()
    pq.write_table(rows, sink)
    return int(sink.getvalue().size)


class _Known:
    """In the place of a deployment's handle: whatever is asked, the answer is there already."""

    def __init__(self, scored: Scored) -> None:
        self.score = self
        self._scored = scored

    def remote(self, images: np.ndarray, categories: Sequence[str], maps: bool) -> _Known:
        return self

    def result(self, timeout_s: float) -> Scored:
        return self._scored
