"""The plan of a whole run: what jobs/train_all.py would do, on which images, for how long, and what it would keep."""

from __future__ import annotations

import json
import random
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from threading import Semaphore
from typing import Any

import pyarrow as pa

from raydiff import cluster, methods, storage
from raydiff.images import index as indexing
from raydiff.images import masks
from raydiff.images.holdout import check_enough, roles
from raydiff.images.layouts.folder_names import FolderNames
from raydiff.images.levels import Levels
from raydiff.images.pages import Pages
from raydiff.images.parts import PartPattern
from raydiff.images.survey import AS_FOLDERS_SAY, survey
from raydiff.methods.base import GradientSettings, ScoreSettings, TrainSettings
from raydiff.model.rate import check_rate
from raydiff.planning import measure
from raydiff.planning.method import Costs, Resources, World, method_section
from raydiff.planning.plan import Plan, Section, Step
from raydiff.planning.run_images import RunImages, by_category, runs_of
from raydiff.planning.timing import timed
from raydiff.planning.tuning import grid
from raydiff.progress import phase
from raydiff.run_folder import RunFolder
from raydiff.scoring.map_place import Maps
from raydiff.selection.pseudo_validation import PseudoValidationSettings
from raydiff.selection.space import load_space
from raydiff.training.workers import Workers, begins_with, planned, scaling


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
) -> Plan:
    """What the main job would do with these settings; nothing is written.

    Args:
        recipes: train settings by the method's name.
        address: as of `cluster.connect`.
        seconds: of each piece that is measured.
        named, part_from, pages: as of `survey.find_images`.

    Raises:
        RaydiffError: what the job would raise, as far as it can be known before.
    """
    run = RunFolder(out)
    storage.probe(data)
    storage.probe(run.uri)
    size = PseudoValidationSettings.at_most(pseudo_images)
    check_rate(rate)
    images = survey(data, named=named, part_from=part_from, pages=pages).images
    given = roles(images)
    runs = runs_of(images, given, per_category, size)
    check_enough(images, given, per_category)
    spaces = {name: grid(load_space(name), methods.get(name).ScoreSettings()) for name in recipes}
    cluster.connect(address)
    world = _world(workers)
    fit = images.filter(pa.array([role == "fit" for role in given]))
    sample = _spread(fit, measure.ROWS)

    index = Section("all methods", [cluster_fact()], [_index_step(images, methods.levels_of(recipes), seconds)])
    sections, starts = [index], 0
    pieces: list[measure.Measured] = []
    resources = Resources.of_cluster(cluster.devices())
    of_each = list(Counter(fit["category"].to_pylist()).values())
    images_a_run = [round(statistics.fmean(of_each))] if per_category else of_each
    shared: dict[str, str] = {}  # examples to the first method that wants them
    with phase("measuring", len(recipes), "methods") as shown:
        for name, settings in recipes.items():
            asked = [score for stage in spaces[name] for score in stage]
            costs, found = _measured(name, settings, images_a_run, sample, asked, world, maps, seconds)
            pieces += found
            levels = settings.levels.model_dump(mode="json") if settings.levels else None
            key = json.dumps([methods.get(name).untrained(settings).example_key(), levels], sort_keys=True)
            owner = shared.setdefault(key, name)
            trials = [len(stage) for stage in spaces[name]]
            section, more = method_section(name, settings, runs, costs, trials, resources, world, owner, maps)
            sections.append(section)
            starts += more
            shown.advance()
    return Plan(
        images=by_category(images, given),
        sections=sections,
        starts=starts,
        start_seconds=statistics.fmean(piece.started for piece in pieces),
        measured_seconds=sum(piece.worked for piece in pieces),
        notes=_notes(run, runs, per_category),
    )


def _world(asked: Workers | None) -> World:
    """As many workers as there is room for now, of those that may be."""
    workers = planned(asked)
    scaled: Any = scaling(workers)
    number = begins_with(workers)
    if scaled.use_gpu:
        return World(number, "a GPU", 1)
    cpus = int(scaled.resources_per_worker["CPU"])
    return World(number, f"{cpus} CPU{'s' * (cpus != 1)}", cpus)


def _spread(images: pa.Table, most: int) -> pa.Table:
    """Some rows, drawn evenly."""
    drawn = random.Random(0).sample(range(len(images)), min(most, len(images)))
    return images.take(sorted(drawn))


def _index_step(images: pa.Table, levels: Levels | None, seconds: float) -> Step:
    """Looking at every image once, which the job's own process does."""
    rows = _spread(images, measure.ROWS).to_pylist()
    look = partial(indexing.examine, Semaphore(masks.DECODES_AT_ONCE), levels=levels)

    def look_at(some: list[dict[str, Any]]) -> int:
        return len(list(pool.map(look, some)))

    with ThreadPoolExecutor(masks.FETCHES_AT_ONCE) as pool:
        groups = [rows[start : start + len(rows) // 4 + 1] for start in range(0, len(rows), len(rows) // 4 + 1)]
        each = timed([partial(look_at, group) for group in groups], seconds)
    return Step("index", len(images) * each.wall, f"{len(images)} images, each looked at once")


def _measured(
    name: str,
    settings: TrainSettings,
    images: Sequence[int],
    sample: pa.Table,
    asked: Sequence[ScoreSettings],
    world: World,
    maps: Maps,
    seconds: float,
) -> tuple[Costs, list[measure.Measured]]:
    """What one method costs that is fitted on so many images of each category, and the measurements that say so."""
    one, all_cpus = cluster.worker_options(), cluster.worker_options(cpus=cluster.cpus_for_each(1))
    untrained = measure.measured(measure.untrained, one, name, settings, sample, images, asked, maps, seconds)
    given = name, settings, untrained.found.examples, images
    fitting = measure.measured(measure.statistics, all_cpus, *given, seconds)
    pieces = [untrained, fitting]
    if isinstance(settings, GradientSettings):
        options = cluster.worker_options(cpus=world.cpus)
        pieces.append(measure.measured(measure.steps, options, *given, world.workers, seconds))
    return Costs(*(piece.found for piece in pieces)), pieces


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
