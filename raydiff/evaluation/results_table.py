"""Evaluations side by side, for the terminal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from rich.table import Table

from raydiff.evaluation.evaluate import CategoryEvaluation, Evaluation, mean_over

COLUMNS = {
    "image_auroc": "image\nAUROC",
    "image_ap": "image\nAP",
    "pixel_auroc": "pixel\nAUROC",
    "aupro": "AUPRO",
    "false_alarm_rate": "false\nalarms",
    "recall": "recall",
}
RATES = {"false_alarm_rate", "recall"}  # of one threshold, the calibration's

NAMED = 5  # masks that are left out


def results_table(evaluations: Iterable[tuple[str, Evaluation]]) -> Table:
    """A table of the main metrics, and of what alarms: one row per category and method, then each method's mean.

    Fits 100 columns; long names are folded. A metric that could not be computed is a dash.

    Args:
        evaluations: each with its method's name to show; a method with a model per category has several.
    """
    methods: dict[str, dict[str, CategoryEvaluation]] = {}
    for name, evaluation in evaluations:
        methods.setdefault(name, {}).update(evaluation.categories)
    table = Table()
    for heading in ("category", "method"):
        table.add_column(heading, overflow="fold", max_width=21)
    for heading in COLUMNS.values():
        table.add_column(heading, justify="right", no_wrap=True)
    for category in sorted({name for categories in methods.values() for name in categories}):
        for method, categories in methods.items():
            if category in categories:
                table.add_row(category, method, *_cells(categories[category].model_dump()))
        table.add_section()
    for method, categories in methods.items():
        means = {metric: mean_over(categories, metric) for metric in COLUMNS}
        table.add_row("mean", method, *_cells(means), style="bold")
    return table


def _cells(values: Mapping[str, float | None]) -> list[str]:
    return ["–" if values[name] is None else _shown(name, values[name]) for name in COLUMNS]


def _shown(metric: str, value: float | None) -> str:
    return f"{value:.1%}" if metric in RATES else f"{value:.3f}"


def left_out(evaluations: Iterable[Evaluation]) -> list[str]:
    """What the pixel metrics were not made from although it is anomalous: a line for the count, one for each of a few.

    The models of a run are evaluated on the same masks, so each mask is named once.
    """
    counted = {evaluation.unusable: evaluation.unusable_masks for evaluation in evaluations}
    masks = {mask.uri: mask.reason for unusable in counted for mask in unusable}
    if not masks:
        return []
    lines = [f"left out of pixel metrics, because their masks cannot be used: {sum(counted.values())} images"]
    return lines + [f"    {uri}: {reason}" for uri, reason in list(masks.items())[:NAMED]]
