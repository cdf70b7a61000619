"""What commands and jobs say at their end, in the terminal."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from raydiff.progress import console, duration

if TYPE_CHECKING:
    from raydiff.evaluation.evaluate import Evaluation
    from raydiff.scoring.bulk import Summary


def print_results(evaluations: Iterable[tuple[str, Evaluation]]) -> None:
    """The results of evaluated models, by name, and what they leave out; nothing where there are none."""
    from raydiff.evaluation.results_table import left_out, results_table

    found = list(evaluations)
    if not found:
        return
    console.print(results_table(found))
    for line in left_out(evaluation for _, evaluation in found):
        console.print(line, markup=False)


def print_scored(summary: Summary | None) -> None:
    """What a bulk run did, in one line; None: nothing was missing."""
    if summary is None:
        console.print("scored: nothing was missing")
        return
    rate = f", {summary.rate:.1f} images/s after start-up" if summary.rate else ""
    console.print(
        f"scored: {summary.images} images, {summary.scored_now} of them now in {duration(summary.seconds)}{rate}; "
        f"{summary.alarms} alarms, {summary.errors} errors",
        markup=False,
    )
