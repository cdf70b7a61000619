"""The plan of a whole run: what jobs/train_all.py would do, on which images, for how long, and what it would keep."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from threading import Semaphore
from typing import Any, NamedTuple

import pyarrow as pa

from raydiff import cluster, methods, storage
from raydiff.images import index as indexing
from raydiff.images import layouts
from raydiff.images.holdout import roles
from raydiff.images.shards import ROWS_PER_PART, ROWS_PER_SHARD
from raydiff.methods.base import GradientSettings, ScoreSettings, TrainSettings
from raydiff.planning import measure
from raydiff.planning.pieces import state_bytes
from raydiff.planning.plan import Plan, Section, Step, Stored
from raydiff.planning.run_images import RunImages, by_category, check, runs_of
from raydiff.planning.show import held
from raydiff.planning.timing import Stage, pipelined, timed
from raydiff.planning.tuning import TuningSets, grid, trials_seconds
from raydiff.progress import phase
from raydiff.run_folder import ROLES, RunFolder
from raydiff.scoring.part_scorer import Maps
from raydiff.selection.calibration import CategoryCalibration
from raydiff.selection.pseudo_validation import PseudoValidationSettings
from raydiff.selection.space import load_space
from raydiff.training import train as training

CHECKPOINTS_KEPT = 2
# Processes that the steps of a method wait for, one after the other: examples (decoding, writing), statistics, training
# (controller, workers), tuning (sets, trials), replicas, and the decoding and writing beside them, twice.
STARTS = {"examples": 1, "statistics": 1, "training": 2, "tuning": 2, "scoring": 3}


def plan_training(
    data: str,
    out: str,
    recipes: Mapping[str, TrainSettings],
    per_category: bool,
    workers: int | None,
    pseudo_images: int | None,
    rate: float,
    maps: Maps,
    seconds: float = measure.SECONDS,
) -> Plan:
    """What the main job would do with these settings; nothing is written.

    Args:
        recipes: train settings by the method's name.
        seconds: of each piece that is measured.

    Raises:
        RaydiffError: what the job would raise, as far as it can be known before.
    """
    run = RunFolder(out)
    storage.probe(data)
    storage.probe(run.uri)
    bounds = {} if pseudo_images is None else dict.fromkeys(("normals", "anomalies"), pseudo_images)
    size = PseudoValidationSettings.parse(bounds)
    CategoryCalibration.parse({"scores": (0.0,), "rate": rate})
    images = layouts.survey(data).images
    given = roles(images)
    runs = runs_of(images, given, per_category, size)
    check(runs, data, size, rate)
    spaces = {name: grid(load_space(name), methods.get(name).ScoreSettings()) for name in recipes}
    cluster.connect()
    world = _world(workers)
    fit = images.filter(pa.array([role == "fit" for role in given]))
    sample = _spread(fit, measure.ROWS)

    index = Section("all methods", [cluster_fact()], [_index_step(images, seconds)])
    sections, starts, measured, started = [index], 0, 0.0, 0.0
    shared: dict[str, str] = {}
    with phase("measuring", len(recipes), "methods") as shown:
        for name, settings in recipes.items():
            section, found, pieces = _method(name, settings, runs, sample, spaces[name], world, maps, shared, seconds)
            sections.append(section)
            starts += found
            measured += sum(piece.worked for piece in pieces)
            started = max([started, *(piece.started for piece in pieces)])
            shown.advance()
    return Plan(
        images=by_category(images, given),
        sections=sections,
        starts=starts,
        start_seconds=started,
        measured_seconds=measured,
        notes=_notes(run, runs, per_category),
    )


class World(NamedTuple):
    """The workers of a training."""

    workers: int
    cpus: int  # of each

    def __str__(self) -> str:
        gpus = cluster.gpus()
        each = "a GPU" if gpus else f"{self.cpus} CPU{'s' * (self.cpus != 1)}"
        return f"{self.workers} worker{'s' * (self.workers != 1)} with {each}{' each' * (self.workers != 1)}"


def _world(workers: int | None) -> World:
    scaling: Any = training._scaling(workers)
    return World(int(scaling.num_workers), int((scaling.resources_per_worker or {}).get("CPU", 1)))


def _spread(images: pa.Table, most: int) -> pa.Table:
    """Some rows, drawn evenly."""
    drawn = random.Random(0).sample(range(len(images)), min(most, len(images)))
    return images.take(sorted(drawn))


def _index_step(images: pa.Table, seconds: float) -> Step:
    """Looking at every image once, which the job's own process does."""
    rows = _spread(images, measure.ROWS).to_pylist()
    look = partial(indexing.examine, Semaphore(indexing.DECODES_AT_ONCE))

    def look_at(some: list[dict[str, Any]]) -> int:
        return len(list(pool.map(look, some)))

    with ThreadPoolExecutor(indexing.FETCHES_AT_ONCE) as pool:
        groups = [rows[start : start + len(rows) // 4 + 1] for start in range(0, len(rows), len(rows) // 4 + 1)]
        each = timed([partial(look_at, group) for group in groups], seconds)
    return Step("index", len(images) * each.wall, f"{len(images)} images, each looked at once")


def _method(
    name: str,
    settings: TrainSettings,
    runs: Sequence[RunImages],
    sample: pa.Table,
    spaces: Sequence[Sequence[ScoreSettings]],
    world: World,
    maps: Maps,
    shared: dict[str, str],
    seconds: float,
) -> tuple[Section, int, list[measure.Measured]]:
    """One method over all runs, how many processes its steps wait for, and what was measured for it."""
    cpus, devices = cluster.cpus(), cluster.devices()
    total = {role: sum(run.roles[role] for run in runs) for role in ROLES}
    mean = max(1, round(total["fit"] / len(runs)))
    asked = [score for stage in spaces for score in stage]
    one, all_cpus = cluster.worker_options(), cluster.worker_options(cpus=cpus)
    pieces = [measure.measured(measure.untrained, one, name, settings, sample, mean, asked, maps, seconds)]
    found: measure.Untrained = pieces[0].found
    pieces.append(measure.measured(measure.statistics, all_cpus, name, settings, found.examples, mean, seconds))
    fitting: measure.Fitting = pieces[1].found
    scoring = found.scoring

    key = json.dumps(methods.get(name).untrained(settings).example_key(), sort_keys=True)
    owner = shared.setdefault(key, name)
    examples, kept = 0.0, 0.0
    if owner == name:
        stages = [Stage(scoring.decode, cpus), Stage(found.example, devices)]
        examples = sum(pipelined(run.roles["fit"], stages, cpus, ROWS_PER_PART) for run in runs)
        kept = total["fit"] * state_bytes(found.examples) / len(found.examples)
    steps = [
        Step("examples", examples, f"{total['fit']:,} images" if owner == name else f"those of {owner}"),
        Step("statistics", len(runs) * fitting.seconds, f"{total['fit']:,} images, one worker"),
    ]
    facts = []
    starts = [STARTS["statistics"], STARTS["tuning"], STARTS["scoring"], STARTS["examples"] * (owner == name)]
    work = found.state_bytes
    checkpoints = 0
    if isinstance(settings, GradientSettings):
        options = cluster.worker_options(cpus=world.cpus)
        arguments = name, settings, found.examples, mean, world.workers, seconds
        pieces.append(measure.measured(measure.steps, options, *arguments))
        stepping: measure.Steps = pieces[2].found
        facts += [
            f"{world}, batch size {settings.batch_size}, {settings.train_steps:,} steps = {_epochs(settings, runs)}",
            f"memory of a training worker: {held(stepping.memory)} at its peak",
        ]
        each = settings.train_steps * stepping.step.wall
        steps.append(Step("training", len(runs) * each, f"{len(runs) * settings.train_steps:,} steps, {world}"))
        starts.append(STARTS["training"])
        work += found.state_bytes
        checkpoints = min(CHECKPOINTS_KEPT, settings.train_steps) * stepping.checkpoint_bytes
    facts.append(f"memory of the worker for statistics: {held(fitting.memory)}, of a replica: {held(scoring.memory)}")
    sets = TuningSets(*map(sum, zip(*(run.sets for run in runs), strict=True)))
    making = (
        (sets.normals + sets.test) * scoring.decode.wall
        + sets.made * found.making.wall
        + sets.images * found.example.wall
    )
    trials = trials_seconds([len(stage) for stage in spaces], found.trials, sets.images, devices)
    number = len(runs) * len(asked)
    note = f"about {number} trials, {devices} at a time, {sets.images / len(runs):.0f} images each"
    steps.append(Step("tuning", making + trials, note))
    images = total["calibrate"] + total["test"]
    reading, replicas = Stage(scoring.decode, decoding_tasks(devices)), Stage(scoring.score, devices)
    rows, maps_too = [reading, replicas], [reading, replicas, Stage(scoring.write, devices + 1)]
    spent = sum(
        pipelined(run.roles["calibrate"], rows, cpus, ROWS_PER_PART)
        + pipelined(run.roles["test"], maps_too, cpus, ROWS_PER_PART)
        for run in runs
    )
    steps.append(Step("calibrating and scoring", spent, f"{images:,} images, {devices} replicas"))
    files = sum(-(-run.roles[role] // ROWS_PER_SHARD) for run in runs for role in ("calibrate", "test"))
    stored = [
        Stored("examples (work)", kept),
        Stored("statistics, trained state (work)", len(runs) * work),
        Stored(f"{CHECKPOINTS_KEPT} checkpoints (work)", len(runs) * checkpoints),
        Stored("model folder", len(runs) * found.state_bytes),
        Stored("score tables", files * scoring.file_bytes + images * scoring.row_bytes),
        Stored(f"anomaly maps ({maps})", total["test"] * scoring.map_bytes),
    ]
    return Section(name, facts, steps, [each for each in stored if each.bytes]), len(runs) * sum(starts), pieces


def decoding_tasks(replicas: int) -> float:
    """How many parts are decoded at the same time beside so many replicas."""
    taken = 0 if cluster.gpus() else cluster.SHARED_CPU * replicas
    return max(1.0, (cluster.cpus() - taken) / cluster.SHARED_CPU)


def epochs(settings: GradientSettings, images: int) -> float:
    """How often training sees each image."""
    return settings.train_steps * settings.batch_size / images


def _epochs(settings: GradientSettings, runs: Sequence[RunImages]) -> str:
    found = sorted(epochs(settings, run.roles["fit"]) for run in runs)
    images = sorted(run.roles["fit"] for run in runs)
    if found[0] == found[-1]:
        return f"{found[0]:.3g} epochs of {images[0]:,} images"
    return f"{found[0]:.3g} to {found[-1]:.3g} epochs of {images[-1]:,} to {images[0]:,} images"


def cluster_fact() -> str:
    """What the cluster has."""
    gpus = cluster.gpus()
    return f"the cluster has {cluster.cpus()} CPUs and {gpus or 'no'} GPU{'s' * (gpus != 1)}"


def _notes(run: RunFolder, runs: Sequence[RunImages], per_category: bool) -> list[str]:
    notes = []
    if per_category:
        names = ", ".join(each.name for each in runs)
        notes.append(f"{len(runs)} runs, one a category ({names}): all figures but memory are sums over them.")
    if storage.exists(run.images):
        notes.append(
            f"{run.uri} holds a run already; what is finished there is not done again and not subtracted here."
        )
    notes.append(
        "Tuning may choose dearer score settings than those that scoring was measured with. Evaluation and report are "
        "left out."
    )
    return notes
