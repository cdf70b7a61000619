"""One image's pixels as the pixel metrics need them: normal ones, anomalous ones and their regions."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy import ndimage

from raydiff.errors import DataError

EIGHT_NEIGHBOURS = np.ones((3, 3), dtype=bool)  # pixels that touch at a corner are one region, as in MVTec's code


class Pixels(NamedTuple):
    """One image's pixels, flat.

    Attributes:
        normal: (n,) float32 scores of pixels outside the mask.
        anomalous: (m,) float32 scores of pixels inside the mask.
        share: (m,) float64, the part of its own region that each anomalous pixel is: 1 / region's pixels.
        regions: number of 8-connected regions of the mask; the shares sum to it.
    """

    normal: np.ndarray
    anomalous: np.ndarray
    share: np.ndarray
    regions: int


def split(anomaly_map: np.ndarray, mask: np.ndarray) -> Pixels:
    """The pixels of one image.

    Args:
        anomaly_map: (H, W) scores, higher = more anomalous.
        mask: (H, W), true where the image is defective.

    Raises:
        DataError: if the two differ in shape, or a score is NaN.
    """
    anomaly_map = np.asarray(anomaly_map, dtype=np.float32)
    mask = np.asarray(mask, dtype=bool)
    if anomaly_map.ndim != 2 or anomaly_map.shape != mask.shape:
        raise DataError(
            f"an anomaly map of shape {anomaly_map.shape} does not fit a mask of shape {mask.shape}; "
            "both must be (height, width) of the same image"
        )
    if anomaly_map.size and np.isnan(anomaly_map.min()):  # the least of values with NaN is NaN
        raise DataError("an anomaly map holds NaN, which has no place in a ranking; score the image again")
    if not mask.any():
        return Pixels(anomaly_map.flatten(), np.empty(0, np.float32), np.empty(0, np.float64), 0)
    labels, regions = ndimage.label(mask, structure=EIGHT_NEIGHBOURS)
    of_pixel = labels[mask]
    return Pixels(anomaly_map[~mask], anomaly_map[mask], 1.0 / np.bincount(of_pixel)[of_pixel], int(regions))
