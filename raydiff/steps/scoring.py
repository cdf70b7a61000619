"""What a deployed model does for a run: alarm thresholds from held-out normals, scores of the test images."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

from raydiff import cluster, storage
from raydiff.at_work import at_work
from raydiff.errors import DataError
from raydiff.images import table
from raydiff.images.holdout import roles
from raydiff.model.calibration import Calibration
from raydiff.model.description import describe
from raydiff.model.rate import DEFAULT_RATE, check_rate
from raydiff.progress import console
from raydiff.run_folder import RunFolder
from raydiff.scoring.made_by import check_scored_by
from raydiff.scoring.map_place import Maps
from raydiff.steps.indexing import BOTH

if TYPE_CHECKING:
    from ray.serve.handle import DeploymentHandle

    from raydiff.model.folder import Model
    from raydiff.scoring.bulk import Summary
    from raydiff.selection.budget import Budget, Outcome


@contextlib.contextmanager
def serving(out: str, name: str, replicas: int | None = None) -> Iterator[DeploymentHandle]:
    """A model of the run, deployed for `calibrate` and `score`; `replicas` as of `deployed`."""
    from raydiff.scoring.deployment import deployed

    run = RunFolder.existing(out)
    describe(run.existing_model(name))
    cluster.connect()
    with at_work(run.uri), deployed(run.model(name), replicas) as handle:
        yield handle


def calibrate(
    handle: DeploymentHandle, out: str, name: str, rate: float = DEFAULT_RATE, pseudo_images: int | None = None
) -> Model:
    """Set a model's alarm thresholds from the run's images with the role `calibrate`; `pseudo_images` as of `tune`."""
    from raydiff.selection.calibrate import calibrate as calibrate_model
    from raydiff.selection.pseudo_validation import PseudoValidationSettings

    size = PseudoValidationSettings.at_most(pseudo_images)
    run = RunFolder.existing(out)
    images = table.read(run.images)
    given = zip(images["category"].to_pylist(), roles(images), strict=True)
    shared = sorted({category for category, role in given if role == BOTH})
    uri = run.model(name)
    scores = run.scores(name, describe(uri, calibrated=False)["id"], "calibrate")
    return calibrate_model(handle, uri, run.table("calibrate"), scores, rate, shared, size)


def calibrate_to_budget(
    out: str, name: str, archive: str, budget: Budget, rate: float | None = None
) -> tuple[Model, Outcome]:
    """Set a calibrated model's alarm thresholds by how many alarms an archive that it scored may raise a day.

    Nothing is scored: the calibration keeps its normals' scores, the archive has its own. How many made anomalies raise
    an alarm is no longer known then.

    Args:
        archive: folder of a score table of this model's.
        rate: the false-alarm rate to start from (see `selection.budget`); None: that which was last asked for.

    Raises:
        SettingsError: if the rate is not above 0 and below 1, or as `budget.fit`.
        DataError: if the model is not calibrated, the scores are another model's or not all there, or as `budget.fit`.
    """
    from raydiff.model.folder import load
    from raydiff.selection.budget import fit

    if rate is not None:
        check_rate(rate)
    run = RunFolder.existing(out)
    uri = run.existing_model(name)
    with at_work(run.uri):
        check_scored_by(archive, uri)
        model = load(uri, "cpu")
        if model.calibration is None:
            raise DataError(f"{uri} is not calibrated; run `raydiff calibrate --out {run.uri} --model {name}` first")
        if rate is None:  # a budget of before may have raised the calibration's
            rate = float(model.card.get("budget", {}).get("asked_rate", model.calibration.rate))
        found = fit(archive, model.calibration, budget, rate)
        model.calibration = found.calibration
        model.card["made_anomalies"] = {}
        model.card["budget"] = {"archive": storage.absolute(archive), **budget._asdict(), "alarms": found.alarms}
        model.card["budget"] |= {"days": found.days, "asked_rate": found.asked_rate}
        model.save_description(uri)
    for sentence in (*found.calibration.sentences(), *found.sentences()):
        console.print(f"calibration: {sentence}", markup=False)
    return model, found


def has_test_images(out: str) -> bool:
    """Whether the run has images to score and to evaluate."""
    return table.read(RunFolder.existing(out).table("test")).num_rows > 0


def score(handle: DeploymentHandle, out: str, name: str, maps: Maps = "none") -> Summary:
    """Score the run's test images; where a column `part` says which part an image shows, a table of parts lies beside.

    Raises:
        DataError: if it has none.
    """
    from raydiff.scoring import parts_table
    from raydiff.scoring.bulk import score_table

    run = RunFolder.existing(out)
    check_tested(out)
    uri = run.model(name)
    model = describe(uri)
    scores = run.scores(name, model["id"])
    summary = score_table(handle, uri, run.table("test"), scores, maps)
    if parts_table.has_parts(scores):
        calibration = Calibration.parse(model["calibration"]) if model["calibration"] else None
        for sentence in parts_table.write_parts(scores, calibration, summary.images).sentences():
            console.print(sentence, markup=False)
    return summary


def check_tested(out: str) -> None:
    """Whether the run has images to score and to evaluate.

    Raises:
        DataError: if not.
    """
    if not has_test_images(out):
        raise DataError(
            f"{RunFolder(out).uri} has no test images: index some (test/<defect>/, a table's split, --score), or score "
            "other images with jobs/score_archive.py"
        )
