"""The figures of an archive's report, as parts of the page."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, PercentFormatter
from numpy.typing import NDArray
from scipy.special import kolmogi

from raydiff.report.archive_counts import BELOW, STEPS, ScoreCounts
from raydiff.report.drawing import BLUE, INK, MUTED, VERMILION, figure, figure_of, inline_svg, legend
from raydiff.report.periods import Periods
from raydiff.scoring.drift import DRIFT_DISTANCE, DRIFT_P_VALUE, Drift

BARS = 60  # of a distribution, at most
BEYOND = 0.001  # share of the scores that the outermost bars may hold beyond the axis
_DAYS = {"day": 1, "week": 7, "month": 30, "year": 365}


class Bars(NamedTuple):
    """A distribution as it is drawn; the outermost bars hold what lies beyond the axis, too."""

    edges: NDArray[np.float64]  # (B + 1,)
    images: NDArray[np.float64]  # (B,) share of the scored images
    normals: NDArray[np.float64] | None  # (B,) share of the calibration's normal images
    cumulated: NDArray[np.float64]  # (B + 1,) share of the images with a score up to an edge
    cumulated_normals: NDArray[np.float64] | None


def alarms_figure(periods: Periods, scored: NDArray[np.int64], alarms: NDArray[np.int64], rate: float | None) -> Markup:
    """The share of images with an alarm in each period (P,), and below it their number."""
    made, (above, below) = figure_of(4.6, 2.9, [3, 2])
    with np.errstate(invalid="ignore"):
        share = alarms / scored  # NaN where there is no image
    width = 0.8 * _DAYS[periods.unit]
    above.plot(periods.starts, share, "o-", color=BLUE, markersize=3, linewidth=1.4, label="images with an alarm")
    if rate is not None:
        above.axhline(rate, color=INK, linestyle="--", linewidth=1.1, label="promised of normal images")
    below.bar(periods.starts, alarms, width, color=VERMILION)
    above.set(ylabel="share", ylim=(0, 1.15 * max(np.nanmax(share), rate or 0.0, 1e-4)))
    above.yaxis.set_major_formatter(PercentFormatter(1, symbol=" %"))
    below.set(ylabel=f"alarms a {periods.unit}", ylim=(0, max(1, 1.1 * int(alarms.max()))))
    below.yaxis.set_major_locator(MaxNLocator(3, integer=True))
    _over_time(below)
    legend(above)
    return inline_svg(made)


def bars(counts: ScoreCounts) -> Bars:
    """A distribution's bars: at most about `BARS` over where its scores and the calibration's lie."""
    both = [each for each in (counts.counts, counts.normals) if each.any()]
    shares = [np.cumsum(each)[:-1] / each.sum() for each in both]  # up to each edge
    first = min(int(np.searchsorted(share, BEYOND, "right")) for share in shares) - 1
    last = max(int(np.searchsorted(share, 1 - BEYOND)) for share in shares)
    at = (BELOW + 1) * STEPS if counts.threshold is not None else first
    first, last = max(0, min(first, at - 1)), min(len(counts.edges) - 1, max(last, at + 1))
    step = max(1, -(-(last - first) // BARS))
    start = at - step * min((at - first + step - 1) // step, at // step)
    stop = at + step * min(max(1, -(-(last - at) // step)), (len(counts.edges) - 1 - at) // step)
    chosen = np.arange(start, stop + 1, step)

    def heights(of: NDArray[np.int64]) -> NDArray[np.float64]:
        up_to = np.concatenate([[0], np.cumsum(of)[chosen[1:-1]], [of.sum()]])
        return np.diff(up_to) / of.sum()

    has_normals = bool(counts.normals.any())
    return Bars(
        counts.edges[chosen],
        heights(counts.counts),
        heights(counts.normals) if has_normals else None,
        shares[0][chosen],
        shares[1][chosen] if has_normals else None,
    )


def distribution_figure(counts: ScoreCounts) -> Markup:
    """The scores of an archive against those of the calibration: bars, and below them how many lie up to a score."""
    made, (above, below) = figure_of(4.6, 3.4, [3, 2])
    found = bars(counts)
    above.stairs(found.images, found.edges, fill=True, color=BLUE, alpha=0.35, linewidth=0)
    above.stairs(found.images, found.edges, color=BLUE, linewidth=1.2, label="this archive")
    below.plot(found.edges, found.cumulated, color=BLUE, linewidth=1.4)
    top = found.images.max()
    if found.normals is not None and found.cumulated_normals is not None:
        above.stairs(found.normals, found.edges, color=MUTED, linewidth=1.4, linestyle="--", label="normal images")
        below.plot(found.edges, found.cumulated_normals, color=MUTED, linestyle="--", linewidth=1.4)
        gap = int(np.argmax(np.abs(found.cumulated - found.cumulated_normals)))
        ends = found.cumulated[gap], found.cumulated_normals[gap]
        below.plot([found.edges[gap]] * 2, ends, color=VERMILION, linewidth=2.2, label="largest distance")
        top = max(top, found.normals.max())
    if counts.threshold is not None:
        above.axvline(counts.threshold, color=INK, linewidth=1.2, linestyle=":", label="alarm threshold")
        below.axvline(counts.threshold, color=INK, linewidth=1.2, linestyle=":")
    above.set(ylabel="share of images", ylim=(0, 1.06 * top), xlim=(found.edges[0], found.edges[-1]))
    below.set(ylabel="share up to it", xlabel="score", ylim=(0, 1))
    _legend_of(above, below)
    return inline_svg(made)


def drift_figure(periods: Periods, found: Sequence[tuple[int, Drift]]) -> Markup:
    """How far the scores of each period are from the calibration's."""
    made, axes = figure(4.6, 2.2)
    dates = periods.starts[[number for number, _ in found]]
    distances = np.array([drift.distance for _, drift in found])
    chance = np.array([_by_chance(drift) for _, drift in found])
    drifted = np.array([drift.drifted for _, drift in found])
    axes.plot(dates, distances, "o-", color=BLUE, markersize=3, linewidth=1.4, label="distance from the calibration")
    if drifted.any():
        axes.plot(dates[drifted], distances[drifted], "s", color=VERMILION, markersize=4.5, label="drifted")
    axes.axhline(DRIFT_DISTANCE, color=INK, linestyle="--", linewidth=1.1)
    axes.plot(dates, chance, color=MUTED, linestyle=":", linewidth=1.2, label="chance")
    top = max(2 * DRIFT_DISTANCE, chance.max(), distances.max())
    axes.set(ylabel="distance", ylim=(0, 1.1 * min(1.0, top)))
    _over_time(axes)
    legend(axes)
    return inline_svg(made)


def _by_chance(drift: Drift) -> float:
    """The distance that as many scores of the calibration's own distribution exceed with `DRIFT_P_VALUE`; 1 at most."""
    effective = drift.images * drift.normals / (drift.images + drift.normals)
    return min(1.0, float(kolmogi(DRIFT_P_VALUE)) / effective**0.5)


def _over_time(axes: Axes) -> None:
    locator = AutoDateLocator(minticks=2, maxticks=6)
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))
    axes.xaxis.get_offset_text().set(fontsize=7.5, color=MUTED)


def _legend_of(above: Axes, below: Axes) -> None:
    """One legend above both plots."""
    for line, name in zip(*below.get_legend_handles_labels(), strict=True):
        assert isinstance(line, Line2D)
        above.plot([], [], color=line.get_color(), linewidth=line.get_linewidth(), label=name)
    legend(above)
