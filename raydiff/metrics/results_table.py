"""Evaluations side by side, for the terminal."""

from __future__ import annotations

from collections.abc import Mapping

from rich.table import Table

from raydiff.metrics.evaluate import CategoryEvaluation, Evaluation

COLUMNS = {
    "image_auroc": "image AUROC",
    "image_ap": "image AP",
    "pixel_auroc": "pixel AUROC",
    "aupro": "AUPRO",
}


def results_table(evaluations: Mapping[str, Evaluation]) -> Table:
    """A table of the main metrics: one row per category and method, then each method's mean.

    Fits 100 columns; long names are folded. A metric that could not be computed is a dash.

    Args:
        evaluations: the methods' evaluations by the names to show.
    """
    table = Table()
    for heading in ("category", "method"):
        table.add_column(heading, overflow="fold", max_width=22)
    for heading in COLUMNS.values():
        table.add_column(heading, justify="right", no_wrap=True)
    for category in sorted({name for evaluation in evaluations.values() for name in evaluation.categories}):
        for method, evaluation in evaluations.items():
            if category in evaluation.categories:
                table.add_row(category, method, *_cells(evaluation.categories[category]))
        table.add_section()
    for method, evaluation in evaluations.items():
        table.add_row("mean", method, *_cells(evaluation.mean), style="bold")
    return table


def _cells(metrics: CategoryEvaluation | Mapping[str, float | None]) -> list[str]:
    values = metrics if isinstance(metrics, Mapping) else metrics.model_dump()
    return ["–" if values[name] is None else f"{values[name]:.3f}" for name in COLUMNS]
