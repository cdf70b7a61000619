"""What choices without a label go by: how well made anomalies are found, and how well their pixels.

Image AUROC alone saturates, and then a tie decides; the masks of made anomalies are known, and where an anomaly lies is
harder to say than that there is one. So the score is the mean of image AUROC and AUPRO, of every category alike.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from typing import NamedTuple, Self

import numpy as np
import torch
import torch.nn.functional as F

from raydiff.metrics import OneClassError, aupro, auroc
from raydiff.nn.positions import in_cells

METRIC = "mean of image AUROC and AUPRO"
SIDE = 112  # maps and masks are held against each other at no more than this many cells a side, to bound the memory


class Found(NamedTuple):
    """What was found of the anomalies in a set of images."""

    auroc: float  # of the images
    aupro: float | None  # of the pixels; None where no mask is known

    @property
    def score(self) -> float:
        """The mean of both; the first alone where the second is not known."""
        return self.auroc if self.aupro is None else (self.auroc + self.aupro) / 2

    @classmethod
    def mean(cls, found: Mapping[str, Self]) -> Self | None:
        """Over categories, each weighing the same; None of none."""
        if not found:
            return None
        known = [each.aupro for each in found.values() if each.aupro is not None]
        return cls(statistics.fmean(each.auroc for each in found.values()), statistics.fmean(known) if known else None)


def maps_in_cells(maps: np.ndarray, side: int) -> np.ndarray:
    """N maps (H, W) to the means (N, c, c) of their cells, c = SIDE at most and no more than the networks' `side`."""
    return np.concatenate([in_cells(torch.from_numpy(found[None]), min(SIDE, side)).numpy() for found in maps])


def masks_in_cells(masks: np.ndarray, side: int) -> np.ndarray:
    """(N, H, W) bool masks to (N, c, c), c as of `maps_in_cells`: cells that an anomaly touches."""
    cells = min(SIDE, side)
    return F.adaptive_max_pool2d(torch.from_numpy(masks)[:, None].float(), cells)[:, 0].numpy() > 0


def found_by_category(
    categories: np.ndarray, labels: np.ndarray, scores: np.ndarray, maps: np.ndarray, masks: np.ndarray
) -> dict[str, Found]:
    """What was found in each category that has images of both kinds.

    Args:
        categories: (N,) of str.
        labels: (N,) of bool, True = anomalous.
        scores: (N,).
        maps: (N, c, c) anomaly maps in cells.
        masks: (N, c, c) of bool; an anomalous image with an empty one counts for its score alone.
    """
    has_pixels = ~labels | masks.any((1, 2))
    found = {}
    for category in np.unique(categories):
        own = categories == category
        if len(set(labels[own])) < 2:
            continue
        seen = own & has_pixels
        try:
            pixels = aupro(zip(maps[seen], masks[seen], strict=True))
        except OneClassError:
            pixels = None
        found[str(category)] = Found(auroc(scores[own], labels[own]), pixels)
    return found
