"""What every metric here is computed from: the counts above a threshold that falls from infinity.

AUROC, average precision, F1-max and AUPRO are four readings of one curve, and an exact evaluation and a
binned one differ only in how they come to it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from raydiff.errors import DataError

FPR_LIMIT = 0.3  # of AUPRO, as in MVTec AD (Bergmann et al., IJCV 2021)


class OneClassError(DataError):
    """The metric compares normals with anomalies, and one of the two is missing."""


class PixelMetrics(NamedTuple):
    """The four pixel metrics of one set of anomaly maps, each in [0, 1]."""

    auroc: float
    average_precision: float
    f1_max: float
    aupro: float


@dataclass(frozen=True)
class Curve:
    """Counts at V falling thresholds; everything scored at or above a threshold counts as found.

    Between two neighbours the curve is a straight line: the scores there are tied, their order is unknown.

    Attributes:
        threshold: (V,) falling, ends below the lowest score.
        false_positives: (V,) normals found, rising to their total.
        true_positives: (V,) anomalies found, rising to their total.
        overlap: (V,) mean share of each region that is found (PRO), rising to 1; None without regions.
    """

    threshold: np.ndarray
    false_positives: np.ndarray
    true_positives: np.ndarray
    overlap: np.ndarray | None = None

    @classmethod
    def exact(cls, normal: np.ndarray, anomalous: np.ndarray, overlap: np.ndarray | None = None) -> Curve:
        """The curve through every distinct score; ties are merged.

        Normals are only ever counted, so they need no permutation and are sorted **in place**; between two
        neighbouring anomalous scores the curve is flat, which leaves at most two vertices an anomalous score.
        O(n log n) time; beside its inputs, O(anomalies) memory.

        Args:
            normal: (n,) scores of normals; sorted afterwards.
            anomalous: (m,) scores of anomalies.
            overlap: (m,) what finding each anomaly adds to the mean overlap; sums to 1.

        Raises:
            OneClassError: if n or m is 0.
        """
        _check_both(normal.size, anomalous.size)
        normal.sort()
        order = np.argsort(anomalous)[::-1]
        falling = anomalous[order]
        last_of_tie = np.append(np.flatnonzero(falling[1:] != falling[:-1]), falling.size - 1)
        distinct = falling[last_of_tie]
        # Two vertices a distinct anomalous score: just above it, where only normals were added since the last
        # vertex, and at it, where it joins together with the normals tied with it.
        threshold = _interleave(np.nextafter(distinct, np.inf), distinct)
        false_positives = normal.size - _interleave(
            np.searchsorted(normal, distinct, side="right"), np.searchsorted(normal, distinct, side="left")
        )
        found = last_of_tie + 1
        true_positives = _interleave(np.append(0, found[:-1]), found)
        curve_overlap = None
        if overlap is not None:
            shares = np.cumsum(overlap[order], dtype=np.float64)[last_of_tie]
            curve_overlap = np.append(_interleave(np.append(0.0, shares[:-1]), shares), shares[-1])
        return cls(
            threshold=np.append(threshold, -np.inf),
            false_positives=np.append(false_positives, normal.size),
            true_positives=np.append(true_positives, anomalous.size),
            overlap=curve_overlap,
        )

    @classmethod
    def binned(cls, edges: np.ndarray, normal: np.ndarray, anomalous: np.ndarray, overlap: np.ndarray) -> Curve:
        """The curve through the edges of a histogram; the scores within one bin count as tied.

        Args:
            edges: (B - 1,) rising lower edges of all bins but the lowest, which has none.
            normal: (B,) normals in each bin.
            anomalous: (B,) anomalies in each bin.
            overlap: (B,) what each bin adds to the mean overlap; sums to 1.

        Raises:
            OneClassError: if there are no normals or no anomalies.
        """
        _check_both(normal.sum(), anomalous.sum())
        return cls(
            threshold=np.append(edges[::-1], -np.inf),
            false_positives=np.cumsum(normal[::-1]),
            true_positives=np.cumsum(anomalous[::-1]),
            overlap=np.cumsum(overlap[::-1]),
        )

    def auroc(self) -> float:
        """Area under true positive rate against false positive rate."""
        area = _area(self.true_positives, self.false_positives)
        return float(area / (self.true_positives[-1] * float(self.false_positives[-1])))

    def average_precision(self) -> float:
        """Sum over thresholds of precision times the step in recall: no interpolation."""
        found = self.true_positives + self.false_positives
        precision = self.true_positives / np.maximum(found, 1)
        steps = np.diff(self.true_positives, prepend=0)
        return float(np.sum(precision * steps) / self.true_positives[-1])

    def f1_max(self) -> tuple[float, float]:
        """The highest F1 = 2 TP / (2 TP + FP + FN), and the highest threshold that has it."""
        f1 = 2 * self.true_positives / (self.true_positives + self.false_positives + self.true_positives[-1])
        best = int(np.argmax(f1))
        return float(f1[best]), float(self.threshold[best])

    def aupro(self, fpr_limit: float) -> float:
        """Area under mean region overlap against false positive rate, up to the limit, over the limit."""
        assert self.overlap is not None, "this curve was made without regions"
        fpr = self.false_positives / self.false_positives[-1]
        inside = int(np.searchsorted(fpr, fpr_limit, side="right"))
        at_limit = np.interp(fpr_limit, fpr, self.overlap)
        x = np.append(fpr[:inside], fpr_limit)
        y = np.append(self.overlap[:inside], at_limit)
        return float(_area(y, x) / fpr_limit)

    def pixel_metrics(self) -> PixelMetrics:
        """All four, from one curve."""
        return PixelMetrics(self.auroc(), self.average_precision(), self.f1_max()[0], self.aupro(FPR_LIMIT))


def _area(y: np.ndarray, x: np.ndarray) -> float:
    """Area under the straight lines through the points, which begin at the origin."""
    return float(np.trapezoid(np.append(0.0, y), np.append(0.0, x)))


def _interleave(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    return np.stack([first, second], axis=1).reshape(-1)


def _check_both(normals: int, anomalies: int) -> None:
    if not normals or not anomalies:
        raise OneClassError(
            f"the metric compares normals with anomalies, but there are {normals} normal and {anomalies} "
            "anomalous scores; give at least one of each"
        )
