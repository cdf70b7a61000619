"""What an archive's report needs of its score table beside the summary, in one reading and in bounded memory.

An archive has millions of rows: what is kept grows with the model's categories and with periods, of which there are at
most `periods.MOST`, never with the rows.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from raydiff.images.table import BIT_DEPTH
from raydiff.model.calibration import Calibration, CategoryCalibration
from raydiff.report.periods import Periods
from raydiff.scoring.columns import by_category, category_key
from raydiff.scoring.drift import Drift, DriftCounts
from raydiff.scoring.summary import OTHER, ArchiveSummary, reason

COLUMNS = (
    *("uri", "category", "category_guessed", "day", "score", "p_value", "threshold"),
    *("is_anomalous", "map_uri", "error", BIT_DEPTH),
)
STEPS = 20  # bins from the middle of the normal scores to the threshold
BELOW, ABOVE = 10, 30  # so many times that far the bins reach
NORMALS = 200  # calibration scores that a period's are held against; of more, as many quantiles
EXAMPLES = 3  # images named for each kind of error
PER_GROUP = 8  # images of a gallery group
SEED = 0


class ScoreCounts:
    """The scores of images that one threshold applies to, counted in bins of a fixed width.

    Attributes:
        edges: (B,), ascending; the threshold is one of them, so that the bins above it hold the alarms and no others.
        counts: (B + 1,), images with a score in (edges[b - 1], edges[b]]; the first and last hold all beyond.
        normals: the same of the calibration's scores.
        threshold: None without a calibration.
        unit: from the middle of the normal scores to the threshold; distances of unlike categories are told in it.
    """

    def __init__(self, middle: float, unit: float, used: CategoryCalibration | None) -> None:
        self.middle, self.unit = middle, unit
        self.edges = middle + unit * (np.arange(-BELOW * STEPS, ABOVE * STEPS + 1) / STEPS)
        self.threshold = used.threshold if used else None
        if self.threshold is not None and self.threshold > middle:
            self.edges[(BELOW + 1) * STEPS] = self.threshold  # to the last digit
        self.counts = np.zeros(len(self.edges) + 1, np.int64)
        self.normals = np.zeros_like(self.counts)
        if used:
            self._count(self.normals, np.array(used.scores))

    @classmethod
    def calibrated(cls, used: CategoryCalibration) -> ScoreCounts:
        """Bins for scores that are held against those of a calibration."""
        low, high = used.colour_scale()
        return cls(low, (high - low) / 2, used)

    @classmethod
    def of_scores(cls, scores: NDArray[np.float64]) -> ScoreCounts:
        """Bins for scores like these, without a calibration."""
        low, middle, high = np.quantile(scores, [0.25, 0.5, 0.75]) if len(scores) else (0.0, 0.5, 1.0)
        return cls(float(middle), float(high - low) or max(1e-6 * abs(float(middle)), 1e-12), None)

    @property
    def images(self) -> int:
        """How many were counted."""
        return int(self.counts.sum())

    def add(self, scores: NDArray[np.float64]) -> None:
        """Count some scores (N,)."""
        self._count(self.counts, scores)

    def distance(self, scores: NDArray[np.float64]) -> NDArray[np.float64]:
        """(N,) how far scores are above the threshold (or the middle, without one), in units."""
        return (scores - (self.middle if self.threshold is None else self.threshold)) / self.unit

    def _count(self, counts: NDArray[np.int64], scores: NDArray[np.float64]) -> None:
        counts += np.bincount(np.searchsorted(self.edges, scores, "left"), minlength=len(counts))


class Smallest:
    """The rows with the smallest keys; among equal ones those that came first."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._keys = np.empty(0)
        self.rows: list[dict[str, Any]] = []

    def add(self, rows: pa.Table, keys: NDArray[np.float64]) -> None:
        """Look at some rows; those whose key is NaN are none."""
        good = np.flatnonzero(np.isfinite(keys))
        if len(self._keys) == self._count:
            good = good[keys[good] < self._keys[-1]]
        taken = good[np.argsort(keys[good], kind="stable")[: self._count]]
        if not len(taken):
            return
        together = np.concatenate([self._keys, keys[taken]])
        found = [*self.rows, *rows.take(pa.array(taken)).to_pylist()]
        order = np.argsort(together, kind="stable")[: self._count]
        self._keys, self.rows = together[order], [found[place] for place in order]


@dataclass(frozen=True)
class Example:
    """An image that could not be scored."""

    uri: str
    error: str


class ArchiveCounts:
    """What `add` has found in a score table, part by part.

    Attributes:
        rows: how many there were.
        scores: counts by category of the model, and `columns.OTHERS`; those that have images.
        examples: the first images of each kind of error.
    """

    def __init__(self, summary: ArchiveSummary, calibration: Calibration | None, periods: Periods | None) -> None:
        self.rows = 0
        self.scores: dict[str, ScoreCounts] = {}
        self._there = {found: min(count, EXAMPLES) for found, count in summary.errors.items() if found != OTHER}
        self.examples: dict[str, list[Example]] = {found: [] for found in self._there}
        self._calibration = calibration
        self._known = calibration.categories if calibration else None
        self._periods = periods
        self._drift: dict[tuple[str, int], DriftCounts] = {}
        self._thinned: dict[str, CategoryCalibration] = {}
        self._highest = Smallest(PER_GROUP)
        self._borderline = Smallest(2 * PER_GROUP)  # some of them may be among the highest
        self._normal = Smallest(3 * PER_GROUP)
        self._random = np.random.default_rng(SEED)

    def add(self, part: pa.Table, drift_of: Collection[str]) -> None:
        """Take in rows with COLUMNS; what else they have is kept of those in the gallery.

        Args:
            drift_of: categories whose drift is told by period.
        """
        self.rows += len(part)
        self._add_examples(part)
        draws = self._random.random(len(part))
        scored = part.filter(part["score"].is_valid())
        draws = draws[part["score"].is_valid().to_numpy()]
        distances = np.full(len(scored), np.nan)
        scores = scored["score"].to_numpy()
        for name, mine in by_category(scored, self._known):
            if name not in self.scores:
                self.scores[name] = self._counts_of(name, scores[mine])
            self.scores[name].add(scores[mine])
            distances[mine] = self.scores[name].distance(scores[mine])
            if name in drift_of:
                self._add_drift(name, scored["day"].filter(pa.array(mine)), scores[mine])
        self._highest.add(scored, -distances)
        if self._calibration is not None:
            self._borderline.add(scored, np.abs(distances))
        alarms = pc.fill_null(scored["is_anomalous"], False).to_numpy()
        self._normal.add(scored, np.where(alarms, np.nan, draws))

    def drift(self, category: str) -> list[tuple[int, Drift]]:
        """A category's drift in each of the periods that it has images of, by the period's number."""
        return [
            (period, counts.drift(name)) for (name, period), counts in sorted(self._drift.items()) if name == category
        ]

    def distance(self, category: str | None, score: float) -> float:
        """How far a score is above its threshold, as the gallery ranks images."""
        return float(self.scores[category_key(category, self._known)].distance(np.array([score]))[0])

    def gallery(self) -> tuple[list[dict[str, Any]], list[dict[str, Any]], list[dict[str, Any]]]:
        """Rows with the highest scores, those nearest to the threshold, and some at random that raise no alarm.

        No image is in two of them. Distances from the threshold are told in units of each category's own spread.
        """
        shown: set[str] = set()

        def unseen(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
            chosen = [row for row in rows if row["uri"] not in shown][:PER_GROUP]
            shown.update(row["uri"] for row in chosen)
            return chosen

        return unseen(self._highest.rows), unseen(self._borderline.rows), unseen(self._normal.rows)

    def _counts_of(self, category: str, scores: NDArray[np.float64]) -> ScoreCounts:
        if self._calibration is None:
            return ScoreCounts.of_scores(scores)
        return ScoreCounts.calibrated(self._calibration.of(category))

    def _add_drift(self, category: str, days: pa.ChunkedArray, scores: NDArray[np.float64]) -> None:
        if self._calibration is None or self._periods is None:
            return
        if category not in self._thinned:
            # its own normals, be they few, as in the summary
            self._thinned[category] = _thinned(self._calibration.categories.get(category, self._calibration.all))
        numbers = self._periods.numbers(days)
        for number in np.unique(numbers[numbers >= 0]).tolist():
            counts = self._drift.setdefault((category, number), DriftCounts(self._thinned[category]))
            counts.add(scores[numbers == number])

    def _add_examples(self, part: pa.Table) -> None:
        bad = part.filter(part["error"].is_valid()).select(["uri", "error"])
        wanting = {found for found, examples in self.examples.items() if len(examples) < self._there[found]}
        for error, uri in zip(bad["error"].to_pylist(), bad["uri"].to_pylist(), strict=True):
            if not wanting:
                return
            if (found := reason(error, uri)) in wanting:
                self.examples[found].append(Example(uri, error))
                if len(self.examples[found]) == self._there[found]:
                    wanting.remove(found)


def _thinned(used: CategoryCalibration) -> CategoryCalibration:
    if used.normals <= NORMALS:
        return used
    places = (np.arange(NORMALS) + 0.5) / NORMALS * used.normals
    return CategoryCalibration(scores=tuple(used.scores[int(place)] for place in places), rate=used.rate)
