"""The plan of a whole run: what jobs/train_all.py would do, on which images, for how long, and what it would keep."""

from __future__ import annotations

import contextlib
import itertools
import json
import math
import random
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from threading import Semaphore
from typing import Any

import pyarrow as pa

from raydiff import cluster, methods, storage
from raydiff.images import index as indexing
from raydiff.images import masks
from raydiff.images.holdout import ENOUGH_TO_TUNE, check_enough, roles
from raydiff.images.layouts.folder_names import FolderNames
from raydiff.images.parts import PartPattern
from raydiff.images.shards import ROWS_PER_SHARD
from raydiff.images.survey import AS_FOLDERS_SAY, survey
from raydiff.methods.base import GradientSettings, ScoreSettings, TrainSettings
from raydiff.model.rate import check_rate
from raydiff.planning import measure, starts
from raydiff.planning.measure import Training
from raydiff.planning.plan import Item, Plan, Section
from raydiff.planning.timing import Timing, pipelined, timed
from raydiff.progress import phase
from raydiff.run_folder import ROLES, RunFolder
from raydiff.scoring.map_place import Maps
from raydiff.selection.pseudo_validation import PseudoValidationSettings
from raydiff.selection.space import Stage, load_space
from raydiff.selection.staged_search import StagedSearch
from raydiff.training.train import CHECKPOINTS, CHECKPOINTS_KEPT
from raydiff.training.workers import Workers, begins_with, planned, scaling

Images = Counter[str]  # how many there are (`images`), of each role, and `made` and `tried` in a tuning


@dataclass(frozen=True)
class Job:
    """What all methods of a job have in common."""

    images: Images  # of all runs, which count as equal
    runs: int
    workers: int  # of a training
    worker_cpus: int  # of each; 0 with a GPU each
    devices: int  # networks that run at the same time
    cpus: int
    decoders: float  # parts that are decoded at the same time beside the replicas
    maps: Maps

    def passing(self, images: int, *stages: tuple[Timing, float]) -> float:
        """Seconds in which so many images of all runs pass through these stages (see `pipelined`)."""
        return self.runs * pipelined(images / self.runs, stages, self.cpus)

    def world(self) -> str:
        """The workers of a training, in words."""
        many, cpus = self.workers != 1, self.worker_cpus
        device = f"{cpus} CPU{'s' * (cpus != 1)}" if cpus else "a GPU"
        return f"{self.workers} worker{'s' * many} with {device}{' each' * many}"


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
) -> Plan:
    """What the main job would do with these settings; nothing is written.

    Args:
        recipes: train settings by the method's name.
        address: as of `cluster.connect`.
        seconds: of each piece that is measured.
        named, part_from: as of `survey.find_images`.

    Raises:
        RaydiffError: what the job would raise, as far as it can be known before.
    """
    run = RunFolder(out)
    storage.probe(data)
    storage.probe(run.uri)
    bounds = PseudoValidationSettings.at_most(pseudo_images)
    check_rate(rate)
    images = survey(data, named=named, part_from=part_from).images
    given = roles(images)
    found = by_category(images, given, bounds)
    check_enough(images, given, per_category)
    stages = {name: trials_of(load_space(name), methods.get(name).ScoreSettings()) for name in recipes}
    cluster.connect(address)
    begin = [Item("start", starts.age(), "until Ray is there"), _index(images, seconds)]
    sections = [Section("all methods", [starts.cluster_fact()], begin)]

    fitted = [name for name, counts in found.items() if counts["fit"]]
    job = _job(
        sum((found[name] for name in (fitted if per_category else found)), Counter()),
        len(fitted) if per_category else 1,
        workers,
        maps,
    )
    of_each = [found[name]["fit"] for name in fitted]
    of_run = [round(statistics.fmean(of_each))] if per_category else of_each
    rows = _some(images.filter(pa.array([role in ("fit", "test") for role in given])))
    owners: dict[str, str] = {}  # of examples: the first method that wants them
    worked = began = 0.0
    with phase("measuring", len(recipes), "methods") as shown:
        for name, settings in recipes.items():
            options = cluster.worker_options(cpus=cluster.cpus_for_each(1))
            asked = [score for _, score in stages[name]]
            known = name, settings, rows, of_run, asked, (job.workers, job.worker_cpus), maps, seconds
            costs, spent, start = measure.measured(measure.of_method, options, *known)
            key = json.dumps(methods.get(name).untrained(settings).example_key(), sort_keys=True)
            owner = owners.setdefault(key, name)
            sections.append(
                method_section(job, name, settings, costs, start, [stage for stage, _ in stages[name]], owner)
            )
            worked, began = worked + spent, max(began, start)
            shown.advance()
    end = Item("report and end", job.runs * starts.REPORT + starts.RAY_ENDS)
    notes = [
        starts.note(worked, began),
        "Tuning may choose dearer score settings than those that scoring was measured with.",
    ]
    if per_category:
        notes.append(
            f"{job.runs} runs, one a category ({', '.join(fitted)}): all figures but memory are sums over them."
        )
    if storage.exists(run.images):
        notes.append(
            f"{run.uri} holds a run already; what is finished there is not done again and not subtracted here."
        )
    shown_counts = {name: {what: counts[what] for what in ("images", *ROLES)} for name, counts in found.items()}
    return Plan(shown_counts, [*sections, Section("all methods", steps=[end])], notes)


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


def trials_of(stages: Sequence[Stage], start: ScoreSettings) -> list[tuple[str, ScoreSettings]]:
    """The trials of a tuning, each with its stage, as far as can be told before: as if the first always won.

    What depends on results that are not there yet is taken to cost what the last trial did.
    """
    search = StagedSearch(stages, start, "grid", trials=0, seed=0)
    found: list[tuple[str, ScoreSettings]] = []
    with contextlib.suppress(Exception):  # of the user's code, which asks for results that are not there yet
        while isinstance(trial := search.suggest(""), dict):
            found.append((trial["stage"], start.parse(trial["score"])))
            search.on_trial_complete("", {"outcome": json.dumps({"pseudo_score": 0.0})})
    return found if search.finished else found + [("later", found[-1][1])] * (search.expected - len(found))


def method_section(
    job: Job, name: str, settings: TrainSettings, costs: Training, start: float, trials: Sequence[str], owner: str
) -> Section:
    """One method over all runs.

    Args:
        costs: for a run of the mean size.
        start: seconds that a process takes to begin.
        trials: of a tuning: the stage of each.
        owner: the method that computes the examples: this one, or an earlier one that wants the same.
    """
    images, runs, scoring = job.images, job.runs, costs.scoring
    started = {step: runs * count * start for step, count in starts.STARTS.items()}
    facts = [f"memory of the worker for statistics: {costs.fit_memory}, of a replica: {scoring.memory}"]
    own = owner == name
    examples = started["examples"] + job.passing(
        images["fit"], (scoring.decode, job.cpus), (costs.example, job.devices)
    )
    steps = [
        Item("examples", examples, f"{images['fit']:,} images") if own else Item("examples", 0.0, f"those of {owner}"),
        Item("statistics", started["statistics"] + runs * costs.fit, f"{images['fit']:,} images, one worker"),
    ]
    work, checkpoints = costs.state_bytes, 0
    if isinstance(settings, GradientSettings):
        count, fit = settings.train_steps, images["fit"] / runs
        epochs = f"{count * settings.batch_size / fit:.3g} epochs of {fit:,.0f} images"
        facts = [
            f"{job.world()}, batch size {settings.batch_size}, {count:,} steps = {epochs}",
            f"memory of a training worker: {costs.step_memory} at its peak",
            *facts,
        ]
        seconds = count * costs.step + min(CHECKPOINTS, count) * starts.CHECKPOINT
        steps.append(Item("training", started["training"] + runs * seconds, f"{runs * count:,} steps, {job.world()}"))
        work, checkpoints = 2 * work, min(CHECKPOINTS_KEPT, count) * costs.checkpoint_bytes

    plain = (scoring.decode, job.decoders), (scoring.score, job.devices)
    made = images["made"] * (costs.making + scoring.score.wall)  # of those that calibrate, scored one after the other
    passing = job.passing(images["calibrate"], *plain)
    passing += job.passing(images["test"], *plain, (scoring.write, job.devices + 1))
    scored = images["calibrate"] + images["test"]
    steps += [
        Item(
            "tuning",
            started["tuning"] + _tuning(job, costs, trials),
            f"about {runs * len(trials)} trials, {job.devices} at a time, {images['tried'] / runs:.0f} images each",
        ),
        Item(
            "calibrating and scoring",
            started["scoring"] + made + passing + runs * starts.SERVE_ENDS,
            f"{scored:,} images, {job.devices} replicas",
        ),
        Item("evaluation", images["test"] * scoring.evaluate, f"{images['test']:,} images"),
    ]
    files = sum(runs * math.ceil(images[role] / runs / ROWS_PER_SHARD) for role in ("calibrate", "test"))
    stored = [
        Item("examples (work)", own * images["fit"] * costs.example_bytes),
        Item("statistics, trained state (work)", runs * work),
        Item(f"{CHECKPOINTS_KEPT} checkpoints (work)", runs * checkpoints),
        Item("model folder", runs * costs.state_bytes),
        Item("score tables", files * scoring.file_bytes + scored * scoring.row_bytes),
        Item(f"anomaly maps ({job.maps})", images["test"] * scoring.map_bytes),
    ]
    return Section(name, facts, steps, [each for each in stored if each.amount])


def _tuning(job: Job, costs: Training, trials: Sequence[str]) -> float:
    """Seconds of making the sets, of all trials stage after stage, and of the maps of the normals that it saw."""
    made, tried = job.images["made"], job.images["tried"]
    read = (tried - made + job.images["tune"]) * costs.scoring.decode.wall
    sets = made * costs.making + tried * costs.example.wall + job.images["tune"] * costs.scoring.score.wall
    each, rounds = iter(costs.trials), 0.0
    for _, stage in itertools.groupby(trials):
        seconds = [next(each) for _ in stage]
        rounds += math.ceil(len(seconds) / job.devices) * statistics.fmean(seconds)
    return read + sets + tried * rounds


def _job(images: Images, runs: int, asked: Workers | None, maps: Maps) -> Job:
    """With as many workers as there is room for now, of those that may be."""
    workers, devices = planned(asked), cluster.devices()
    scaled: Any = scaling(workers)
    cpus = 0 if scaled.use_gpu else int(scaled.resources_per_worker["CPU"])
    return Job(images, runs, begins_with(workers), cpus, devices, cluster.cpus(), starts.decoders(devices), maps)


def _some(images: pa.Table) -> pa.Table:
    """Some rows, drawn evenly."""
    return images.take(random.Random(0).sample(range(len(images)), min(measure.ROWS, len(images))))


def _index(images: pa.Table, seconds: float) -> Item:
    """Looking at every image once, which the job's own process does."""
    rows = _some(images).to_pylist()
    look = partial(indexing.examine, Semaphore(masks.DECODES_AT_ONCE))
    with ThreadPoolExecutor(masks.FETCHES_AT_ONCE) as pool:
        groups = [rows[place::4] for place in range(min(4, len(rows)))]
        each = timed([partial(lambda group: len(list(pool.map(look, group))), group) for group in groups], seconds)
    return Item("index", len(images) * each.wall, f"{len(images)} images, each looked at once")
