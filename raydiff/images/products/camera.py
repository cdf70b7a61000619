"""The camera that takes the demo pictures, and is never set quite the same."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from raydiff.images.products.canvas import Scene, plane, turned

KNOBS = 10


def camera_settings(rng: np.random.Generator, count: int) -> NDArray[np.float64]:
    """Settings for `count` pictures: (count, KNOBS) in -1..1.

    A Latin hypercube: each knob is spread evenly over any group of pictures, so that even a few defective
    ones are as bright, as contrasty and as noisy as the good ones.
    """
    order = rng.permuted(np.tile(np.arange(count), (KNOBS, 1)), axis=1).T
    return 2.0 * (order + rng.uniform(size=order.shape)) / max(count, 1) - 1.0


def photograph(rng: np.random.Generator, scene: Scene, settings: NDArray[np.float64]) -> NDArray[np.uint8]:
    """A picture of a scene, uint8 of shape (S, S, 3), under one row of `camera_settings`.

    Exposure, contrast, white balance, the fall of the light, sharpness and grain differ by more than a defect
    changes them over a whole picture, so none of them gives a defect away.
    """
    exposure, contrast, slope, towards, vignette, sharpness, grain, *balance = settings
    size = scene.shape[1]
    y, x = plane(size)
    uphill, _ = turned(y, x, np.pi * towards)
    light = 1.0 + 0.04 * (1.0 + slope) * uphill - (0.12 + 0.04 * vignette) * (y**2 + x**2)
    image = scene * (light * (1.0 + 0.05 * exposure))
    image *= 1.0 + 0.01 * np.reshape(balance, (3, 1, 1))
    image -= 0.45
    image *= 1.0 + 0.045 * contrast
    image += 0.45
    blur = (0.45 + 0.10 * sharpness) * size / 192
    image = ndimage.gaussian_filter(image, (0.0, blur, blur))
    image += (0.010 + 0.002 * grain) * rng.standard_normal(image.shape)
    return np.round(255.0 * image.clip(0.0, 1.0)).astype(np.uint8).transpose(1, 2, 0)
