"""Whether a mask can be held against its image: asked before training (`index`) and again when maps are evaluated."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class OtherSize(NamedTuple):
    """A mask that has another size than its image; sizes are (height, width)."""

    mask: tuple[int, int]
    image: tuple[int, int]

    def __str__(self) -> str:
        (mask_height, mask_width), (height, width) = self.mask, self.image
        return f"the mask is {mask_width} x {mask_height} pixels, its image {width} x {height}"


def fault(mask: np.ndarray, shape: tuple[int, ...]) -> OtherSize | str | None:
    """Why a mask (H, W) cannot mark the defects of an image of that shape, or None."""
    if mask.shape != shape[:2]:
        return OtherSize((mask.shape[0], mask.shape[1]), (shape[0], shape[1]))
    return None if mask.any() else "the mask is all black: it marks no defect"


def one_factor(found: Sequence[OtherSize]) -> str:
    """What masks of a wrong size have in common, as a sentence; empty where that is nothing.

    A mask that was made of a reduced image has its size only up to rounding: a pixel more or less is the same factor.
    """
    if len(found) < 2:
        return ""
    (height, _), (image_height, _) = found[0]
    factor = height / image_height
    for sizes in found:
        if any(abs(side - factor * whole) > 1 for side, whole in zip(sizes.mask, sizes.image, strict=True)):
            return ""
    return f"all {len(found)} are {factor:.3g} times as large as their images: bring them to their images' size"
