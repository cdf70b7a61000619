"""Trivial statistics of image files, as scores: some public sets are separable by light, or by file size, alone.

Each is fitted as the methods are, to normal images to train on: an image is as anomalous as its statistic lies away
from their mean, in their deviations. Who cannot beat that has found nothing that a light meter would not.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pyarrow as pa

from raydiff.errors import ImageError, StorageError, StorageUnavailable
from raydiff.images import pages
from raydiff.images.decode import decode
from raydiff.images.levels import Levels
from raydiff.images.masks import DECODES_AT_ONCE
from raydiff.metrics.curve import OneClassError
from raydiff.metrics.exact import auroc, average_precision, f1_max
from raydiff.progress import phase

STATISTICS = ("mean grey", "contrast", "gradient", "bytes per pixel")
BATCH = 256  # files whose statistics are under way at once


def statistics(pixels: np.ndarray, size: int) -> tuple[float, ...]:
    """The STATISTICS of an image (H, W, 3) from a file of `size` bytes.

    They are the mean and the deviation of its grey (the mean of its channels, 0 to 255), the mean difference of
    neighbours down and across together, and the file's bytes a pixel.
    """
    grey = pixels.mean(axis=2, dtype=np.float32)
    steps = [np.abs(np.diff(grey, axis=axis)) for axis in (0, 1)]
    gradient = sum(float(step.mean()) for step in steps if step.size)
    return float(grey.mean()), float(grey.std()), gradient, size / grey.size


def scores(values: np.ndarray, fitted: np.ndarray) -> np.ndarray:
    """(n,) distances of values (n,) from the mean of normals' values (m,), in their deviations."""
    return np.asarray(np.abs(values - fitted.mean()) / max(float(fitted.std()), 1e-12))


def results(
    images: pa.Table, roles: Sequence[str], levels: Levels | None = None
) -> dict[str, dict[str, Mapping[str, float | None]]]:
    """Image metrics of each statistic, by its name and the category; None where a category has one class alone.

    Args:
        images: an image table.
        roles: of its rows, as `holdout.roles`. Images to fit on that cannot be read count for nothing, as all others.
        levels: as the methods read them.
    """
    wanted = [at for at, role in enumerate(roles) if role in ("fit", "test")]
    rows = images.take(wanted).to_pylist()
    measured: dict[tuple[str, str], list[tuple[int | None, tuple[float, ...]]]] = {}
    for row, role, values in _measured(rows, [roles[at] for at in wanted], levels):
        measured.setdefault((row["category"], role), []).append((row["label"], values))
    categories = sorted({category for category, role in measured if role == "test"})
    found: dict[str, dict[str, Mapping[str, float | None]]] = {name: {} for name in STATISTICS}
    for category in categories:
        fitted = np.array([values for _, values in measured.get((category, "fit"), [])])
        tested = [(label, values) for label, values in measured[category, "test"] if label is not None]
        if not len(fitted) or not tested:
            continue
        labels = np.array([label == 1 for label, _ in tested])
        for place, name in enumerate(STATISTICS):
            told = scores(np.array([values[place] for _, values in tested]), fitted[:, place])
            found[name][category] = metrics(told, labels)
    return found


def metrics(scores: np.ndarray, labels: np.ndarray) -> dict[str, float | None]:
    """Image AUROC, AP and F1-max; None each if there is one class alone."""
    try:
        return {
            "image_auroc": float(auroc(scores, labels)),
            "image_ap": float(average_precision(scores, labels)),
            "image_f1_max": float(f1_max(scores, labels)),
        }
    except OneClassError:
        return dict.fromkeys(("image_auroc", "image_ap", "image_f1_max"))


def _measured(
    rows: Sequence[Mapping[str, Any]], roles: Sequence[str], levels: Levels | None
) -> Iterator[tuple[Mapping[str, Any], str, tuple[float, ...]]]:
    def look(row: Mapping[str, Any]) -> tuple[float, ...] | None:
        try:
            file = pages.read(row["uri"])
            return statistics(decode(file.data, levels=Levels.of_row(row, levels), page=file.page), len(file.data))
        except StorageUnavailable:
            raise
        except (ImageError, StorageError):
            return None

    with phase("trivial statistics", len(rows)) as shown, ThreadPoolExecutor(DECODES_AT_ONCE) as pool:
        for start in range(0, len(rows), BATCH):
            batch = rows[start : start + BATCH]
            for row, role, values in zip(batch, roles[start : start + BATCH], pool.map(look, batch), strict=True):
                shown.advance()
                if values is not None:
                    yield row, role, values
