"""What images look like at one place: coarse, so that two pictures of one stain are alike."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

PARTS = 4  # a crop's side is an image's through this
CELLS = 8  # on a crop's side


def crops(images: Tensor, places: Tensor) -> Tensor:
    """Square crops around a place of each image, in CELLS x CELLS cells, of zero mean and unit variance each.

    Brightness and contrast are taken out. A crop that would reach over the edge is moved inwards; one that is of a
    single colour is zero.

    Args:
        images: (N, C, S, S).
        places: (N, 2) y and x, pixels.

    Returns:
        (N, C CELLS CELLS) float32.
    """
    side = max(1, images.shape[-1] // PARTS)
    found = []
    for image, place in zip(images, places.tolist(), strict=True):
        y, x = (min(max(0, at - side // 2), images.shape[-1] - side) for at in place)
        cut = image[:, y : y + side, x : x + side].float()
        found.append(F.adaptive_avg_pool2d(cut, CELLS).flatten())
    stacked = torch.stack(found)
    deviation = stacked.std(1, correction=0, keepdim=True)
    return (stacked - stacked.mean(1, keepdim=True)) / deviation.clamp_min(1e-6)
