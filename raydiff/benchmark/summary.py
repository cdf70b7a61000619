"""Results over seeds: the mean over categories, the worst, how far they lie apart, and the seeds' spread."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from raydiff.benchmark.cell import Result
from raydiff.evaluation.evaluate import LOWER_IS_BETTER
from raydiff.selection.champion import champion
from raydiff.selection.trials import rank_correlation


class Figure(NamedTuple):
    """A number over seeds."""

    mean: float
    deviation: float | None  # of the seeds, n - 1; None of one seed
    seeds: int

    @classmethod
    def of(cls, values: Sequence[float | None]) -> Figure | None:
        """Over the seeds that have the number; None of none."""
        known = [value for value in values if value is not None]
        if not known:
            return None
        return cls(float(np.mean(known)), float(np.std(known, ddof=1)) if len(known) > 1 else None, len(known))

    def text(self, digits: int = 3) -> str:
        """As tables show it."""
        spread = "" if self.deviation is None else f" ± {self.deviation:.{digits}f}"
        return f"{self.mean:.{digits}f}{spread}"


class Line(NamedTuple):
    """A contender on a data set."""

    data: str
    contender: str
    mean: Mapping[str, Figure | None]  # over categories, each weighing the same, by metric
    worst: Mapping[str, tuple[str, float] | None]  # the category where its mean over seeds is worst
    apart: Mapping[str, Figure | None]  # deviation between categories (LafitE's table 1, n); None of one category
    categories: Mapping[str, Mapping[str, Figure | None]]


def lines(results: Sequence[Result], metrics: Sequence[str]) -> list[Line]:
    """A line a data set and contender, in the order in which they come."""
    pairs = dict.fromkeys((each["data"], each["contender"]) for each in results)
    return [
        _line(
            data,
            contender,
            [each for each in results if (each["data"], each["contender"]) == (data, contender)],
            metrics,
        )
        for data, contender in pairs
    ]


def _line(data: str, contender: str, results: Sequence[Result], metrics: Sequence[str]) -> Line:
    seeds = list(dict.fromkeys(each["seed"] for each in results))
    names = sorted({each["category"] for each in results})
    value = {(each["seed"], each["category"]): each for each in results}

    def over_categories(metric: str, told: Callable[[list[float]], float | None]) -> Figure | None:
        found = []
        for seed in seeds:
            known = [value[seed, name][metric] for name in names if (seed, name) in value]
            known = [each for each in known if each is not None]
            found.append(told(known) if known else None)
        return Figure.of(found)

    categories = {
        name: {
            metric: Figure.of([value[seed, name][metric] for seed in seeds if (seed, name) in value])
            for metric in metrics
        }
        for name in names
    }
    return Line(
        data,
        contender,
        mean={metric: over_categories(metric, lambda known: float(np.mean(known))) for metric in metrics},
        worst={metric: _worst(categories, metric) for metric in metrics},
        apart={
            metric: over_categories(metric, lambda known: float(np.std(known)) if len(known) > 1 else None)
            for metric in metrics
        },
        categories=categories,
    )


def _worst(categories: Mapping[str, Mapping[str, Figure | None]], metric: str) -> tuple[str, float] | None:
    known = [(figure.mean, name) for name, found in categories.items() if (figure := found[metric])]
    if not known:
        return None
    worst, name = max(known) if metric in LOWER_IS_BETTER else min(known)
    return name, worst


def pseudo_lines(results: Sequence[Result]) -> list[dict[str, Any]]:
    """How well the choice of score settings without labels foretold the test set: a line a data set and contender.

    The rank correlation is over all whole trials of a tuning, and the price the best of them by test labels less the
    chosen one's; both by the tuning's own look at the test set, which is bounded. Where each category has a model, the
    mean over categories of a seed, as all figures.
    """
    found = []
    for data, contender in dict.fromkeys((each["data"], each["contender"]) for each in results if "pseudo" in each):
        of = [each for each in results if (each["data"], each["contender"]) == (data, contender)]
        seeds: dict[int, dict[str, Any]] = {}
        for each in of:  # categories of one model share a tuning
            seeds.setdefault(each["seed"], {})[each["model_id"]] = each["pseudo"]
        correlation, price = (
            Figure.of([_mean([tuning[name] for tuning in tunings.values()]) for tunings in seeds.values()])
            for name in ("rank_correlation", "price")
        )
        trials = sum(tuning["trials"] for tunings in seeds.values() for tuning in tunings.values())
        found.append(
            {"data": data, "contender": contender, "trials": trials, "correlation": correlation, "price": price}
        )
    return found


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def champion_lines(results: Sequence[Result]) -> list[dict[str, Any]]:
    """Whether the choice among contenders without labels is the right one: a line a data set, seed and choice.

    Contenders are told by their mean of image AUROC and AUPRO over the categories, on all test images; the choice is
    the run's own (`selection.champion`). Where each category has a model, each category is a choice.
    """
    found = []
    tuned = [each for each in results if "pseudo" in each]
    for data, seed, category in dict.fromkeys((each["data"], each["seed"], _choice(each)) for each in tuned):
        of = [each for each in tuned if (each["data"], each["seed"], _choice(each)) == (data, seed, category)]
        names = list(dict.fromkeys(each["contender"] for each in of))
        pseudo = {each["contender"]: each["pseudo"] for each in of}
        tested = {name: [_score(each) for each in of if each["contender"] == name] for name in names}
        whole = {name: [value for value in values if value is not None] for name, values in tested.items()}
        known = {name: float(np.mean(values)) for name, values in whole.items() if len(values) == len(tested[name])}
        if len(known) < 2:
            continue
        chosen, best = champion({name: pseudo[name] for name in known}), max(known, key=lambda name: known[name])
        pairs = [{"pseudo_score": pseudo[name]["pseudo_score"], "test_score": value} for name, value in known.items()]
        found.append(
            {
                "data": data,
                "seed": seed,
                "category": category,
                "chosen": chosen,
                "best": best,
                "price": known[best] - known[chosen],
                "correlation": rank_correlation(pairs),
            }
        )
    return found


def _choice(result: Result) -> str | None:
    """The category that a model was chosen for; None: all of them."""
    return result["category"] if result["protocol_fields"]["models"] == "one a category" else None


def _score(result: Result) -> float | None:
    auroc, aupro = result["image_auroc"], result["aupro"]
    return auroc if auroc is None or aupro is None else (auroc + aupro) / 2
