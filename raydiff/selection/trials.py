"""A tuning's trials as its result (tuning/<name>.json) has them, side by side with those of other models.

A trial that was stopped early has a `share` below 1: its score is over that part of the pseudo-validation set, not to
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
    "pseudo_score",
    "pseudo_auroc",
    "pseudo_aupro",
    "share",
    "stopped",
    "test_score",
    "test_auroc",
    "test_aupro",
    "seconds",
    "scored_in",
    "chosen",
)
SCORES = tuple(name for name in COLUMNS if name.startswith(("pseudo_", "test_")))


def whole(trial: Mapping[str, Any]) -> bool:
    """Whether a trial has scored the whole pseudo-validation set."""
    return bool(trial.get("share", 1.0) == 1.0)  # results from before there was early stopping have no share


def rank_correlation(trials: Sequence[Mapping[str, Any]]) -> float | None:
    """Spearman's correlation of pseudo-validation and test score over whole trials, where it is defined."""
    pairs = [(trial["pseudo_score"], trial["test_score"]) for trial in trials if trial["test_score"] is not None]
    if len(pairs) < 3 or any(len(set(values)) == 1 for values in zip(*pairs, strict=True)):
        return None
    return float(spearmanr(*zip(*pairs, strict=True)).statistic)


def oracle_price(stages: Sequence[Mapping[str, Any]], chosen: Mapping[str, Any]) -> float | None:
    """What choosing without labels has cost: the best test score of all whole trials less that of the chosen settings.

    Who picks the best by its test score is an oracle, so this decides nothing; None without labels.

    Args:
        stages: of a tuning's result.
        chosen: what the trial of the last choice found.
    """
    known = [trial["test_score"] for stage in stages for trial in stage["trials"] if trial["test_score"] is not None]
    return max(known) - chosen["test_score"] if known else None


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
                **{name: trial[name] for name in SCORES},
                "share": trial.get("share", 1.0),
                "stopped": not whole(trial),
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
    headings = (
        "pseudo-\nvalidation\nscore",
        "\ntest\nscore",
        "less than\nan oracle\nchooses",
        "trials\nwhole +\nstopped",
        "minutes",
    )
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    for model, tuning in tunings.items():
        # Those of a stage that took them over are counted where they were scored.
        scored = [row for row in rows(model, tuning) if row["scored_in"] == row["stage"]]
        stopped = sum(row["stopped"] for row in scored)
        chosen: dict[str, Any] = {}
        for stage in tuning["stages"]:
            chosen |= stage["chosen"]
        table.add_row(
            model,
            "\n".join(described({name: value}) for name, value in chosen.items()),
            *(
                "–" if tuning[name] is None else f"{tuning[name]:.4f}"
                for name in ("pseudo_score", "test_score", "oracle_price")
            ),
            f"{len(scored) - stopped} + {stopped}",
            f"{sum(row['seconds'] for row in scored) / 60:.1f}",
        )
    return table
