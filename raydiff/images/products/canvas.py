"""What the drawn products share: signed distances, soft noise, lines and paint.

Lengths are in image sides with (0, 0) in the middle. A field is float64 of shape (S, S), a scene float64 of
shape (3, S, S) in 0..1. Edges come from signed distances, so nothing needs supersampling, and double precision
up to the camera's rounding makes every machine draw the same pixels.
"""

from __future__ import annotations

import functools
import itertools

import numpy as np
from numpy.typing import NDArray

Field = NDArray[np.float64]
Scene = NDArray[np.float64]
Point = tuple[float, float]  # (y, x)


def plane(size: int) -> tuple[Field, Field]:
    """Coordinates (y, x) of the pixel centres, each in -0.5..0.5."""
    axis = (np.arange(size) + 0.5) / size - 0.5
    y, x = np.meshgrid(axis, axis, indexing="ij")
    return y, x


def turned(y: Field, x: Field, angle: float | Field) -> tuple[Field, Field]:
    """Coordinates (y, x) in a frame that is turned by `angle` radians."""
    cos, sin = np.cos(angle), np.sin(angle)
    return y * cos - x * sin, y * sin + x * cos


def colour(red: float, green: float, blue: float) -> Scene:
    """A colour, shaped (3, 1, 1) to spread over a scene."""
    return np.array([red, green, blue]).reshape(3, 1, 1)


def cover(distance: Field, soft: float = 0.0) -> Field:
    """How much of each pixel lies inside a shape, from its signed distance (negative inside).

    The edge is one pixel wide, or `soft` image sides where that is more.
    """
    width = max(1.0 / len(distance), soft)
    return np.clip(0.5 - distance / width, 0.0, 1.0)


def paint(under: Scene, over: Scene, alpha: Field) -> Scene:
    """The scene or colour `over` laid on a scene with opacity `alpha`."""
    change = over - under
    change *= alpha
    change += under
    return change


def noise(rng: np.random.Generator, size: int, cells: int, octaves: int = 1) -> Field:
    """Smooth noise of about zero mean and unit deviation, `cells` bumps to a side.

    Each further octave has half the bump size and half the strength.
    """
    total = np.zeros((size, size))
    power = 0.0
    for octave in range(octaves):
        blend = _spline(size, cells << octave)
        total += 0.5**octave * (blend @ rng.standard_normal((blend.shape[1],) * 2) @ blend.T)
        power += 0.25**octave
    return total / (0.48 * np.sqrt(power))  # 0.48: what blending leaves of the knots' deviation


def ripple(rng: np.random.Generator, at: Field, cells: int) -> Field:
    """Noise of unit deviation along one coordinate (`at` in 0..1), linear between `cells` values."""
    return np.interp(at, np.linspace(0.0, 1.0, cells), rng.standard_normal(cells))


def arc(y: Field, x: Field, middle: Point, angle: float, length: float, bend: float) -> Field:
    """Distance to a line of `length` through `middle`, turned by `angle` and bent by `bend` radians in all."""
    across, along = turned(y - middle[0], x - middle[1], angle)
    if abs(bend) < 1e-3:
        return np.hypot(across, np.maximum(np.abs(along) - length / 2, 0.0))
    radius, side = length / abs(bend), np.sign(bend)
    turn = np.arctan2(along, radius + across * side)
    beyond = np.maximum(np.abs(turn) - abs(bend) / 2, 0.0) * radius
    return np.hypot(np.hypot(along, radius + across * side) - radius, beyond)


def jagged(y: Field, x: Field, corners: NDArray[np.float64]) -> Field:
    """Distance to the broken line through `corners`, rows of (y, x)."""
    nearest = np.full_like(y, np.inf)
    for start, end in itertools.pairwise(corners):
        step = end - start
        reach = ((y - start[0]) * step[0] + (x - start[1]) * step[1]) / (step @ step)
        reach = np.clip(reach, 0.0, 1.0)
        nearest = np.minimum(nearest, np.hypot(y - start[0] - reach * step[0], x - start[1] - reach * step[1]))
    return nearest


def blob(rng: np.random.Generator, y: Field, x: Field, middle: Point, radius: float, rough: float) -> Field:
    """Signed distance to an irregular round shape; `rough` is its unevenness relative to the radius."""
    uneven = noise(rng, len(y), max(3, round(0.9 / radius)))
    return np.hypot(y - middle[0], x - middle[1]) - radius * (1.0 + rough * uneven)


def bevel(distance: Field, light: float, width: float) -> Field:
    """How an edge of `width` catches light from the direction `light`: positive on the lit side."""
    slope_y, slope_x = np.gradient(distance)
    facing = (slope_y * np.sin(light) + slope_x * np.cos(light)) / (np.hypot(slope_y, slope_x) + 1e-9)
    return facing * np.exp(-(((distance + width / 2) / (width / 2)) ** 2))


def specks(rng: np.random.Generator, scene: Scene, count: tuple[int, int], tones: tuple[float, float]) -> Scene:
    """Dust on the scene: small soft spots, their number and their grey each from a range."""
    size = scene.shape[1]
    y, x = plane(size)
    scene = scene.copy()
    for _ in range(int(rng.integers(count[0], count[1] + 1))):
        middle, radius = rng.uniform(-0.5, 0.5, 2), rng.uniform(0.003, 0.008)
        tone, strength = rng.uniform(*tones), rng.uniform(0.4, 0.9)
        top, left = (max(0, int((at + 0.485) * size)) for at in middle)
        near = slice(top, top + size // 30 + 2), slice(left, left + size // 30 + 2)
        spot = (0.5 - (np.hypot(y[near] - middle[0], x[near] - middle[1]) - radius) / 0.008).clip(0.0, 1.0)
        scene[:, *near] += (tone - scene[:, *near]) * strength * spot
    return scene


def place(radius: float, turn: float) -> Point:
    """The point at `radius` from the middle, `turn` (of 1) around it."""
    return radius * np.sin(2.0 * np.pi * turn), radius * np.cos(2.0 * np.pi * turn)


@functools.cache
def _spline(size: int, cells: int) -> Field:
    """The matrix (size, cells + 3) that blends knots by cubic B-splines."""
    at = (np.arange(size) + 0.5) / size * cells
    first = np.floor(at).astype(int)
    t = at - first
    weights = ((1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3)
    matrix = np.zeros((size, cells + 3))
    for knot, weight in enumerate(weights):
        matrix[np.arange(size), first + knot] = weight / 6.0
    return matrix
