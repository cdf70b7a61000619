"""Made anomalies as in LafitE, section 3.4: a fragment cut from one normal image, pasted on another.

The paper takes a mask from a pool of shapes and sizes, rotates it and joins it with others, cuts that fragment
from one normal image and pastes it on another of its category; the fragment is the anomaly mask. It leaves the
shapes, the sizes and what to do about a fragment that looks like what it covers open: those choices are ours.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from raydiff.errors import DataError
from raydiff.settings import Settings
from raydiff.views.foreground import foreground

Image = NDArray[np.uint8]
Mask = NDArray[np.bool_]
Plane = NDArray[np.float64]
Shape = Callable[[np.random.Generator, Plane, Plane, float], Mask]  # of unit area around (0, 0), see `_union`


class FragmentSettings(Settings):
    """Which fragments are cut."""

    smallest: float = Field(0.001, gt=0, lt=1)  # least area, of the image's
    largest: float = Field(0.03, gt=0, lt=1)  # greatest area; sizes are log-uniform between the two
    shapes: int = Field(3, ge=1)  # a fragment is the union of one to this many shapes
    difference: float = Field(8.0, ge=0, le=255)  # mean change that a fragment should make, grey levels
    tries: int = Field(20, ge=1)  # draws until one makes it; if none does, the best one is kept

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.smallest > self.largest:
            raise ValueError("smallest must not be greater than largest")
        return self


_DEFAULT = FragmentSettings()


def make_anomaly(
    target: Image, source: Image, rng: np.random.Generator, settings: FragmentSettings = _DEFAULT
) -> tuple[Image, Mask]:
    """Paste a fragment of one normal image on another of the same category and size.

    The fragment comes from another place of the source, turned by any angle, and its edge is left sharp. A
    fragment that barely changes what it covers is no anomaly, so it is drawn again until the mean absolute
    difference inside the mask reaches `settings.difference`; after `settings.tries` draws the one that changed
    most is kept, which on images of one flat colour may be no change at all.

    Args:
        target: (H, W, 3) uint8, is not changed.
        source: (H, W, 3) uint8.
        rng: decides everything; the same state gives the same anomaly.
        settings: which fragments are cut.

    Returns:
        The pasted image (H, W, 3) and the mask (H, W) of the fragment, never empty.

    Raises:
        DataError: if the two images differ in shape.
    """
    if target.shape != source.shape:
        raise DataError(f"target {target.shape} and source {source.shape} must have the same shape; resize first")
    height, width = target.shape[:2]
    best: tuple[float, Image, Mask] | None = None
    on_target, on_source = foreground(target), foreground(source)
    anywhere = np.ones_like(on_target)
    for _ in range(settings.tries):
        # At least one end lies on the object, so that background is not pasted on background.
        ends = [(on_target, on_source), (on_target, anywhere), (anywhere, on_source)][rng.integers(3)]
        paste_at, cut_at = (rng.choice(np.argwhere(end)) for end in ends)
        offsets = fragment(rng, height, width, settings)
        to = offsets + paste_at
        inside = ((to >= 0) & (to < (height, width))).all(axis=1)
        to, offsets = to[inside], offsets[inside]
        cut = _turned(offsets, rng.uniform(0.0, 2.0 * np.pi)) + cut_at
        rows, columns = _mirrored(cut[:, 0], height), _mirrored(cut[:, 1], width)
        content = source[rows, columns]
        change = float(np.abs(content.astype(np.int16) - target[to[:, 0], to[:, 1]]).mean())
        if best is None or change > best[0]:
            image, mask = target.copy(), np.zeros((height, width), bool)
            image[to[:, 0], to[:, 1]] = content
            mask[to[:, 0], to[:, 1]] = True
            best = change, image, mask
        if change >= settings.difference:
            break
    assert best is not None
    return best[1], best[2]


def fragment(
    rng: np.random.Generator,
    height: int,
    width: int,
    settings: FragmentSettings,
    shapes: Sequence[Shape] | None = None,
) -> NDArray[np.int64]:
    """A fragment's pixels as (P, 2) offsets (row, column) from its middle, for an image of height x width.

    The middle, (0, 0), is always part of it. It is a union of these shapes, by default any of SHAPES.
    """
    area = np.exp(rng.uniform(np.log(settings.smallest), np.log(settings.largest))) * height * width
    pieces = int(rng.integers(1, settings.shapes + 1))
    stream = int(rng.integers(2**62))  # the same pieces again at another scale
    side = float(np.sqrt(area))
    for _ in range(2):  # overlaps make a union smaller than it should be: measure, then draw it to scale
        reach = min(max(height, width), int(np.ceil(3.5 * side)))  # the longest line is 5 sides long
        y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1] / side
        offsets = np.argwhere(_union(np.random.default_rng(stream), y, x, pieces, 1.5 / side, shapes or SHAPES)) - reach
        side *= float(np.sqrt(area / len(offsets)))
    return offsets


def _union(rng: np.random.Generator, y: Plane, x: Plane, pieces: int, thinnest: float, shapes: Sequence[Shape]) -> Mask:
    """Shapes of one unit of area together; the first lies in the middle, the others overlap it."""
    radius = np.sqrt(1.0 / pieces / np.pi)
    mask = np.zeros(y.shape, bool)
    for piece in range(pieces):
        off_y, off_x = rng.uniform(-1.0, 1.0, 2) * radius * (piece > 0)
        angle = rng.uniform(0.0, 2.0 * np.pi)
        v = (y - off_y) * np.cos(angle) - (x - off_x) * np.sin(angle)
        u = (y - off_y) * np.sin(angle) + (x - off_x) * np.cos(angle)
        scale = np.sqrt(pieces)
        shape = shapes[int(rng.integers(len(shapes)))]
        mask |= shape(rng, v * scale, u * scale, thinnest * scale)
    mask[y.shape[0] // 2, y.shape[1] // 2] = True
    return mask


def _ellipse(rng: np.random.Generator, v: Plane, u: Plane, thinnest: float) -> Mask:
    aspect = rng.uniform(1.0, 3.0)
    return u**2 / aspect + v**2 * aspect < 1.0 / np.pi


def _rectangle(rng: np.random.Generator, v: Plane, u: Plane, thinnest: float) -> Mask:
    root = np.sqrt(rng.uniform(1.0, 4.0))
    return (np.abs(u) < root / 2) & (np.abs(v) * root < 0.5)


def _polygon(rng: np.random.Generator, v: Plane, u: Plane, thinnest: float) -> Mask:
    """Three to six corners around the middle."""
    corners = int(rng.integers(3, 7))
    angles = (np.arange(corners) + rng.uniform(-0.25, 0.25, corners)) * 2.0 * np.pi / corners
    radii = rng.uniform(0.6, 1.0, corners)
    py, px = radii * np.sin(angles), radii * np.cos(angles)
    size = np.sqrt(0.5 * abs(np.sum(px * np.roll(py, -1) - py * np.roll(px, -1))))
    py, px = py / size, px / size
    inside = np.zeros(v.shape, bool)
    for y0, x0, y1, x1 in zip(py, px, np.roll(py, -1), np.roll(px, -1), strict=True):
        crossing = (y0 > v) != (y1 > v)
        inside ^= crossing & (u < x0 + (v - y0) * (x1 - x0) / (y1 - y0))
    return inside


def line(rng: np.random.Generator, v: Plane, u: Plane, thinnest: float) -> Mask:
    """A scratch, slightly bent, and never thinner than shows."""
    width = max(np.sqrt(1.0 / rng.uniform(8.0, 25.0)), thinnest)
    bent = v - rng.uniform(-0.2, 0.2) * u**2
    return (np.abs(u) < 0.5 / width) & (np.abs(bent) < width / 2)


def _blob(rng: np.random.Generator, v: Plane, u: Plane, thinnest: float) -> Mask:
    waves = np.arange(2, 6)
    height, phase = 0.35 * rng.standard_normal(4) / waves, rng.uniform(0.0, 2.0 * np.pi, 4)
    angle = np.arctan2(v, u)
    edge = 1.0 + sum(h * np.cos(k * angle + p) for h, k, p in zip(height, waves, phase, strict=True))
    return np.hypot(u, v) < edge * np.sqrt(1.0 / np.pi / (1.0 + 0.5 * np.sum(height**2)))


SHAPES: tuple[Shape, ...] = (
    _ellipse,
    _rectangle,
    _polygon,
    line,
    _blob,
)


def _turned(offsets: NDArray[np.int64], angle: float) -> Plane:
    """Offsets (P, 2) turned around (0, 0)."""
    cos, sin = np.cos(angle), np.sin(angle)
    return offsets @ np.array([[cos, sin], [-sin, cos]])


def _mirrored(place: Plane, length: int) -> NDArray[np.int64]:
    """The nearest index to each place; beyond an image's edge, thrown back into it."""
    index = np.abs(np.rint(place).astype(np.int64)) % (2 * length)
    return np.minimum(index, 2 * length - 1 - index)
