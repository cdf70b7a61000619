"""Exact metrics: over all distinct thresholds, ties merged."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from raydiff.errors import DataError
from raydiff.metrics.curve import FPR_LIMIT, Curve, PixelMetrics
from raydiff.metrics.pixels import Pixels, split


def auroc(scores: np.ndarray, labels: np.ndarray) -> float:
    """Area under the ROC curve: the chance that an anomaly scores above a normal, a tie counting one half.

    Args:
        scores: scores of any shape, higher = more anomalous.
        labels: the same shape; true (1) for anomalous, false (0) for normal.

    Returns:
        A value in [0, 1]. O(n log n).

    Raises:
        OneClassError: if there are no normals or no anomalies.
        DataError: if the shapes differ or a score is NaN.
    """
    return _curve(scores, labels).auroc()


def average_precision(scores: np.ndarray, labels: np.ndarray) -> float:
    """Average precision, step-wise: the sum over distinct thresholds of precision times the step in recall.

    No interpolation: the trapezoid under the precision-recall curve is another number. Arguments and errors
    as for `auroc`. O(n log n).
    """
    return _curve(scores, labels).average_precision()


def f1_max(scores: np.ndarray, labels: np.ndarray) -> float:
    """The highest F1 over all distinct thresholds. Arguments and errors as for `auroc`. O(n log n)."""
    return _curve(scores, labels).f1_max()[0]


def f1_max_threshold(scores: np.ndarray, labels: np.ndarray) -> float:
    """The threshold (`score >= threshold` is anomalous) that gives `f1_max`, the highest of several.

    It is found with the labels that it is judged by: an oracle, never an alarm threshold. Arguments and
    errors as for `auroc`. O(n log n).
    """
    return _curve(scores, labels).f1_max()[1]


def aupro(images: Iterable[tuple[np.ndarray, np.ndarray]], fpr_limit: float = FPR_LIMIT) -> float:
    """Area under the per-region overlap curve, as MVTec AD defines it (Bergmann et al., IJCV 2021).

    A region is an 8-connected component of a mask. At a threshold, its overlap is the part of its pixels
    found, and the mean is over all regions of all images; the false positive rate is over the pixels outside
    all masks. The curve runs through all distinct thresholds, is interpolated linearly at `fpr_limit`, and
    its area is divided by `fpr_limit`. A perfect map has 1, a constant one `fpr_limit / 2`.

    Args:
        images: pairs of anomaly map and mask, (H, W) each, of any size; read once, in order.
        fpr_limit: where the area ends, in (0, 1].

    Returns:
        A value in [0, 1]. O(n log n) in the pixels of all images; holds some 10 bytes a pixel.

    Raises:
        OneClassError: if no pixel is anomalous or none is normal.
        DataError: if a map and its mask differ in shape, or a map holds NaN.
    """
    return pixel_curve([split(anomaly_map, mask) for anomaly_map, mask in images]).aupro(fpr_limit)


def pixel_metrics(images: Iterable[tuple[np.ndarray, np.ndarray]]) -> PixelMetrics:
    """Pixel AUROC, average precision, F1-max and AUPRO from one sort. Arguments and errors as for `aupro`."""
    return pixel_curve([split(anomaly_map, mask) for anomaly_map, mask in images]).pixel_metrics()


def pixel_curve(images: Sequence[Pixels]) -> Curve:
    """The exact curve through the pixels of all images.

    Raises:
        OneClassError: if no pixel is anomalous or none is normal.
    """
    empty = np.empty(0, dtype=np.float32)
    share = np.concatenate([empty, *(image.share for image in images)])
    return Curve.exact(
        normal=np.concatenate([empty, *(image.normal for image in images)]),
        anomalous=np.concatenate([empty, *(image.anomalous for image in images)]),
        overlap=share / max(1, sum(image.regions for image in images)),
    )


def _curve(scores: np.ndarray, labels: np.ndarray) -> Curve:
    scores = np.asarray(scores)
    if not np.issubdtype(scores.dtype, np.floating):
        scores = scores.astype(np.float64)
    labels = np.asarray(labels, dtype=bool)
    if scores.shape != labels.shape:
        raise DataError(f"scores of shape {scores.shape} need one label each, got {labels.shape}")
    if np.isnan(scores).any():
        raise DataError("a score is NaN, which has no place in a ranking; leave out what could not be scored")
    return Curve.exact(scores[~labels], scores[labels])
