"""What came of a run: its models' metrics on the test images, and its report."""

from __future__ import annotations

from typing import TYPE_CHECKING

from raydiff import storage
from raydiff.errors import DataError
from raydiff.model.description import describe
from raydiff.run_folder import RunFolder
from raydiff.steps.scoring import check_tested, has_test_images
from raydiff.steps.tuning import chosen

if TYPE_CHECKING:
    from raydiff.evaluation.evaluate import Evaluation
    from raydiff.report.runs import ReportEntry


def evaluate(out: str, name: str, size: int | None = None) -> Evaluation:
    """Metrics of a model's test score table; they describe it and decide nothing.

    Raises:
        DataError: if the run has no test images.
    """
    from raydiff.evaluation.evaluate import evaluate as evaluate_scores

    run = RunFolder.existing(out)
    check_tested(out)
    model_id = describe(run.existing_model(name))["id"]
    found = evaluate_scores(run.scores(name, model_id), size)
    storage.write_json(run.evaluation(name, model_id), found.model_dump(mode="json"))
    return found


def results(out: str) -> dict[str, Evaluation]:
    """The evaluations there are, by model name."""
    from raydiff.evaluation.evaluate import Evaluation

    run = RunFolder.existing(out)
    places = {name: run.evaluation(name, describe(run.model(name))["id"]) for name in run.models()}
    return {
        name: Evaluation.model_validate(storage.read_json(place))
        for name, place in places.items()
        if storage.exists(place)
    }


def report(out: str) -> str:
    """Write the run's report over all its models; its URI.

    Where the run has no test images it shows the held-out normals that calibrated its models.
    """
    from raydiff.report.report import write_report

    run = RunFolder.existing(out)
    tested = has_test_images(out)
    entries = [_entry(run, name, tested) for name in run.models()]
    scored = [entry for entry in entries if storage.exists(entry.scores_uri)]
    if not scored:
        missing, step = ("score table", "score") if tested else ("calibrated model", "calibrate")
        raise DataError(f"{run.uri} holds no {missing} yet; run `raydiff {step} --out {run.uri}` first")
    return write_report(run.report, scored, champion=chosen(out))


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
