"""The plots of a run's report, each one PNG, and a sweep's (SVG)."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from raydiff.report.drawing import BLUE, GRID, INK, MUTED, VERMILION, figure, legend, method_style, plain, png
from raydiff.selection.trials import rows, whole

_BINS = (12, 40)  # fewest and most; twice the root of the number of images in between
_CURVE_POINTS = 512
_NAMED_TRIALS = 10  # more than this and an axis shows numbers of trials instead of their settings
_SETTING_NAMES = {"corruption_steps": "corruption step T′", "neighbours": "neighbours k"}


@dataclass(frozen=True)
class RocCurve:
    """One line of a ROC plot; `alarm` is (false-alarm rate, recall) at the threshold, if there is one."""

    name: str
    false_alarm_rate: NDArray[np.float64]
    recall: NDArray[np.float64]
    alarm: tuple[float, float] | None

    @property
    def area(self) -> float:
        """Area under the line."""
        return float(np.trapezoid(self.recall, self.false_alarm_rate))


def roc_curve(
    name: str, scores: NDArray[np.float64], labels: NDArray[np.int8], alarms: NDArray[np.bool_] | None
) -> RocCurve | None:
    """The ROC curve of labelled scores (label 0 or 1); None where one of the two labels has no image."""
    positives, negatives = int((labels == 1).sum()), int((labels == 0).sum())
    if not positives or not negatives:
        return None
    order = np.argsort(-scores, kind="stable")
    last_of_ties = np.append(np.flatnonzero(np.diff(scores[order])), len(order) - 1)
    caught = np.cumsum(labels[order] == 1)[last_of_ties]
    false = np.cumsum(labels[order] == 0)[last_of_ties]
    alarm = None
    if alarms is not None:
        alarm = (float(alarms[labels == 0].mean()), float(alarms[labels == 1].mean()))
    return RocCurve(
        name,
        np.concatenate([[0.0], false / negatives]),
        np.concatenate([[0.0], caught / positives]),
        alarm,
    )


def roc_plot(curves: Mapping[int, RocCurve]) -> bytes:
    """ROC curves of one category, keyed by the run's number, which picks colour and dashes."""
    made, axes = figure(3.6, 3.5)
    axes.plot([0, 1], [0, 1], color=GRID, linewidth=1)
    for number, curve in curves.items():
        colour, dashes = method_style(number)
        keep = np.unique(np.linspace(0, len(curve.recall) - 1, _CURVE_POINTS).astype(int))
        axes.plot(
            curve.false_alarm_rate[keep],
            curve.recall[keep],
            color=colour,
            linestyle=dashes,
            linewidth=1.8,
            label=f"{plain(curve.name)}  {curve.area:.3f}",
        )
        if curve.alarm:
            axes.plot(*curve.alarm, "o", color=colour, markeredgecolor="white", markersize=7, zorder=5)
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), xlabel="false-alarm rate", ylabel="recall", aspect="equal")
    legend(axes, title="area under the curve")
    return png(made)


def histogram_plot(
    scores: NDArray[np.float64], labels: NDArray[np.int8], threshold: float | None, what: str = "score"
) -> bytes:
    """Scores of one category, or other numbers, by label (0, 1, -1 unknown), each as a share of its own kind.

    The axis ends at the 0.1 % and 99.9 % quantiles; the outer bins hold what lies beyond.
    """
    made, axes = figure(3.6, 2.5)
    ends = [float(value) for value in np.quantile(scores, [0.001, 0.999])]
    if threshold is not None:
        ends = [min(ends[0], threshold), max(ends[1], threshold)]
    if ends[0] == ends[1]:
        ends = [ends[0] - 0.5, ends[1] + 0.5]
    bins = np.linspace(ends[0], ends[1], int(np.clip(2 * np.sqrt(len(scores)), *_BINS)) + 1)
    kinds = ((-1, "unknown", MUTED, "//"), (0, "normal", BLUE, ""), (1, "anomalous", VERMILION, ""))
    for label, name, colour, hatch in kinds:
        mine = scores[labels == label]
        if not len(mine):
            continue
        heights, _ = np.histogram(np.clip(mine, ends[0], ends[1]), bins, weights=np.full(len(mine), 1 / len(mine)))
        axes.stairs(heights, bins, fill=True, color=colour, alpha=0.3, hatch=hatch)
        axes.stairs(heights, bins, color=colour, linewidth=1.4, label=f"{name} ({len(mine):,})")
    if threshold is not None:
        axes.axvline(threshold, color=INK, linestyle="--", linewidth=1.3, label="alarm threshold")
    axes.set(xlabel=what, ylabel="share of images", ylim=(0, None))
    legend(axes)
    return png(made)


def tuning_plot(stage: Mapping[str, Any]) -> bytes:
    """The score against the setting that one tuning stage varied (as LafitE, figure 6).

    Solid: made anomalies, which decide; the chosen trial has a ring. Dashed: the labelled test set, if it was
    recorded, which decides nothing. Crosses: trials that were stopped early, by their score up to there.
    """
    made, axes = figure(4.6, 3.1)
    trials = [trial for trial in stage["trials"] if trial.get("pseudo_score") is not None]
    x, names, label = _trial_axis([trial["settings"] for trial in trials])
    order = np.argsort(x, kind="stable")
    complete = np.array([whole(trial) for trial in trials], dtype=bool)
    to_the_end = order[complete[order]]
    pseudo = np.array([trial["pseudo_score"] for trial in trials], dtype=float)
    test = np.array([_nan(trial.get("test_score")) for trial in trials], dtype=float)
    axes.plot(x[to_the_end], pseudo[to_the_end], "o-", color=BLUE, markersize=4.5, label="made anomalies")
    if not complete.all():
        axes.plot(x[~complete], pseudo[~complete], "x", color=MUTED, markersize=5, label="stopped early")
    if np.isfinite(test).any():
        axes.plot(
            x[to_the_end],
            test[to_the_end],
            "s--",
            color=MUTED,
            markersize=4,
            markerfacecolor="white",
            label="test set (shown only, not used)",
        )
    chosen = chosen_trial(stage, trials)
    if chosen is not None:
        axes.plot(
            x[chosen],
            pseudo[chosen],
            "o",
            markersize=12,
            markerfacecolor="none",
            markeredgecolor=VERMILION,
            markeredgewidth=2,
            label="chosen",
        )
    if names is None and len(x) and x.min() > 0 and x.max() / x.min() >= 16:
        axes.set_xscale("log")
    values = np.unique(x)
    if names is not None or len(values) <= _NAMED_TRIALS:
        axes.set_xticks(values, names or [f"{value:g}" for value in values])
        axes.set_xticks([], minor=True)
    axes.margins(x=0.08, y=0.18)
    axes.set(xlabel=plain(label), ylabel="mean of image AUROC and AUPRO")
    legend(axes)
    return png(made)


def trials_plot(tunings: Mapping[str, Mapping[str, Any]]) -> bytes:
    """Every trial of every model in the order of its search (SVG): the score on made anomalies, and the best so far.

    Crosses: trials that were stopped early, by their score up to there, which takes no part in the best.

    Args:
        tunings: tuning results by the models' names.
    """
    made, axes = figure(7.2, 4.2)
    for number, (name, tuning) in enumerate(tunings.items()):
        colour, dashes = method_style(number)
        scored = [row for row in rows(name, tuning) if row["scored_in"] == row["stage"]]
        x, score = np.arange(1, len(scored) + 1), np.array([row["pseudo_score"] for row in scored])
        stopped = np.array([row["stopped"] for row in scored], dtype=bool)
        best = np.maximum.accumulate(np.where(stopped, -np.inf, score))
        axes.plot(x[~stopped], score[~stopped], "o", color=colour, markersize=4, alpha=0.6)
        axes.plot(x[stopped], score[stopped], "x", color=colour, markersize=5, alpha=0.6)
        seen = np.isfinite(best)
        axes.step(
            x[seen],
            best[seen],
            where="post",
            color=colour,
            linestyle=dashes,
            linewidth=1.8,
            label=f"{plain(name)}  {tuning['pseudo_score']:.4f}",
        )
        if stopped.any():
            axes.plot([], [], "x", color=colour, markersize=5, label=f"{stopped.sum()} stopped early")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set(xlabel="trial", ylabel="mean of image AUROC and AUPRO on made anomalies, and the best so far")
    legend(axes)
    sink = io.BytesIO()
    made.savefig(sink, format="svg", metadata={"Date": None})
    return sink.getvalue()


def chosen_trial(stage: Mapping[str, Any], trials: Sequence[Mapping[str, Any]]) -> int | None:
    """The place of the stage's chosen settings among `trials`, if it is there. A lone trial is the choice."""
    if len(trials) == 1:
        return 0
    chosen = stage.get("chosen") or {}
    for place, trial in enumerate(trials):
        shared = trial["settings"].keys() & chosen.keys()
        if shared and all(trial["settings"][key] == chosen[key] for key in shared):
            return place
    return None


def _trial_axis(
    settings: Sequence[Mapping[str, Any]],
) -> tuple[NDArray[np.float64], list[str] | None, str]:
    """Where trials stand on the x axis, the names of those places (None: numbers) and the axis's name."""
    keys = list(dict.fromkeys(key for each in settings for key in each))
    varied = [key for key in keys if len({repr(each.get(key)) for each in settings}) > 1] or keys
    if len(varied) == 1:
        label = _SETTING_NAMES.get(varied[0], varied[0].replace("_", " "))
        values = [_alone(each.get(varied[0])) for each in settings]
        if all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
            return np.array(values, dtype=float), None, label
    else:
        label = ", ".join(_SETTING_NAMES.get(key, key.replace("_", " ")) for key in varied)
    places = np.arange(len(settings), dtype=float)
    if len(settings) > _NAMED_TRIALS:
        return places + 1, None, f"trial ({label})"
    return places, ["\n".join(plain(_short(each.get(key))) for key in varied) for each in settings], label


def _alone(value: Any) -> Any:
    return value[0] if isinstance(value, list | tuple) and len(value) == 1 else value


def _short(value: Any) -> str:
    if isinstance(value, list | tuple):
        return "+".join(_short(each) for each in value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def _nan(value: float | None) -> float:
    return float("nan") if value is None else value
