"""What a method or a model costs, measured in one process on the cluster, on the device that would do the work.

Real pieces of a run, on a few of its images. What they write goes to that process's memory alone.
"""

from __future__ import annotations

import json
import math
import random
import resource
import statistics
import time
from collections.abc import Sequence
from functools import partial
from itertools import repeat
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import ray
import torch

from raydiff import cluster, methods, storage
from raydiff.errors import DataError
from raydiff.evaluation.evaluate import evaluate
from raydiff.images import packed_archive
from raydiff.images.shards import Part
from raydiff.images.stream import Reading, decode_rows
from raydiff.methods.base import GradientSettings, Method, ScoreSettings, TrainSettings
from raydiff.model.calibration import Calibration
from raydiff.model.folder import Model, load
from raydiff.model.scorer import CHUNK, examples_of, image_key, score_examples, tiles_of
from raydiff.nn.engine import Engine
from raydiff.planning.plan import size
from raydiff.planning.timing import Sample, Timing, timed
from raydiff.progress import console, duration
from raydiff.scoring import table
from raydiff.scoring.map_place import Maps
from raydiff.scoring.part_scorer import MAPS, PartScorer
from raydiff.training.loop import TrainingLoop
from raydiff.views import Arrays, each_tile, ragged
from raydiff.views.region import TILES as REGION_TILES

SECONDS = 3.0  # of each piece, after its first call
ROWS = 64  # images looked at
DECODED = 16  # images at a time
WRITTEN = 8  # rows, with their maps
_FILES = "memory://raydiff-plan"  # fsspec's, in this process and gone with it


class Scoring(NamedTuple):
    """What an image of a bulk run costs."""

    decode: Timing  # fetching, decoding and resizing
    score: Timing
    write: Timing  # its row of the score table, and its map
    evaluate: float  # seconds: its map held against its mask
    file_bytes: float  # of a file of the score table, beside its rows
    row_bytes: float
    map_bytes: float
    memory: str  # of a replica, in words


class Training(NamedTuple):
    """What a method costs that is still to be fitted."""

    scoring: Scoring
    example: Timing  # of an image
    trial: float  # seconds an image, its example computed already; in the mean over settings that are tried
    fit: float  # seconds: all statistics
    fit_memory: str  # of that worker, in words
    step: float  # seconds, 0 without gradients
    step_memory: str
    example_bytes: float
    state_bytes: int  # of the trained model
    checkpoint_bytes: int
    tiles: float  # of an image, each an example of its own; one where images are not cut


def measured(task: Any, options: dict[str, Any], *given: Any) -> tuple[Any, float, float]:
    """What one of the tasks below finds on a worker with these resources, the seconds in which it did, and those that
    it took to begin: a process with its imports and its networks, while another one starts, as in a run.

    Raises:
        RaydiffError: what the task has raised.
    """
    began = time.monotonic()
    other = _started.remote()
    found, worked = cluster.result(task.options(**options).remote(*given))
    started = time.monotonic() - began - worked
    ray.get(other)
    return found, worked, started


@ray.remote(max_calls=1, num_cpus=0)
def _started() -> None:
    """A process with its imports."""


@ray.remote(max_calls=1)
def of_model(
    model_uri: str,
    rows: pa.Table,
    reading: Reading,
    part: Part | None,
    maps: Maps,
    seconds: float,
    engine: Engine = "torch",
) -> tuple[Scoring, float]:
    """A trained model on some images, which are `part` of a packed archive if one is given.

    Raises:
        DataError: if none of them can be read.
        SettingsError: if the engine is not installed.
    """
    model = load(model_uri, cluster.use_assigned_device())
    model.use(engine)
    began = time.monotonic()
    return scoring(model, *decoded(rows, reading, part, seconds), maps, seconds), time.monotonic() - began


@ray.remote(max_calls=1)
def of_method(
    name: str,
    settings: TrainSettings,
    rows: pa.Table,
    images: Sequence[int],
    asked: Sequence[ScoreSettings],
    chosen: ScoreSettings,
    workers: tuple[int, int],
    maps: Maps,
    seconds: float,
) -> tuple[Training, float]:
    """A method that will be fitted on so many images of each category, some of which are `rows`.

    Args:
        asked: what a tuning tries.
        chosen: what it may choose.
        workers: how many will train by gradients, and the CPUs of each, or 0 with a GPU each. What they tell each other
            is left out.

    Raises:
        DataError: if none of the rows can be read, or the method cannot make an example of one.
        SettingsError: if the method cannot be built as its settings say, or the batch not be shared by the workers.
    """
    method = methods.get(name)(settings).to(cluster.use_assigned_device()).eval()
    began, threads = time.monotonic(), torch.get_num_threads()
    torch.set_num_threads(1 if method.device.type == "cpu" else threads)  # as a replica has
    columns, decode = decoded(rows, Reading.of(settings), None, seconds)
    per = tiles_an_image(method, columns["image"])
    images = [round(count * per) for count in images]
    pictures = columns["image"][next(settings.view.groups(columns["image"], settings.image_size))]
    tiles, layouts = tiles_of(method, pictures)
    records = each_tile(_records(columns)[: len(layouts)], layouts)
    filled = np.arange(CHUNK[method.device.type]) % len(tiles)
    batch, of_batch = tiles[filled], [records[place] for place in filled]
    example = timed(repeat(lambda: len(examples_of(method, batch, of_batch))), seconds)
    examples = examples_of(method, tiles, records)
    method.stand_in(examples, images)
    scored = scoring(Model(method, chosen), columns, decode, maps, seconds)
    keys = [image_key(image) for image in batch]

    def trial(score: ScoreSettings) -> int:
        return len(score_examples(method, examples[filled], keys, score).scores)

    tried = random.Random(0).sample(asked, len(asked))  # so that what time allows stands for all
    each = timed([partial(trial, score) for score in (tried[0], *tried)], 2 * seconds).wall
    state = state_bytes(method.state_dict())
    torch.set_num_threads(threads)
    sample: Any = Sample(examples, images, seconds)
    fit, fit_memory = sample.fit_seconds(method), _memory()
    step, checkpoint = 0.0, 0
    if isinstance(settings, GradientSettings):
        torch.set_num_threads(workers[1] or threads)
        method.stand_in(examples, images)
        if method.device.type == "cuda":
            method.to(memory_format=torch.channels_last)
        loop = TrainingLoop(method, sample, seed=0, world=workers[0])
        step = timed(repeat(lambda: len([loop.advance()])), seconds).wall
        checkpoint = state_bytes(loop.state())
    each *= min(per, REGION_TILES**2)
    example = Timing(example.wall * per, example.cpu * per)
    of_example = per * examples.nbytes / len(examples)
    found = Training(scored, example, each, fit, fit_memory, step, _memory(), of_example, state, checkpoint, per)
    return found, time.monotonic() - began


def decoded(rows: pa.Table, reading: Reading, part: Part | None, seconds: float) -> tuple[dict[str, Any], Timing]:
    """The images of some rows that can be read, as columns (see `stream`), as many as time allows; what one took.

    Raises:
        DataError: if there are none.
    """
    groups: list[dict[str, Any]] = []

    def decode_some() -> int:
        start = DECODED * len(groups)
        some = rows.slice(start, DECODED)
        own = part and part._replace(start=part.start + start, stop=part.start + start + len(some))
        groups.append(decode_rows(some, reading, packed_archive.read_bytes(reading.packed_uri, own) if own else None))
        return len(some)

    each = timed([decode_some] * -(-len(rows) // DECODED), seconds)
    images = ragged([image for group in groups for image in group.pop("image")])
    columns = {name: np.concatenate([group[name] for group in groups]) for name in groups[0]} | {"image": images}
    good = columns["error"] == ""
    if not good.any():
        raise DataError(
            f"none of {len(good)} images looked at can be read; the first: {columns['error'][0]}. `raydiff index` "
            "looks at all of them"
        )
    return {name: values[good] for name, values in columns.items()}, each


def scoring(model: Model, columns: dict[str, Any], decode: Timing, maps: Maps, seconds: float) -> Scoring:
    """What scoring images costs, told from those in `columns`; what decoding does is known already."""
    count = math.ceil(CHUNK[model.method.device.type] / tiles_an_image(model.method, columns["image"]))
    batch = columns["image"][np.arange(count) % len(columns["image"])]  # as many as the device takes at a time
    each = timed(repeat(lambda: len(model.score_seen(batch).scores)), seconds)
    memory = _memory()
    tested = [place for place, record in enumerate(_records(columns)) if record["split"] == "test"]
    few = {name: values[tested[:WRITTEN] or slice(WRITTEN)] for name, values in columns.items()}
    scored = model.score_seen(few["image"], [record["category"] for record in _records(few)])
    # With maps as pictures, a model that is still to be calibrated needs a scale of colours.
    calibration = model.calibration or Calibration.fit({"": scored.scores.tolist()}, rate=0.5)
    told = {"method": model.method.name, "id": "0" * 16, "calibration": calibration.model_dump(mode="json")}
    told["settings"] = {"train": model.method.settings.model_dump(mode="json")}
    known = SimpleNamespace(result=lambda timeout_s: scored)  # in the place of a deployment, which is timed above
    handle: Any = SimpleNamespace(score=SimpleNamespace(remote=lambda *asked: known))
    scorer = PartScorer(handle, told, _FILES, maps)
    write = timed(repeat(lambda: len(scorer.records(few))), seconds)
    rows = pa.Table.from_pylist(scorer.records(few), schema=table.SCHEMA)
    evaluated, map_bytes = 0.0, 0.0
    if maps != "none":
        found = storage.list_files(storage.join(_FILES, MAPS))
        map_bytes = sum(len(storage.read_bytes(uri)) for uri in found) / len(found)
    if tested and maps == "tiff":
        table.write(table.part_uri(_FILES, "0"), rows)
        with console.capture():  # its progress, which is no news
            evaluated = timed([lambda: evaluate(_FILES).images] * 2, seconds).wall
    storage.delete(_FILES)
    return Scoring(decode, each, write, evaluated, *table_bytes(rows), map_bytes, memory)


def table_bytes(rows: pa.Table) -> tuple[float, float]:
    """Of a Parquet file itself, and of each of its rows."""

    def written(some: pa.Table) -> int:
        sink = pa.BufferOutputStream()
        pq.write_table(some, sink)
        return int(sink.getvalue().size)

    one = written(rows.slice(0, 1))
    each = (written(rows) - one) / max(1, len(rows) - 1)
    return one - each, each


def state_bytes(state: Any) -> int:
    """Of all tensors in nested dicts and lists."""
    if isinstance(state, torch.Tensor):
        return state.nbytes
    below = state.values() if isinstance(state, dict) else state if isinstance(state, list | tuple) else ()
    return sum(map(state_bytes, below))


def _records(columns: dict[str, Any]) -> list[dict[str, Any]]:
    return [json.loads(record) for record in columns["record"]]


def tiles_an_image(method: Method, images: Arrays) -> float:
    """How many tiles an image of these is cut into, in the mean."""
    size, view = method.settings.image_size, method.settings.view
    return statistics.fmean(view.layout(image.shape, size).tile_count for image in images)


def _memory() -> str:
    """The most that this process has held so far, in words."""
    host = size(1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)  # Linux tells it in KiB
    gpu = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0
    return host + (f", and {size(gpu)} of its GPU" if gpu else "")


def cluster_fact() -> str:
    """What the cluster has, in words."""
    gpus = cluster.gpus()
    return f"the cluster has {cluster.cpus()} CPUs and {gpus or 'no'} GPU{'s' * (gpus != 1)}"


def note(measured: float, start: float) -> str:
    """What a plan was made of, in a sentence."""
    return (
        f"Times are extrapolated from {duration(measured)} of work measured on one worker, and {duration(start)} in "
        "which it started beside another; on a busy cluster or store it takes longer."
    )
