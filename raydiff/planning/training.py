"""The plan of a whole run: what jobs/train_all.py would do, on which images, for how long, and what it would keep."""

from __future__ import annotations

import contextlib
import json
import math
import random
import statistics
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from threading import Semaphore
from typing import Any, NamedTuple

import pyarrow as pa

from raydiff import cluster, methods, storage
from raydiff.images import index as indexing
from raydiff.images import masks
from raydiff.images.holdout import ENOUGH_TO_TUNE, check_enough, roles
from raydiff.images.layouts.folder_names import FolderNames
from raydiff.images.layouts.known import Known
from raydiff.images.levels import Levels
from raydiff.images.pages import Pages
from raydiff.images.parts import PartPattern
from raydiff.images.shards import ROWS_PER_SHARD
from raydiff.images.stream import Reading
from raydiff.images.survey import AS_FOLDERS_SAY, survey
from raydiff.methods.base import GradientSettings, ScoreSettings, TrainSettings
from raydiff.model.rate import check_rate
from raydiff.planning import measure, timing
from raydiff.planning.measure import Training
from raydiff.planning.plan import Item, Plan, Section
from raydiff.planning.timing import Timing, pipelined
from raydiff.progress import phase
from raydiff.run_folder import ROLES, RunFolder
from raydiff.scoring.map_place import Maps
from raydiff.selection.pseudo_validation import PseudoValidationSettings
from raydiff.selection.space import Stage, load_space
from raydiff.selection.staged_search import GUESSED, StagedSearch
from raydiff.training.examples import examples_key
from raydiff.training.tile import with_tile
from raydiff.training.train import CHECKPOINTS, CHECKPOINTS_KEPT
from raydiff.training.workers import Workers, begins_with, planned, scaling

LITTLE = 1e-5  # of a score, below any margin

Images = Counter[str]  # how many there are (`images`), of each role, and `made` and `tried` in a tuning


def plan_training(
    data: str,
    out: str,
    recipes: Mapping[str, TrainSettings],
    per_category: bool,
    workers: Workers | None,
    pseudo_images: int | None,
    rate: float,
    maps: Maps,
    address: str | None = None,
    seconds: float = measure.SECONDS,
    named: FolderNames = AS_FOLDERS_SAY,
    part_from: PartPattern | None = None,
    pages: Pages | None = None,
    layout: Known | None = None,
) -> Plan:
    """What the main job would do with these settings; nothing is written.

    Args:
        recipes: train settings by the method's name.
        address: as of `cluster.connect`.
        seconds: of each piece that is measured.
        named, part_from, pages, layout: as of `survey.find_images`.

    Raises:
        RaydiffError: what the job would raise, as far as it can be known before.
    """
    run = RunFolder(out)
    storage.probe(data)
    storage.probe(run.uri)
    bounds = PseudoValidationSettings.at_most(pseudo_images)
    check_rate(rate)
    images = survey(data, named=named, part_from=part_from, pages=pages, layout=layout).images
    levels = methods.levels_of(recipes)
    if levels:
        levels.check(images["category"].unique().to_pylist())
    given = roles(images)
    found = by_category(images, given, bounds)
    check_enough(images, given, per_category)
    fit = images.filter(pa.array([role == "fit" for role in given]))
    recipes = {name: with_tile(settings, fit) for name, settings in recipes.items()}
    trials = {name: trials_of(load_space(name), methods.get(name).ScoreSettings()) for name in recipes}
    cluster.connect(address)
    world = _workers(workers)
    age = timing.age()
    fitted = [name for name, counts in found.items() if counts["fit"]]
    total: Images = sum((found[name] for name in (fitted if per_category else found)), Counter())
    runs = len(fitted) if per_category else 1
    of_each = [found[name]["fit"] for name in fitted]
    of_run = [round(statistics.fmean(of_each))] if per_category else of_each
    used = images.filter(pa.array([role in ("fit", "test") for role in given]))
    rows = used.take(random.Random(0).sample(range(len(used)), min(measure.ROWS, len(used))))
    look = _look_seconds(rows, levels)
    begin = [
        Item("start", age, "until Ray is there"),
        Item("index", len(images) * look, f"{len(images)} images, each looked at once"),
    ]
    sections = [Section("all methods", [measure.cluster_fact()], begin)]
    owners: dict[str, str] = {}  # of examples: the first method that wants them
    worked = started = 0.0
    options = cluster.worker_options(cpus=cluster.cpus_for_each(1))
    with phase("measuring", len(recipes), "methods") as shown:
        for name, settings in recipes.items():
            stages, chosen = trials[name]
            asked = [score for stage in stages.values() for score in stage]
            known = name, settings, rows, of_run, asked, chosen, world, maps, seconds
            costs, spent, start = measure.measured(measure.of_method, options, *known)
            worked, started = worked + spent, max(started, start)
            key = json.dumps(examples_key(name, settings), sort_keys=True)
            owner = owners.setdefault(key, name)
            counts = [len(stage) for stage in stages.values()]
            method = MethodPlan(name, settings, costs, start, total, runs, counts, world, owner, maps)
            sections.append(Section(name, method.facts(), method.steps(), method.stored()))
            shown.advance()
    end = Item("report and end", timing.starting("end", started))
    notes = [
        measure.note(worked, started),
        "Scoring was measured with settings that tuning may choose; others may be cheaper or dearer.",
    ]
    if per_category:
        notes.append(f"{runs} runs, one a category ({', '.join(fitted)}): all figures but memory are sums over them.")
    if storage.exists(run.images):
        notes.append(
            f"{run.uri} holds a run already; what is finished there is not done again and not subtracted here."
        )
    if len(found) > 1:
        found["all"] = sum(found.values(), Counter())
    shown_images = {name: {what: each[what] for what in ("images", *ROLES)} for name, each in found.items()}
    return Plan(shown_images, [*sections, Section("all methods", steps=[end])], notes)


def by_category(images: pa.Table, given: Sequence[str], size: PseudoValidationSettings) -> dict[str, Images]:
    """How many images of each category there are, and play which role; and in a tuning of this size.

    `made` are its made anomalies, `tried` all images that each trial scores.
    """
    found: dict[str, Images] = {}
    labels: Counter[tuple[str, int | None]] = Counter()
    for category, label, role in zip(images["category"].to_pylist(), images["label"].to_pylist(), given, strict=True):
        found.setdefault(category, Counter()).update(["images", *role.split("+")])
        labels[category, label] += role == "test"
    for category, counts in found.items():
        normals = counts["tune"] if counts["tune"] >= ENOUGH_TO_TUNE else 0
        counts["made"] = size.anomalies if normals else 0
        tested = min(labels[category, 0], size.normals) + min(labels[category, 1], size.anomalies)
        counts["tried"] = min(normals, size.normals) + counts["made"] + tested
    return dict(sorted(found.items()))


def trials_of(stages: Sequence[Stage], start: ScoreSettings) -> tuple[dict[str, list[ScoreSettings]], ScoreSettings]:
    """The trials of each stage of a tuning and its choice, as far as can be told before.

    As if each trial were a little better than the one before: a stage chooses its last, or its first where it asks for
    a margin. Of what depends on results that are not there yet, only the number is guessed.
    """
    search = StagedSearch(stages, start, "grid", trials=0, seed=0)
    found: dict[str, list[ScoreSettings]] = {}
    with contextlib.suppress(Exception):  # of the user's code, which asks for results that are not there yet
        while isinstance(trial := search.suggest(""), dict):
            found.setdefault(trial["stage"], []).append(start.parse(trial["score"]))
            search.on_trial_complete("", {"outcome": json.dumps({"pseudo_score": LITTLE * search.count})})
    if not search.finished:
        found["later"] = [start] * GUESSED * (len(stages) - len(search.results))
    return found, search.chosen


class MethodPlan(NamedTuple):
    """What one method does in all runs, which count as equal."""

    name: str
    settings: TrainSettings
    costs: Training  # for a run of the mean size
    start: float  # seconds that a process takes to begin
    images: Images  # of all runs together
    runs: int
    trials: Sequence[int]  # of a tuning, in each of its stages
    workers: tuple[int, int]  # of a training, and the CPUs of each; 0 with a GPU each
    owner: str  # the method that computes the examples: this one, or an earlier one that wants the same
    maps: Maps

    def facts(self) -> list[str]:
        """What is to be known of it, in words."""
        memory = (
            f"memory of the worker for statistics: {self.costs.fit_memory}, of a replica: {self.costs.scoring.memory}"
        )
        if not isinstance(self.settings, GradientSettings):
            return [memory]
        steps, size = self.settings.train_steps, self.settings.batch_size
        fit = self.costs.tiles * self.images["fit"] / self.runs
        epochs = f"{steps * size / fit:.3g} epochs of {fit:,.0f} {'images' if self.costs.tiles == 1 else 'tiles'}"
        return [
            f"{self._world()}, batch size {size}, {steps:,} steps = {epochs}",
            f"memory of a training worker: {self.costs.step_memory} at its peak",
            memory,
        ]

    def steps(self) -> list[Item]:
        """Its steps, each with the processes that it starts."""
        runs, images, costs, scoring = self.runs, self.images, self.costs, self.costs.scoring
        devices, decoders = cluster.devices(), cluster.cpus() / cluster.SHARED_CPU
        fit = f"{images['fit']:,} images"
        examples = self._passing("fit", (scoring.decode, cluster.cpus()), (costs.example, devices))
        steps = [
            self._step("examples", examples, fit)
            if self.owner == self.name
            else Item("examples", 0.0, f"those of {self.owner}"),
            self._step("statistics", runs * costs.fit, f"{fit}, one worker"),
        ]
        if isinstance(self.settings, GradientSettings):
            count = self.settings.train_steps
            seconds = count * costs.step + min(CHECKPOINTS, count) * timing.CHECKPOINT
            steps.append(self._step("training", runs * seconds, f"{runs * count:,} steps, {self._world()}"))

        read = images["tried"] - images["made"] + images["tune"]
        made = images["tried"] * costs.example.wall + images["tune"] * scoring.score.wall
        rounds = sum(math.ceil(count / devices) for count in self.trials)
        tuning = read * scoring.decode.wall + made + rounds * (images["tried"] * costs.trial + runs * timing.TRIALS)
        tried = f"{images['tried'] / runs:.0f} images each"
        plain = (scoring.decode, decoders), (scoring.score, devices)
        scored = self._passing("calibrate", *plain) + self._passing("test", *plain, (scoring.write, devices + 1))
        scored += images["made"] * scoring.score.wall  # anomalies made of those that calibrate, one after the other
        number = images["calibrate"] + images["test"]
        return [
            *steps,
            self._step("tuning", tuning, f"about {runs * sum(self.trials)} trials, {devices} at a time, {tried}"),
            self._step(
                "calibrating and scoring",
                scored,
                f"{number:,} images, {devices} replicas",
            ),
            Item("evaluation", images["test"] * scoring.evaluate, f"{images['test']:,} images"),
        ]

    def stored(self) -> list[Item]:
        """What it keeps."""
        runs, images, costs, scoring = self.runs, self.images, self.costs, self.costs.scoring
        trained = self.settings.train_steps if isinstance(self.settings, GradientSettings) else 0
        files = sum(runs * math.ceil(images[role] / runs / ROWS_PER_SHARD) for role in ("calibrate", "test"))
        rows = (images["calibrate"] + images["test"]) * scoring.row_bytes
        kept = min(CHECKPOINTS_KEPT, trained)
        found = [
            Item("examples (work)", (self.owner == self.name) * images["fit"] * costs.example_bytes),
            Item("statistics, trained state (work)", runs * costs.state_bytes * (2 if trained else 1)),
            Item(f"{CHECKPOINTS_KEPT} checkpoints (work)", runs * kept * costs.checkpoint_bytes),
            Item("model folder", runs * costs.state_bytes),
            Item("score tables", files * scoring.file_bytes + rows),
            Item(f"anomaly maps ({self.maps})", images["test"] * scoring.map_bytes),
        ]
        return [each for each in found if each.amount]

    def _step(self, name: str, seconds: float, note: str) -> Item:
        return Item(name, self.runs * timing.starting(name, self.start) + seconds, note)

    def _passing(self, role: str, *stages: tuple[Timing, float]) -> float:
        part = Reading.of(self.settings).rows_per_part
        return self.runs * pipelined(self.images[role] / self.runs, stages, cluster.cpus(), part)

    def _world(self) -> str:
        workers, cpus = self.workers
        device = f"{cpus} CPU{'s' * (cpus != 1)}" if cpus else "a GPU"
        return f"{workers} worker{'s' * (workers != 1)} with {device}{' each' * (workers != 1)}"


def _workers(asked: Workers | None) -> tuple[int, int]:
    """As many workers as there is room for now, of those that may be, and the CPUs of each; 0 with a GPU each."""
    workers = planned(asked)
    scaled: Any = scaling(workers)
    return begins_with(workers), 0 if scaled.use_gpu else int(scaled.resources_per_worker["CPU"])


def _look_seconds(rows: pa.Table, levels: Levels | None) -> float:
    """Seconds an image that the job's own process looks at."""
    began = time.monotonic()
    with ThreadPoolExecutor(masks.FETCHES_AT_ONCE) as pool:
        list(pool.map(partial(indexing.examine, Semaphore(masks.DECODES_AT_ONCE), levels=levels), rows.to_pylist()))
    return (time.monotonic() - began) / len(rows)
