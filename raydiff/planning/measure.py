"""The tasks that measure on the cluster, on the device that would do the work. Nothing is written to a store.

Each has a process of its own (`max_calls=1`), so that the most memory it has held is its own.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from itertools import repeat
from typing import Any, NamedTuple

import pyarrow as pa
import ray
import torch
from torch import Tensor

from raydiff import cluster, methods
from raydiff.images.shards import Part
from raydiff.images.stream import Reading
from raydiff.methods.base import ScoreSettings, TrainSettings
from raydiff.model.folder import load
from raydiff.model.scorer import examples_of
from raydiff.planning.pieces import Scoring, decoded, filled_batch, scoring_cost, state_bytes, trial_costs
from raydiff.planning.sample import Sample, statistics_seconds
from raydiff.planning.timing import Memory, Timing, peak_memory, timed
from raydiff.scoring.map_place import Maps
from raydiff.synthesis.kinds import KINDS
from raydiff.synthesis.made import make_set
from raydiff.training.loop import TrainingLoop

SECONDS = 3.0  # of each piece, after its first call
ROWS = 64  # images looked at


class Untrained(NamedTuple):
    """What a method costs whose training is still to come."""

    example: Timing
    scoring: Scoring
    making: Timing  # of an anomaly to tune on
    trials: list[float]  # seconds an image, under each of the score settings that were asked about
    examples: Tensor  # of the images looked at
    state_bytes: int  # of the trained model


class Fitting(NamedTuple):
    """What statistics and memory bank cost their worker."""

    seconds: float
    memory: Memory


class Steps(NamedTuple):
    """What training by gradients costs a worker."""

    step: Timing
    checkpoint_bytes: int
    memory: Memory


class Measured(NamedTuple):
    """What a task has found out, and how long its process took to be there."""

    found: Any
    worked: float  # seconds
    started: float  # seconds: a process, its imports


def measured(task: Any, options: dict[str, Any], *arguments: Any) -> Measured:
    """Run one of the tasks below on a worker with these resources; an error of ours is raised as it was there."""
    began = time.monotonic()
    found, worked = cluster.result(task.options(**options).remote(*arguments))
    return Measured(found, worked, time.monotonic() - began - worked)


@ray.remote(max_calls=1)
def untrained(
    name: str,
    settings: TrainSettings,
    rows: pa.Table,
    images: Sequence[int],
    asked: Sequence[ScoreSettings],
    maps: Maps,
    seconds: float,
) -> tuple[Untrained, float]:
    """A method that will be fitted on so many images of each category, some of which are `rows`.

    Raises:
        DataError: if none of the rows can be read, or the method cannot make an example of one.
        SettingsError: if the method cannot be built as its settings say.
    """
    began = time.monotonic()
    method = methods.get(name)(settings).to(cluster.use_assigned_device()).eval()
    columns, decode = decoded(rows, Reading.of(settings), seconds)
    pictures = columns["image"]
    records = [json.loads(record) for record in columns["record"]]
    batch = filled_batch(method, pictures)
    of_batch = [records[place % len(records)] for place in range(len(batch))]
    example = timed(repeat(lambda: len(examples_of(method, batch, of_batch))), seconds)
    examples = examples_of(method, pictures, records)
    method.stand_in(examples, images)
    scoring = scoring_cost(method, method.ScoreSettings(), columns, decode, maps, None, seconds)
    pair = batch[:2]
    making = timed(repeat(lambda: len(make_set(pair, len(KINDS), 0).images)), seconds)
    trials = trial_costs(method, pictures, asked, 2 * seconds)
    found = Untrained(example, scoring, making, trials, examples, state_bytes(method.state_dict()))
    return found, time.monotonic() - began


@ray.remote(max_calls=1)
def statistics(
    name: str, settings: TrainSettings, examples: Tensor, images: Sequence[int], seconds: float
) -> tuple[Fitting, float]:
    """Statistics and memory bank of so many images, some of whose examples are given."""
    began = time.monotonic()
    method = methods.get(name)(settings).to(cluster.use_assigned_device()).eval()
    found = Fitting(statistics_seconds(method, examples, images, seconds), peak_memory())
    return found, time.monotonic() - began


@ray.remote(max_calls=1)
def steps(
    name: str, settings: TrainSettings, examples: Tensor, images: Sequence[int], workers: int, seconds: float
) -> tuple[Steps, float]:
    """Gradient steps of one of so many workers; what they tell each other is left out.

    Raises:
        SettingsError: if the batch cannot be shared by so many workers.
    """
    began = time.monotonic()
    method = methods.get(name)(settings).to(cluster.use_assigned_device())
    if method.device.type == "cuda":
        method.to(memory_format=torch.channels_last)
    method.stand_in(examples, images)
    repeated: Any = Sample(examples, images)
    loop = TrainingLoop(method, repeated, seed=0, world=workers)

    def step() -> int:
        loop.advance()
        return 1

    found = Steps(timed(repeat(step), seconds), state_bytes(loop.state()), peak_memory())
    return found, time.monotonic() - began


@ray.remote(max_calls=1)
def trained(
    model_uri: str, rows: pa.Table, reading: Reading, part: Part | None, maps: Maps, seconds: float
) -> tuple[Scoring, float]:
    """A model on some images, which are `part` of a packed archive if one is given.

    Raises:
        DataError: if none of them can be read.
    """
    began = time.monotonic()
    model = load(model_uri, cluster.use_assigned_device())
    columns, decode = decoded(rows, reading, seconds, part)
    found = scoring_cost(model.method, model.score_settings, columns, decode, maps, model.calibration, seconds)
    return found, time.monotonic() - began
