"""The steps of a run, each a function over a run folder: what `raydiff <step>` and the jobs do.

Each step reads what the one before has written, so they can run in one job or one by one, today and tomorrow. What only
one of them needs is imported there: torch, Serve, Train, Tune and matplotlib take seconds each.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from raydiff import cluster, methods, storage
from raydiff.at_work import at_work
from raydiff.errors import CHECK_FILES, DataError, SettingsError, of_file
from raydiff.images import table
from raydiff.images.holdout import check_enough as check_normals
from raydiff.images.holdout import roles
from raydiff.images.index import IndexReport, Problem
from raydiff.images.index import index as index_images
from raydiff.images.layouts.folder_names import FolderNames
from raydiff.images.levels import Levels
from raydiff.images.pages import Pages
from raydiff.images.parts import PartPattern
from raydiff.images.regions import check_regions
from raydiff.images.survey import AS_FOLDERS_SAY
from raydiff.model.calibration import Calibration
from raydiff.model.description import describe
from raydiff.model.rate import DEFAULT_RATE
from raydiff.progress import console
from raydiff.run_folder import ROLES, RunFolder
from raydiff.scoring.map_place import Maps
from raydiff.selection.champion import champion, sentences
from raydiff.selection.search_settings import SearchSettings

if TYPE_CHECKING:
    from ray.serve.handle import DeploymentHandle

    from raydiff.evaluation.evaluate import Evaluation
    from raydiff.model.folder import Model
    from raydiff.report.runs import ReportEntry
    from raydiff.scoring.bulk import Summary
    from raydiff.training.workers import Workers

BOTH = "tune+calibrate"  # a category too small to be held out twice


def index(
    data: str,
    out: str,
    score: str | None = None,
    named: FolderNames = AS_FOLDERS_SAY,
    part_from: PartPattern | None = None,
    levels: Levels | None = None,
    pages: Pages | None = None,
) -> IndexReport:
    """Find the images of `data`, write the image table and give each image its role.

    Args:
        named, part_from, pages: as of `find_images`.
        levels: which stored values are black and white, to look at the images as training will.
    """
    run = RunFolder(out)
    storage.probe(data)
    storage.probe(run.uri)
    if score:
        storage.probe(score)
    with at_work(run.uri):
        return _indexed(run, data, score, named, part_from, levels, pages)


def _indexed(
    run: RunFolder,
    data: str,
    score: str | None,
    named: FolderNames,
    part_from: PartPattern | None,
    levels: Levels | None,
    pages: Pages | None,
) -> IndexReport:
    report = index_images(data, run.images, score, named=named, part_from=part_from, levels=levels, which=pages)
    images = table.read(run.images)
    given = pa.array(roles(images))
    counts = []
    for role in ROLES:
        wanted = pa.array([role, BOTH] if role in BOTH.split("+") else [role])
        rows = images.filter(pc.is_in(given, wanted))
        table.write(run.table(role), rows)
        parts = pc.count_distinct(rows[table.PART]).as_py() if table.PART in rows.column_names else 0
        counts.append(f"{rows.num_rows} {role}" + (f" of {parts} part{'s' * (parts != 1)}" if parts else ""))
    _check_readable(run, report)
    console.print(f"roles: {', '.join(counts)}", markup=False)
    return report


def _check_readable(run: RunFolder, report: IndexReport) -> None:
    """Whether there is an image to train on.

    Raises:
        DataError: if there are some, but none that can be read.
    """
    reasons = {problem.uri: problem.reason for problem in report.unreadable}
    fit = table.read(run.table("fit"))["uri"].to_pylist()
    if fit and all(uri in reasons for uri in fit):
        raise DataError(
            f"none of the {len(fit)} images to train on can be read ({of_file(fit[0], reasons[fit[0]])}); {CHECK_FILES}"
        )


def check_enough(out: str, per_category: bool, unreadable: Sequence[Problem] = ()) -> None:
    """Whether the run has normals enough for every step; before hours of training, not after.

    Args:
        per_category: as `split` makes them.
        unreadable: what `index` could not read.

    Raises:
        DataError: if not.
    """
    images = table.read(_existing(out).images)
    check_normals(images, roles(images), per_category, {problem.uri for problem in unreadable})


def split(out: str) -> dict[str, str]:
    """A run for each category that has images to fit, by its name; every step works on these as on any run."""
    run = _existing(out)
    images = table.read(run.images)
    by_role = {role: table.read(run.table(role)) for role in ROLES}
    found = {}
    for category in sorted(by_role["fit"]["category"].unique().to_pylist()):
        own = RunFolder(run.category(category))
        of_category = pc.field("category") == category
        table.write(own.images, images.filter(of_category))
        for role, rows in by_role.items():
            table.write(own.table(role), rows.filter(of_category))
        found[category] = own.uri
    return found


def check_recipe(out: str, method: str, preset: str, changes: Mapping[str, Any]) -> None:
    """Whether there is a run to train in, and what the settings name is there or can be had: before anything begins.

    Raises:
        DataError, SettingsError, StorageError: if not.
    """
    run = _existing(out)
    settings = methods.recipe(method, preset, changes)
    if settings.levels:
        settings.levels.check(table.read(run.images)["category"].unique().to_pylist())
    methods.check({method: settings})


def train(
    out: str,
    method: str,
    preset: str,
    changes: Mapping[str, Any] | None = None,
    workers: Workers | None = None,
    seed: int = 0,
    save_as: str | None = None,
) -> Model:
    """Fit a method on the run's images with the role `fit`; its model folder takes the method's name, or `save_as`."""
    from raydiff.training.train import train as train_method

    run = _existing(out)
    settings = methods.recipe(method, preset, changes)
    normals = table.read(run.table("fit"))
    if not normals.num_rows:
        raise DataError(f"{run.uri} has no normal image to train on; `raydiff index` shows what there is")
    check_regions(settings.view, normals)
    cluster.connect()
    with at_work(run.uri):
        return train_method(method, settings, run.table("fit"), run.model(save_as or method), run.work, workers, seed)


def tune(
    out: str,
    name: str,
    search: SearchSettings,
    save_as: str | None = None,
    space: str | None = None,
    pseudo_images: int | None = None,
) -> Model:
    """Choose a model's score settings on made anomalies; `save_as` leaves the model as it is and tunes a copy.

    `pseudo_images` bounds both the normal images and the anomalies made of them, per category. The run's table and plot
    of all trials are written anew.
    """
    from raydiff.model.folder import load
    from raydiff.report.figures import trials_plot
    from raydiff.selection.pseudo_validation import PseudoValidationSettings
    from raydiff.selection.trials import as_csv
    from raydiff.selection.tune import tune as tune_model

    size = PseudoValidationSettings.at_most(pseudo_images)
    run = _existing(out)
    if save_as:
        load(run.model(name), "cpu").save(run.model(save_as))
    name = save_as or name
    test = run.table("test")
    labelled = any(label is not None for label in table.read(test)["label"].to_pylist())
    cluster.connect()
    model = tune_model(
        run.model(name),
        run.table("tune"),
        run.tuning(name),
        run.work,
        size,
        search,
        test_table_uri=test if labelled else None,
        space=space,
    )
    found = tunings(out)
    storage.write_bytes(run.trials, as_csv(found))
    storage.write_bytes(run.trials_plot, trials_plot(found))
    return model


def sweep(
    out: str,
    names: Sequence[str] | None,
    search: SearchSettings,
    save_as: str | None = None,
    space: str | None = None,
    pseudo_images: int | None = None,
) -> dict[str, dict[str, Any]]:
    """Tune several models one after the other, each over its method's own space; their results by name.

    Args:
        names: by default all that are called as their method. What was saved under another name was tuned for another
            purpose, often over a space of its own, and is tuned again only if it is named.

    Raises:
        SettingsError: if `save_as` or `space`, which are for one model, are given with several.
        DataError, ModelFolderError: if one of the models is not there, or none; nothing is tuned then.
    """
    run = _existing(out)
    named = list(dict.fromkeys(names)) if names else [name for name in run.models() if name in methods.names()]
    if not named:
        raise SettingsError(f"no model of {run.uri} is called as its method; name those to be tuned with --model")
    for option, value in (("--save-as", save_as), ("--space", space)):
        if value and len(named) > 1:
            raise SettingsError(f"{option} is for a single model, not for {', '.join(named)}; name one with --model")
    for name in named:
        describe(run.existing_model(name))
    with at_work(run.uri):
        for name in named:
            tune(out, name, search, save_as, space, pseudo_images)
    return {name: storage.read_json(run.tuning(name)) for name in ([save_as] if save_as else named)}


@contextlib.contextmanager
def serving(out: str, name: str) -> Iterator[DeploymentHandle]:
    """A model of the run, deployed for `calibrate` and `score`."""
    from raydiff.scoring.deployment import deployed

    run = _existing(out)
    describe(run.existing_model(name))
    cluster.connect()
    with at_work(run.uri), deployed(run.model(name)) as handle:
        yield handle


def calibrate(
    handle: DeploymentHandle, out: str, name: str, rate: float = DEFAULT_RATE, pseudo_images: int | None = None
) -> Model:
    """Set a model's alarm thresholds from the run's images with the role `calibrate`; `pseudo_images` as of `tune`."""
    from raydiff.selection.calibrate import calibrate as calibrate_model
    from raydiff.selection.pseudo_validation import PseudoValidationSettings

    size = PseudoValidationSettings.at_most(pseudo_images)
    run = _existing(out)
    images = table.read(run.images)
    given = zip(images["category"].to_pylist(), roles(images), strict=True)
    shared = sorted({category for category, role in given if role == BOTH})
    uri = run.model(name)
    scores = run.scores(name, describe(uri, calibrated=False)["id"], "calibrate")
    return calibrate_model(handle, uri, run.table("calibrate"), scores, rate, shared, size)


def has_test_images(out: str) -> bool:
    """Whether the run has images to score and to evaluate."""
    return table.read(_existing(out).table("test")).num_rows > 0


def score(handle: DeploymentHandle, out: str, name: str, maps: Maps = "none") -> Summary:
    """Score the run's test images; where a column `part` says which part an image shows, a table of parts lies beside.

    Raises:
        DataError: if it has none.
    """
    from raydiff.scoring import parts_table
    from raydiff.scoring.bulk import score_table

    run = _existing(out)
    _check_tested(out)
    uri = run.model(name)
    model = describe(uri)
    scores = run.scores(name, model["id"])
    summary = score_table(handle, uri, run.table("test"), scores, maps)
    if parts_table.has_parts(scores):
        calibration = Calibration.parse(model["calibration"]) if model["calibration"] else None
        for sentence in parts_table.write_parts(scores, calibration, summary.images).sentences():
            console.print(sentence, markup=False)
    return summary


def evaluate(out: str, name: str, size: int | None = None) -> Evaluation:
    """Metrics of a model's test score table; they describe it and decide nothing.

    Raises:
        DataError: if the run has no test images.
    """
    from raydiff.evaluation.evaluate import evaluate as evaluate_scores

    run = _existing(out)
    _check_tested(out)
    model_id = describe(run.existing_model(name))["id"]
    found = evaluate_scores(run.scores(name, model_id), size)
    storage.write_json(run.evaluation(name, model_id), found.model_dump(mode="json"))
    return found


def report(out: str) -> str:
    """Write the run's report over all its models; its URI.

    Where the run has no test images it shows the held-out normals that calibrated its models.
    """
    from raydiff.report.report import write_report

    run = _existing(out)
    tested = has_test_images(out)
    entries = [_entry(run, name, tested) for name in run.models()]
    scored = [entry for entry in entries if storage.exists(entry.scores_uri)]
    if not scored:
        missing, step = ("score table", "score") if tested else ("calibrated model", "calibrate")
        raise DataError(f"{run.uri} holds no {missing} yet; run `raydiff {step} --out {run.uri}` first")
    return write_report(run.report, scored, champion=chosen(out))


def results(out: str) -> dict[str, Evaluation]:
    """The evaluations there are, by model name."""
    from raydiff.evaluation.evaluate import Evaluation

    run = _existing(out)
    places = {name: run.evaluation(name, describe(run.model(name))["id"]) for name in run.models()}
    return {
        name: Evaluation.model_validate(storage.read_json(place))
        for name, place in places.items()
        if storage.exists(place)
    }


def tunings(out: str) -> dict[str, dict[str, Any]]:
    """The tuning results there are, by model name."""
    run = _existing(out)
    places = {name: run.tuning(name) for name in run.models()}
    return {name: storage.read_json(uri) for name, uri in places.items() if storage.exists(uri)}


def chosen(out: str) -> str | None:
    """The model chosen by pseudo-validation, among those that were tuned."""
    found = tunings(out)
    return champion(found) if found else None


def choice(out: str) -> list[str]:
    """What is to be said of the choice, a sentence each."""
    return sentences(tunings(out))


def _entry(run: RunFolder, name: str, tested: bool) -> ReportEntry:
    from raydiff.report.runs import ReportEntry

    model_id = describe(run.model(name))["id"]
    evaluation, tuning = run.evaluation(name, model_id), run.tuning(name)
    held_out = run.scores(name, describe(run.model(name), calibrated=False)["id"], "calibrate")
    return ReportEntry(
        name=name,
        scores_uri=run.scores(name, model_id) if tested else held_out,
        held_out=not tested,
        evaluation_uri=evaluation if storage.exists(evaluation) else None,
        model_uri=run.model(name),
        tuning_uri=tuning if storage.exists(tuning) else None,
    )


def _check_tested(out: str) -> None:
    if not has_test_images(out):
        raise DataError(
            f"{RunFolder(out).uri} has no test images: index some (test/<defect>/, a table's split, --score), or score "
            "other images with jobs/score_archive.py"
        )


def _existing(out: str) -> RunFolder:
    run = RunFolder(out)
    if not storage.exists(run.images):
        raise DataError(f"{run.uri} holds no image table; run `raydiff index --data URI --out {run.uri}` first")
    return run
