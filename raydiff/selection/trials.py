"""A tuning's trials as its result (tuning/<name>.json) has them, side by side with those of other models.

A trial that was stopped early has a `share` below 1: its AUROC is over that part of the pseudo-validation set, not to
be held against the others', and it takes part in no choice. One that a later stage took over from an earlier one
stands in both, with the name of the stage that scored it under `scored_in`.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table
from scipy.stats import spearmanr

from raydiff.selection.space import described

COLUMNS = (
    "model",
    "method",
    "stage",
    "trial",
    "settings",
    "fixed",
    "pseudo_auroc",
    "share",
    "stopped",
    "test_auroc",
    "seconds",
    "scored_in",
    "chosen",
)


def whole(trial: Mapping[str, Any]) -> bool:
    """Whether a trial has scored the whole pseudo-validation set."""
    return bool(trial.get("share", 1.0) == 1.0)  # results from before there was early stopping have no share


def rank_correlation(trials: Sequence[Mapping[str, Any]]) -> float | None:
    """Spearman's correlation of pseudo-validation and test AUROC over a stage's whole trials, where it is defined."""
    pairs = [(trial["pseudo_auroc"], trial["test_auroc"]) for trial in trials if trial["test_auroc"] is not None]
    if len(pairs) < 3 or any(len(set(values)) == 1 for values in zip(*pairs, strict=True)):
        return None
    return float(spearmanr(*zip(*pairs, strict=True)).statistic)


def rows(model: str, tuning: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Every trial of every stage, in order, with COLUMNS as keys; `trial` counts those of the model from 1."""
    found: list[dict[str, Any]] = []
    for stage in tuning["stages"]:
        for trial in stage["trials"]:
            row = {
                "model": model,
                "method": tuning["method"],
                "stage": stage["name"],
                "trial": len(found) + 1,
                "settings": trial["settings"],
                "fixed": trial["fixed"],
                "pseudo_auroc": trial["pseudo_auroc"],
                "share": trial.get("share", 1.0),
                "stopped": not whole(trial),
                "test_auroc": trial["test_auroc"],
                "seconds": trial["seconds"],
                "scored_in": trial.get("scored_in", stage["name"]),
                "chosen": trial["settings"] == stage["chosen"],
            }
            found.append(row)
    return found


def as_csv(tunings: Mapping[str, Mapping[str, Any]]) -> bytes:
    """All trials of all models (their tuning results by name) as CSV in UTF-8; settings are JSON in one field."""
    sink = io.StringIO()
    writer = csv.DictWriter(sink, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for model, tuning in tunings.items():
        for row in rows(model, tuning):
            texts = {name: json.dumps(row[name]) for name in ("settings", "fixed", "stopped", "chosen")}
            writer.writerow(row | texts)
    return sink.getvalue().encode()


def trials_table(tunings: Mapping[str, Mapping[str, Any]]) -> Table:
    """One line a model: what was chosen, how good it is and what the search has cost, for the terminal."""
    table = Table()
    table.add_column("model", overflow="fold", min_width=13, max_width=22)
    table.add_column("chosen", overflow="fold", min_width=24)
    for heading in ("pseudo-\nvalidation\nAUROC", "\ntest\nAUROC", "trials\nwhole +\nstopped", "minutes"):
        table.add_column(heading, justify="right", no_wrap=True)
    for model, tuning in tunings.items():
        # Those of a stage that took them over are counted where they were scored.
        scored = [row for row in rows(model, tuning) if row["scored_in"] == row["stage"]]
        stopped = sum(row["stopped"] for row in scored)
        chosen: dict[str, Any] = {}
        for stage in tuning["stages"]:
            chosen |= stage["chosen"]
        test = tuning.get("test_auroc")
        table.add_row(
            model,
            "\n".join(described({name: value}) for name, value in chosen.items()),
            f"{tuning['pseudo_auroc']:.4f}",
            "–" if test is None else f"{test:.4f}",
            f"{len(scored) - stopped} + {stopped}",
            f"{sum(row['seconds'] for row in scored) / 60:.1f}",
        )
    return table
