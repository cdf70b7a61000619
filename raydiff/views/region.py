"""Parts of images that are small enough to be held by the hundred, and large enough to have a seam of tiles in them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from raydiff.views.ragged import Arrays
from raydiff.views.roi import alike, inside_of
from raydiff.views.view import View

TILES = 2  # along a side


def regions(images: Arrays, view: View, size: int, seed: int) -> np.ndarray:
    """One region of each image as it is seen, (N, H, W, 3 or 4): at most two by two tiles, where the seed puts it.

    All are as high and wide as the smallest of them. Without tiles the region is the whole image. Of an image that is
    looked at in part it has something of that part in it.
    """
    height, width = extent([image.shape for image in images], view, size)
    images = alike(images)
    rng = np.random.default_rng(seed)
    found = np.empty((len(images), height, width, images[0].shape[2]), np.uint8)
    for number, image in enumerate(images):
        found[number] = image[_drawn(image, height, width, rng)]
    return found


def around(images: Arrays, masks: Arrays, view: View, size: int) -> tuple[np.ndarray, np.ndarray]:
    """As `regions`, but of each image the one in whose middle its mask (H, W) lies, as far as the edges allow.

    (N, h, w, 3 or 4) images and their masks (N, h, w); of an image whose mask is empty it is the image's own middle.
    """
    height, width = extent([image.shape for image in images], view, size)
    images = alike(images)
    places = [_around(mask, height, width) for mask in masks]
    return (
        np.stack([image[place] for image, place in zip(images, places, strict=True)]),
        np.stack([mask[place] for mask, place in zip(masks, places, strict=True)]),
    )


def extent(shapes: Sequence[tuple[int, ...]], view: View, size: int) -> tuple[int, int]:
    """Height and width of the regions of images of these shapes, as they are seen."""
    most = size + (TILES - 1) * (size - view.overlap_seen(size))
    return min(most, *(shape[0] for shape in shapes)), min(most, *(shape[1] for shape in shapes))


def _drawn(image: np.ndarray, height: int, width: int, rng: np.random.Generator) -> tuple[slice, slice]:
    inside = inside_of(image)
    if inside is not None and not inside.all():
        mark = np.zeros_like(inside)
        mark.flat[rng.choice(np.flatnonzero(inside))] = True
        return _around(mark, height, width)
    y, x = (int(rng.integers(0, side - part + 1)) for side, part in zip(image.shape, (height, width), strict=False))
    return slice(y, y + height), slice(x, x + width)


def _around(mask: np.ndarray, height: int, width: int) -> tuple[slice, slice]:
    marked = np.argwhere(mask)
    middle = marked.mean(0) + 0.5 if len(marked) else np.array(mask.shape) / 2
    y, x = (
        int(np.clip(round(at - part / 2), 0, side - part))
        for at, part, side in zip(middle, (height, width), mask.shape, strict=True)
    )
    return slice(y, y + height), slice(x, x + width)
