"""The report: one HTML file that holds everything it shows and asks the network for nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from raydiff.errors import SettingsError
from raydiff.model.calibration import Calibration
from raydiff.progress import Phase, phase
from raydiff.report import facts, figures, gallery, runs, training
from raydiff.report.page import write_page
from raydiff.report.runs import ReportEntry, Run
from raydiff.selection.trials import whole

__all__ = ["ReportEntry", "write_report"]

MAX_CATEGORIES = 24  # with plots of their own; tables show all
MAX_ERRORS = 50  # rows of the errors table
_METRICS = (
    ("image_auroc", "image AUROC"),
    ("image_ap", "image AP"),
    ("image_f1_max", "image F1-max"),
    ("pixel_auroc", "pixel AUROC"),
    ("pixel_ap", "pixel AP"),
    ("aupro", "AUPRO"),
    ("false_alarm_rate", "false alarms"),
    ("recall", "recall"),
)
_Line = tuple[int, str, Mapping[str, Any], Mapping[str, Any]]  # run's number and name, values, where they are from
_RATES = {"false_alarm_rate", "recall"}  # of one threshold: shown in per cent, and neither is "best" alone


def write_report(
    out_uri: str,
    entries: Sequence[ReportEntry],
    title: str = "raydiff report",
    champion: str | None = None,
) -> str:
    """Write the report of some scored runs.

    Args:
        out_uri: a folder, which gets `report.html`, or a name that ends in `.html`.
        entries: the runs, in the order in which they are shown.
        champion: the name of the entry that pseudo-validation chose, if a choice was made.

    Returns:
        The URI of the file.

    Raises:
        SettingsError: if there is no entry, two have one name, or the champion is none of them.
        DataError: if an entry's score table is not there.
        StorageError: if something else that an entry names cannot be read. A missing image, mask or anomaly
            map is no error: its place in the report says why it is empty.
    """
    names = [entry.name for entry in entries]
    if not names:
        raise SettingsError("a report needs at least one scored run; give one ReportEntry or more")
    if len(set(names)) < len(names):
        raise SettingsError(f"each ReportEntry needs a name of its own, got {', '.join(names)}")
    if champion is not None and champion not in names:
        raise SettingsError(f"the champion {champion!r} is none of the entries ({', '.join(names)})")
    loaded = [runs.load(entry) for entry in entries]
    shown = _plotted_categories(loaded)
    pictures = len(loaded) * gallery.PER_GROUP * 3 + len(shown) + training.COMPARED
    with phase("report", pictures, "pictures") as progress:
        target = write_page(
            out_uri,
            "run.html",
            title=title,
            champion=champion,
            reasons=facts.champion_reason(loaded, champion) if champion else [],
            runs=loaded,
            overview=[_overview(run) for run in loaded],
            untested=facts.untested(loaded),
            next_commands=[
                facts.archive_command(run.model_uri, run.table["uri"].to_pylist())
                for run in loaded
                if run.held_out and run.model_uri
            ],
            verdicts=facts.verdicts(loaded),
            no_verdict=facts.no_verdict(loaded),
            metrics=_METRICS,
            rates=_RATES,
            results=list(_results(loaded)),
            unusable=_unusable_masks(loaded),
            defects=list(_defects(loaded)),
            tuning=[_tuning(run) for run in loaded if run.tuning],
            losses=training.loss_curves(loaded),
            false_alarms=training.false_alarms(loaded),
            compared=training.compared(loaded, progress.advance),
            left_out=len(runs.categories(loaded)) - len(shown),
            plots=[_category_plots(loaded, category, progress) for category in shown],
            galleries=[(run.name, gallery.groups(run, told=progress.advance)) for run in loaded],
            cards=[_card(run) for run in loaded],
            errors=_errors(loaded),
        )
        progress.update(pictures)
    return target


def _plotted_categories(loaded: Sequence[Run]) -> list[str]:
    """The categories that get plots: those with the most images, in the order of their names."""
    counts = {name: sum(int(run.rows(name).sum()) for run in loaded) for name in runs.categories(loaded)}
    most = sorted((name for name in counts if counts[name]), key=lambda name: (-counts[name], name))
    return sorted(most[:MAX_CATEGORIES])


def _overview(run: Run) -> dict[str, Any]:
    return {
        "run": run,
        "images": len(run.score),
        "errors": int((~run.scored).sum()),
        "alarms": int(run.alarm.sum()),
        "categories": len(run.categories),
        "means": {name: run.metric(name) for name, _ in _METRICS},
        "pseudo": facts.pseudo_score(run.tuning),
    }


def _results(loaded: Sequence[Run]) -> Iterator[dict[str, Any]]:
    """Blocks of the results table: the mean, the worst, then each category."""
    measured = [(number, run.name, run.evaluation) for number, run in enumerate(loaded) if run.evaluation]
    if not measured:
        return
    yield _block("Mean", [(number, name, found["mean"], {}) for number, name, found in measured])
    worst: list[_Line] = []
    for number, name, found in measured:
        cells = {metric: found["worst"].get(metric) or {} for metric, _ in _METRICS}
        values = {metric: cell.get("value") for metric, cell in cells.items()}
        where = {metric: cell.get("category") for metric, cell in cells.items()}
        worst.append((number, name, values, where))
    yield _block("Worst category", worst)
    for category in sorted({category for *_, found in measured for category in found["categories"]}):
        lines: list[_Line] = [
            (number, name, found["categories"][category], {})
            for number, name, found in measured
            if category in found["categories"]
        ]
        images, anomalous = lines[0][2].get("images"), lines[0][2].get("anomalous")
        yield _block(category, lines, f"{images} images, {anomalous} anomalous")


def _block(title: str, lines: Sequence[_Line], note: str = "") -> dict[str, Any]:
    best = {}
    for name, _ in _METRICS:
        values = {round(line[2][name], 3) for line in lines if line[2].get(name) is not None}
        if len(values) > 1 and name not in _RATES:
            best[name] = max(values)
    return {"title": title, "note": note, "lines": lines, "best": best}


def _unusable_masks(loaded: Sequence[Run]) -> dict[str, Any]:
    """Masks that left their images out of the pixel metrics: how many in the run with most, and the first of them."""
    evaluations = [run.evaluation for run in loaded if run.evaluation]
    rows = {mask["uri"]: mask["reason"] for found in evaluations for mask in found.get("unusable", ())}
    count = max((found.get("unusable_masks", 0) for found in evaluations), default=0)
    return {"count": count, "rows": list(rows.items())[:MAX_ERRORS]}


def _defects(loaded: Sequence[Run]) -> Iterator[tuple[str, str, list[dict[str, Any] | None]]]:
    """(category, defect, one entry a run) of each kind of defect that was evaluated."""
    places = [run.evaluation["categories"] if run.evaluation else {} for run in loaded]
    kinds = {(category, kind) for each in places for category in each for kind in each[category].get("defects", {})}
    for category, kind in sorted(kinds):
        yield category, kind, [each.get(category, {}).get("defects", {}).get(kind) for each in places]


def _tuning(run: Run) -> dict[str, Any]:
    assert run.tuning is not None
    stages = []
    for stage in run.tuning["stages"]:
        if sum(trial.get("pseudo_score") is not None for trial in stage["trials"]) < 2:
            continue  # nothing was varied
        stages.append(
            {
                "name": stage["name"].replace("_", " "),
                "plot": figures.tuning_plot(stage),
                "trials": len(stage["trials"]),
                "stopped": sum(not whole(trial) for trial in stage["trials"]),
                "seconds": sum(trial.get("seconds") or 0.0 for trial in stage["trials"]),
                "chosen": facts.flat(stage.get("chosen") or {}),
                "fixed": facts.flat(stage["trials"][0].get("fixed") or {}),
                "tested": any(trial.get("test_score") is not None for trial in stage["trials"]),
                "rank_correlation": (run.tuning.get("rank_correlation") or {}).get(stage["name"]),
            }
        )
    images = run.tuning.get("pseudo_images") or {}
    return {
        "run": run,
        "pseudo": facts.pseudo_score(run.tuning),
        "oracle_price": run.tuning.get("oracle_price"),
        "stages": stages,
        "normals": sum(pair[0] for pair in images.values()),
        "made": sum(pair[1] for pair in images.values()),
    }


def _category_plots(loaded: Sequence[Run], category: str, progress: Phase) -> dict[str, Any]:
    """ROC of all runs and one histogram a run, for one category."""
    curves, histograms, details = {}, [], []
    for number, run in enumerate(loaded):
        rows = run.rows(category)
        if not rows.any():
            continue
        scores, labels, thresholds = run.score[rows], run.label[rows], run.threshold[rows]
        known = thresholds[np.isfinite(thresholds)]
        labelled = labels != runs.UNKNOWN
        curve = figures.roc_curve(
            run.name, scores[labelled], labels[labelled], run.alarm[rows][labelled] if len(known) else None
        )
        if curve:
            curves[number] = curve
        histograms.append(
            {
                "name": run.name,
                "number": number,
                "plot": figures.histogram_plot(scores, labels, float(known[0]) if len(known) else None),
                "threshold": float(known[0]) if len(known) else None,
                "sentence": facts.calibration_sentence(run.calibration, category)
                + facts.made_alarms(run.model, category),
                "promised": facts.promised(run.calibration, category),
                "measured": curve.alarm if curve else None,
            }
        )
        for name, values in run.details.items():
            told = rows & np.isfinite(values)
            what = name.replace("_", " ")
            if told.any():
                plot = figures.histogram_plot(values[told], run.label[told], None, what)
                details.append({"run": run.name, "number": number, "what": what, "plot": plot})
    progress.advance()
    return {
        "category": category,
        "roc": figures.roc_plot(curves) if curves else None,
        "histograms": histograms,
        "details": details,
    }


def _card(run: Run) -> dict[str, Any]:
    model = run.model or {}
    settings = model.get("settings") or {}
    groups = {
        "Training settings": settings.get("train"),
        "Score settings": settings.get("score"),
        "Card": {name: value for name, value in (model.get("card") or {}).items() if name != "loss_curve"},
        "Evaluation": run.evaluation and {key: run.evaluation[key] for key in ("size", "pixel_metrics", "images")},
    }
    return {
        "run": run,
        "groups": [(title, facts.flat(values)) for title, values in groups.items() if values],
        "thresholds": _thresholds(run.calibration, run.categories) if run.calibration else [],
    }


def _thresholds(calibration: Calibration, categories: Sequence[str]) -> list[dict[str, Any]]:
    rows = []
    for category in categories:
        used = calibration.of(category)
        rows.append(
            {
                "category": category,
                "threshold": used.threshold,
                "rate": calibration.rate,
                "normals": used.normals,
                "of_all": not calibration.is_own(category),
                "promised": used.promised,
            }
        )
    return rows


def _errors(loaded: Sequence[Run]) -> dict[str, Any]:
    """Images that could not be scored: how many in each run, and the first of them with the reason."""
    rows: dict[tuple[str, str, str], list[str]] = {}
    counts = []
    for run in loaded:
        failed = np.flatnonzero(~run.scored)
        counts.append((run.name, len(failed)))
        for row in failed[:MAX_ERRORS]:
            key = (
                run.cell("uri", int(row)),
                run.cell("category", int(row)) or "",
                run.cell("error", int(row)) or "",
            )
            rows.setdefault(key, []).append(run.name)
    first = [(*key, ", ".join(names)) for key, names in list(rows.items())[:MAX_ERRORS]]
    cut = len(rows) > len(first) or any(count > MAX_ERRORS for _, count in counts)
    return {"counts": counts, "any": bool(first), "cut": cut, "rows": first}
