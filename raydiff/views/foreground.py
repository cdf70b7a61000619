"""Where an image shows the product, told from the image itself."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def foreground(image: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Where an image (H, W, 3) is not plain background: unlike the median colour of its border.

    Everywhere, if the border itself is a texture or next to nothing stands out.
    """
    edge = max(1, round(0.04 * min(image.shape[:2])))
    border = np.ones(image.shape[:2], bool)
    border[edge:-edge, edge:-edge] = False
    off = np.abs(image.astype(np.float64) - np.median(image[border], axis=0)).max(axis=2)
    mask = off > max(20.0, 4.0 * float(np.median(off[border])))
    return mask if mask.mean() >= 0.02 else np.ones_like(mask)
