"""What a run's report says of its training, of what calibration promised, and of the methods beside each other."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from raydiff.model.interval import CONFIDENCE, clopper_pearson
from raydiff.report import facts, gallery
from raydiff.report.drawing import figure, inline_svg, method_style
from raydiff.report.runs import ANOMALOUS, NORMAL, UNKNOWN, Run

COMPARED = 8  # images that are shown with the maps of all methods
SIDE = 192  # of these pictures, pixels
SEED = 0
_LOG = 20.0  # a loss that falls by more than this is drawn on a logarithmic axis


def loss_curves(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """The loss of each run that took gradient steps, over its steps, as its model's card keeps it."""
    found = []
    for number, run in enumerate(runs):
        curve = ((run.model or {}).get("card") or {}).get("loss_curve") or []
        points = [(step, loss) for step, loss in curve if np.isfinite(loss)]
        if len(points) > 1:
            steps, losses = (np.array(values, float) for values in zip(*points, strict=True))
            found.append(
                {
                    "number": number,
                    "name": run.name,
                    "steps": int(steps[-1]),
                    "first": float(losses[0]),
                    "last": float(losses[-1]),
                    "plot": _loss_figure(number, steps, losses),
                }
            )
    return found


def false_alarms(runs: Sequence[Run]) -> dict[str, Any] | None:
    """What calibration promised of normal images, and how many of the labelled ones raised an alarm, by category.

    The interval is Clopper and Pearson's: rates that the count is compatible with at `CONFIDENCE`.
    """
    rows: list[dict[str, Any]] = []
    for number, run in enumerate(runs):
        if run.calibration is None or run.held_out:  # held-out images set the threshold themselves
            continue
        normal = run.scored & (run.label == NORMAL)
        by_category = {name: normal & run.rows(name) for name in run.categories}
        groups: list[tuple[str | None, NDArray[np.bool_]]] = [each for each in by_category.items() if each[1].any()]
        if len(groups) > 1:
            groups.append((None, normal))
        for name, mine in groups:
            images, alarms, rate = int(mine.sum()), int((run.alarm & mine).sum()), run.calibration.rate
            low, high = clopper_pearson(alarms, images)
            rows.append(
                {
                    "number": number,
                    "name": run.name,
                    "category": name,
                    "images": images,
                    "alarms": alarms,
                    "rate": rate,
                    "promised": all(
                        facts.promised(run.calibration, each) for each in (run.categories if name is None else [name])
                    ),
                    "low": float(low),
                    "high": float(high),
                    "verdict": "more" if low > rate else "fewer" if high < rate else "agrees",
                }
            )
    if not rows:
        return None
    return {"rows": rows, "end": max(row["high"] for row in rows), "confidence": CONFIDENCE}


def compared(runs: Sequence[Run], told: Callable[[], None] = lambda: None) -> dict[str, Any] | None:
    """Some images with the maps of all runs that have maps of them; None where there are not two such runs.

    Drawn at random with a fixed seed, of each category some, defective ones first; `told` is called after each.
    """
    with_maps = [(number, run) for number, run in enumerate(runs) if run.table["map_uri"].null_count < len(run.score)]
    if len(with_maps) < 2:
        return None
    places = [_places(run) for _, run in with_maps]
    shared = sorted(set.intersection(*map(set, places)))
    scales: dict[tuple[int, int], tuple[float, float] | None] = {}
    rows = []
    for uri in _chosen(with_maps[0][1], places[0], shared):
        cells = []
        for (number, run), place in zip(with_maps, places, strict=True):
            row = place[uri]
            key = number, int(run.category[row])
            if key not in scales:
                scales[key] = gallery.colour_scale(run, key[1])
            cells.append(_cell(run, row, scales[key]))
        rows.append(_image(with_maps[0][1], places[0][uri]) | {"cells": cells})
        told()
    return {"runs": with_maps, "rows": rows} if rows else None


def _loss_figure(number: int, steps: np.ndarray, losses: np.ndarray) -> Markup:
    made, axes = figure(4.6, 2.5)
    colour, _ = method_style(number)
    axes.plot(steps, losses, color=colour, linewidth=1.5)
    if losses.min() > 0 and losses.max() > _LOG * losses.min():
        axes.set_yscale("log")
        axes.set_ylim(losses.min() / 1.3, losses.max() * 1.3)
        axes.yaxis.set_tick_params(which="minor", labelleft=False)
    else:
        axes.set_ylim(min(0.0, float(losses.min())), 1.06 * float(losses.max()) or 1.0)
    axes.set(xlabel="step", ylabel="loss", xlim=(0, steps[-1]))
    return inline_svg(made)


def _places(run: Run) -> dict[str, int]:
    """Rows that have a map, by their image."""
    columns = (run.table[name].to_pylist() for name in ("uri", "map_uri"))
    return {
        uri: row
        for row, (uri, map_uri) in enumerate(zip(*columns, strict=True))
        if map_uri is not None and run.scored[row]
    }


def _chosen(run: Run, places: Mapping[str, int], shared: Sequence[str]) -> list[str]:
    """Images of each category in turn: two defective ones, a normal one and so on; unlabelled ones when these run out.

    In the order of their categories, defective ones first.
    """
    mixed = [shared[place] for place in np.random.default_rng(SEED).permutation(len(shared))]
    chosen: list[str] = []
    queues: dict[int, dict[int, list[str]]] = {}
    for uri in mixed:
        row = places[uri]
        queues.setdefault(int(run.category[row]), {}).setdefault(int(run.label[row]), []).append(uri)
    for label in [ANOMALOUS, ANOMALOUS, NORMAL] * COMPARED + [UNKNOWN] * COMPARED:
        for category in sorted(queues):
            waiting = queues[category].get(label)
            if waiting and len(chosen) < COMPARED:
                chosen.append(waiting.pop(0))
    return sorted(chosen, key=lambda uri: (int(run.category[places[uri]]), -int(run.label[places[uri]]), uri))


def _image(run: Run, row: int) -> dict[str, Any]:
    found = gallery.shown(run, row, None, mapped=False, side=SIDE)
    return {
        "uri": run.cell("uri", row),
        "category": run.categories[int(run.category[row])],
        "label": {ANOMALOUS: run.cell("defect", row) or "anomalous", NORMAL: "normal", UNKNOWN: ""}[
            int(run.label[row])
        ],
        "image": found.heat or found.image,  # with the defect's outline, if it is known
        "problem": found.problem,
    }


def _cell(run: Run, row: int, scale: tuple[float, float] | None) -> dict[str, Any]:
    found = gallery.shown(run, row, scale, outlined=False, side=SIDE)
    return {
        "heat": found.heat,
        "problem": found.problem,
        "score": float(run.score[row]),
        "threshold": float(run.threshold[row]) if np.isfinite(run.threshold[row]) else None,
        "alarm": bool(run.alarm[row]),
        "wrong": int(run.label[row]) != UNKNOWN and bool(run.alarm[row]) != (int(run.label[row]) == ANOMALOUS),
    }
