"""What a recipe has measured beside what was published."""

from __future__ import annotations

from collections.abc import Sequence

from raydiff.benchmark.cell import Result
from raydiff.benchmark.summary import lines
from raydiff.benchmark.tables import METRICS, NONE, Table
from raydiff.recipes.recipe import MEAN, Recipe


def compared(recipe: Recipe, results: Sequence[Result], changed: str = "") -> Table:
    """Published and measured, category by category, and the mean; a dash where one of them is not known.

    Args:
        changed: in what the settings were not the recipe's; the numbers are then not to be held against each other.
    """
    metrics = [name for name in METRICS if any(name in values for values in recipe.published.values())]
    metrics = metrics or ["image_auroc", "pixel_auroc", "aupro"]
    of = [each for each in results if each["contender"] == recipe.method]
    (line,) = lines(of, metrics)
    names = [*sorted({*line.categories, *recipe.published} - {MEAN}), MEAN]
    rows = []
    for name in names:
        row, found = [name], line.mean if name == MEAN else line.categories.get(name, {})
        for metric in metrics:
            published, measured = recipe.published.get(name, {}).get(metric), found.get(metric)
            row += [NONE if published is None else f"{published:.3f}", NONE if measured is None else measured.text()]
        rows.append(row)
    headings = ["category", *(f"{METRICS[metric]} {side}" for metric in metrics for side in ("published", "measured"))]
    said = f"Published: {recipe.source}, on {recipe.hardware}; hours of training: {recipe.hours}."
    said += f" Measured: seeds {', '.join(str(seed) for seed in dict.fromkeys(each['seed'] for each in of))}."
    if changed:
        said += f" Measured with other settings than the recipe's ({changed}), so this compares nothing."
    return Table(recipe.title, said, headings, rows)
