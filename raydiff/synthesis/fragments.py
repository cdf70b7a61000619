"""Made anomalies by pasted fragments (LafitE section 3.4): no texture from elsewhere, no defect seen.

A mask is drawn from a pool of shapes and sizes, turned and united; the fragment under it is cut from one normal image
and pasted on another of its category, at another place and turned. The mask is where the anomaly is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from scipy.ndimage import gaussian_filter, map_coordinates

from raydiff.settings import Settings

Image = NDArray[np.uint8]  # (H, W, 3)
Mask = NDArray[np.bool_]  # (H, W)


class FragmentSettings(Settings):
    """How fragments are drawn."""

    smallest: float = Field(0.002, gt=0, lt=1)  # of the image's area, before shapes are united
    largest: float = Field(0.06, gt=0, lt=1)
    shapes: int = Field(3, ge=1)  # most shapes in one mask
    contrast: float = Field(8.0, ge=0)  # mean difference that a fragment should make, grey levels
    tries: int = Field(8, ge=1)  # fragments drawn until one differs so much; then the best of them is taken


class MadeSet(NamedTuple):
    """Images with made anomalies."""

    images: NDArray[np.uint8]  # (M, H, W, 3)
    masks: NDArray[np.bool_]  # (M, H, W), exactly the pixels that were pasted
    targets: NDArray[np.int64]  # (M,), which image each was made on


def make_set(images: NDArray[np.uint8], per_image: int, seed: int, settings: FragmentSettings | None = None) -> MadeSet:
    """`per_image` anomalies on each of some normal images of one category.

    Args:
        images: (N, H, W, 3) with N >= 2.

    Raises:
        ValueError: if there is only one image, so that there is none to cut from.
    """
    if len(images) < 2:
        raise ValueError("an anomaly is cut from one image and pasted on another: two are needed")
    settings = settings or FragmentSettings()
    targets = np.tile(np.arange(len(images)), per_image)
    made = np.empty((len(targets), *images.shape[1:]), np.uint8)
    masks = np.empty((len(targets), *images.shape[1:3]), bool)
    for number, target in enumerate(targets):
        rng = np.random.default_rng([seed, number])
        source = (target + rng.integers(1, len(images))) % len(images)
        made[number], masks[number] = make_anomaly(images[target], images[source], rng, settings)
    return MadeSet(made, masks, targets)


def make_anomaly(
    target: Image, source: Image, rng: np.random.Generator, settings: FragmentSettings
) -> tuple[Image, Mask]:
    """Paste a fragment of `source` on a copy of `target`.

    Fragments are drawn until one changes what it covers by `settings.contrast` on average; on images without contrast
    the best of `settings.tries` is taken.
    """
    best: tuple[float, Image, Mask] | None = None
    for _ in range(settings.tries):
        at, cut = _place(target, rng), _place(source, rng)
        mask = draw_mask(target.shape[0], target.shape[1], at, rng, settings)
        fragment = _turned(source, at, cut, rng.uniform(0, 2 * np.pi), mask)
        contrast = float(np.abs(fragment.astype(np.int16) - target[mask]).mean())
        if best is None or contrast > best[0]:
            made = target.copy()
            made[mask] = fragment
            best = contrast, made, mask
        if contrast >= settings.contrast:
            break
    assert best is not None
    return best[1], best[2]


def draw_mask(
    height: int, width: int, at: tuple[float, float], rng: np.random.Generator, settings: FragmentSettings
) -> Mask:
    """The union of some shapes near a place, never empty.

    Args:
        at: row and column of the place, pixels.
    """
    mask = np.zeros((height, width), bool)
    rows, columns = np.mgrid[:height, :width].astype(np.float32)
    for _ in range(rng.integers(1, settings.shapes + 1)):
        area = np.exp(rng.uniform(np.log(settings.smallest), np.log(settings.largest))) * height * width
        side = np.sqrt(area)
        middle = np.array(at) + rng.normal(0, 0.5 * side, 2) * mask.any()
        angle = rng.uniform(0, 2 * np.pi)
        y, x = rows - middle[0], columns - middle[1]
        along, across = np.cos(angle) * x + np.sin(angle) * y, np.cos(angle) * y - np.sin(angle) * x
        shape = SHAPES[rng.integers(len(SHAPES))]
        mask |= shape(along / side, across / side, rng)
    row, column = (int(np.clip(round(place), 0, size - 1)) for place, size in zip(at, (height, width), strict=True))
    mask[row, column] = True
    return mask


# Shapes of about unit area around the origin, on coordinates in units of their side.


def _ellipse(along: NDArray[np.float32], across: NDArray[np.float32], rng: np.random.Generator) -> Mask:
    stretch = rng.uniform(1, 2)
    return (along / stretch) ** 2 + (across * stretch) ** 2 <= 1 / np.pi


def _rectangle(along: NDArray[np.float32], across: NDArray[np.float32], rng: np.random.Generator) -> Mask:
    stretch = rng.uniform(1, 2)
    return (np.abs(along) <= stretch / 2) & (np.abs(across) <= 0.5 / stretch)


def _scratch(along: NDArray[np.float32], across: NDArray[np.float32], rng: np.random.Generator) -> Mask:
    stretch = rng.uniform(3, 6)
    bent = across - rng.uniform(-0.15, 0.15) * along**2
    return (np.abs(along) <= stretch / 2) & (np.abs(bent) <= 0.5 / stretch)


def _triangle(along: NDArray[np.float32], across: NDArray[np.float32], rng: np.random.Generator) -> Mask:
    corners = np.sort(rng.uniform(0, 2 * np.pi / 3, 3) * 0.6 + np.arange(3) * 2 * np.pi / 3)
    inside = np.ones(along.shape, bool)
    for corner in corners:
        inside &= along * np.cos(corner) + across * np.sin(corner) <= 0.44
    return inside


def _blob(along: NDArray[np.float32], across: NDArray[np.float32], rng: np.random.Generator) -> Mask:
    angle = np.arctan2(across, along)
    waves = sum(rng.uniform(-0.15, 0.15) * np.cos(n * angle + rng.uniform(0, 2 * np.pi)) for n in range(2, 7))
    return np.hypot(along, across) <= 0.56 * (1 + waves)


SHAPES: tuple[Callable[[NDArray[np.float32], NDArray[np.float32], np.random.Generator], Mask], ...] = (
    _ellipse,
    _rectangle,
    _scratch,
    _triangle,
    _blob,
)


def _place(image: Image, rng: np.random.Generator) -> tuple[float, float]:
    """A pixel of the object: of what differs from the border; of the whole image where nothing or all does."""
    grey = gaussian_filter(image.mean(axis=2), 2)
    border = np.concatenate([grey[0], grey[-1], grey[:, 0], grey[:, -1]])
    spread = max(8.0, 3 * float(np.median(np.abs(border - np.median(border)))))
    candidates = np.flatnonzero(np.abs(grey - np.median(border)) > spread)
    if not 0.02 * grey.size < len(candidates) < 0.9 * grey.size:
        candidates = np.arange(grey.size)
    row, column = divmod(int(rng.choice(candidates)), grey.shape[1])
    return float(row), float(column)


def _turned(
    source: Image, at: tuple[float, float], cut: tuple[float, float], angle: float, mask: Mask
) -> NDArray[np.uint8]:
    """What lies around `cut` in the source, turned by `angle` and brought to `at`: (pixels of the mask, 3)."""
    rows, columns = np.nonzero(mask)
    y, x = rows - at[0], columns - at[1]
    places = [cut[0] + np.cos(angle) * y - np.sin(angle) * x, cut[1] + np.sin(angle) * y + np.cos(angle) * x]
    channels = [map_coordinates(source[..., channel], places, order=1, mode="reflect") for channel in range(3)]
    return np.stack(channels, axis=1).astype(np.uint8)
