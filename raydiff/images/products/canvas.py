"""What the drawn products share: distances, soft noise, lines, and a camera that is never quite the same.

Lengths are in image sides, with (0, 0) in the middle; fields are float64 of shape (S, S), scenes float64
of shape (S, S, 3) in 0..1. All edges come from signed distances, so nothing needs supersampling, and double
precision before the last rounding makes every machine draw the same pixels.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Field = NDArray[np.float64]
Scene = NDArray[np.float64]
Colour = Sequence[float] | NDArray[np.float64]


def plane(size: int) -> tuple[Field, Field]:
    """Coordinates (y, x) of the pixel centres, each in -0.5..0.5."""
    axis = (np.arange(size) + 0.5) / size - 0.5
    y, x = np.meshgrid(axis, axis, indexing="ij")
    return y, x


def turned(y: Field, x: Field, angle: float) -> tuple[Field, Field]:
    """Coordinates (y, x) in a frame that is turned by `angle` radians."""
    cos, sin = np.cos(angle), np.sin(angle)
    return y * cos - x * sin, y * sin + x * cos


def cover(distance: Field, soft: float = 0.0) -> Field:
    """How much of each pixel lies inside a shape, from its signed distance (negative inside).

    The edge is one pixel wide, or `soft` image sides where that is more.
    """
    width = max(1.0 / distance.shape[0], soft)
    return np.clip(0.5 - distance / width, 0.0, 1.0)


def paint(under: Scene, colour: Colour | Scene, alpha: Field) -> Scene:
    """`colour` laid over a scene with opacity `alpha`."""
    return under + (np.asarray(colour, dtype=np.float64) - under) * alpha[..., None]


def noise(rng: np.random.Generator, size: int, cells: int, octaves: int = 1) -> Field:
    """Smooth noise of about zero mean and unit deviation, `cells` bumps to a side.

    Each further octave has half the bump size and half the strength.
    """
    total = np.zeros((size, size))
    power = 0.0
    for octave in range(octaves):
        matrix = _spline(size, cells << octave)
        knots = rng.standard_normal((matrix.shape[1], matrix.shape[1]))
        total += 0.5**octave * (matrix @ knots @ matrix.T)
        power += 0.25**octave
    return total / (0.48 * np.sqrt(power))  # 0.48: what is left of the knots' deviation after blending


def ripple(rng: np.random.Generator, at: Field, cells: int) -> Field:
    """Noise of unit deviation along one coordinate (`at` in 0..1), with linear steps between `cells` values."""
    return np.interp(at, np.linspace(0.0, 1.0, cells), rng.standard_normal(cells))


def arc(y: Field, x: Field, middle: tuple[float, float], angle: float, length: float, bend: float = 0.0) -> Field:
    """Distance to a line of `length` through `middle`, turned by `angle` and bent by `bend` radians in all."""
    across, along = turned(y - middle[0], x - middle[1], angle)
    if abs(bend) < 1e-3:
        return np.hypot(across, np.maximum(np.abs(along) - length / 2, 0.0))
    radius = length / bend
    turn = np.arctan2(along * np.sign(radius), (across + radius) * np.sign(radius))
    beyond = np.maximum(np.abs(turn) - abs(bend) / 2, 0.0) * abs(radius)
    return np.hypot(np.hypot(along, across + radius) - abs(radius), beyond)


def jagged(y: Field, x: Field, corners: NDArray[np.float64]) -> Field:
    """Distance to the broken line through `corners`, rows of (y, x)."""
    nearest = np.full_like(y, np.inf)
    for start, end in zip(corners[:-1], corners[1:], strict=True):
        step = end - start
        reach = ((y - start[0]) * step[0] + (x - start[1]) * step[1]) / (step @ step)
        reach = np.clip(reach, 0.0, 1.0)
        nearest = np.minimum(nearest, np.hypot(y - start[0] - reach * step[0], x - start[1] - reach * step[1]))
    return nearest


def blob(
    rng: np.random.Generator, y: Field, x: Field, middle: tuple[float, float], radius: float, rough: float
) -> Field:
    """Signed distance to an irregular round shape; `rough` is its unevenness relative to the radius."""
    uneven = noise(rng, y.shape[0], max(3, round(0.9 / radius)))
    return np.hypot(y - middle[0], x - middle[1]) - radius * (1.0 + rough * uneven)


def bevel(distance: Field, light: float, width: float) -> Field:
    """How an edge of `width` catches light from the direction `light`: positive on the lit side."""
    slope_y, slope_x = np.gradient(distance)
    steep = np.hypot(slope_y, slope_x) + 1e-9
    facing = (slope_y * np.sin(light) + slope_x * np.cos(light)) / steep
    return facing * np.exp(-(((distance + width / 2) / (width / 2)) ** 2))


def specks(rng: np.random.Generator, scene: Scene, count: tuple[int, int], tones: tuple[float, float]) -> Scene:
    """Dust on the scene: small soft spots, their number and their grey from a range each."""
    y, x = plane(scene.shape[0])
    for _ in range(int(rng.integers(count[0], count[1] + 1))):
        middle, radius = rng.uniform(-0.5, 0.5, 2), rng.uniform(0.003, 0.008)
        tone, strength = rng.uniform(*tones), rng.uniform(0.4, 0.9)
        spot = cover(np.hypot(y - middle[0], x - middle[1]) - radius, soft=0.008)
        scene = paint(scene, [tone] * 3, strength * spot)
    return scene


def camera_settings(rng: np.random.Generator, count: int) -> NDArray[np.float64]:
    """Settings of the camera for `count` pictures, (count, 10) in -1..1, for `photograph`.

    A Latin hypercube: every setting is spread evenly over any group of pictures, so that even a small group
    of defective ones is as bright, as contrasty and as noisy as the good ones.
    """
    order = rng.permuted(np.tile(np.arange(count), (_CAMERA_KNOBS, 1)), axis=1).T
    return 2.0 * (order + rng.uniform(size=order.shape)) / max(count, 1) - 1.0


def photograph(rng: np.random.Generator, scene: Scene, settings: NDArray[np.float64]) -> NDArray[np.uint8]:
    """A camera's picture of a scene, uint8 of shape (S, S, 3), under one row of `camera_settings`.

    Exposure, contrast, white balance, the fall of the light, sharpness and sensor noise differ from picture
    to picture by more than a defect changes them over the whole image, so none of them gives a defect away.
    """
    exposure, contrast, slope, towards, vignette, sharpness, grain, *balance = settings
    size = scene.shape[0]
    y, x = plane(size)
    downhill, _ = turned(y, x, np.pi * towards)
    light = 1.0 + K["slope"] * (0.5 + 0.5 * slope) * downhill - (0.12 + K["vig"] * vignette) * (y**2 + x**2)
    image = scene * light[..., None] * (1.0 + K["wb"] * np.array(balance)) * (1.0 + K["gain"] * exposure)
    image = 0.45 + (image - 0.45) * (1.0 + K["contrast"] * contrast)
    blur = size / 192 * (0.45 + K["blur"] * sharpness)
    image = ndimage.gaussian_filter(image, (blur, blur, 0))
    image += (0.010 + K["noise"] * grain) * rng.standard_normal(image.shape)
    return np.round(255.0 * np.clip(image, 0.0, 1.0)).astype(np.uint8)


K = dict(slope=0.08, vig=0.04, wb=0.01, gain=0.05, contrast=0.045, blur=0.1, noise=0.002)
_CAMERA_KNOBS = 10


@functools.cache
def _spline(size: int, cells: int) -> Field:
    """The matrix (size, cells + 3) that blends knots by cubic B-splines."""
    at = (np.arange(size) + 0.5) / size * cells
    first = np.floor(at).astype(int)
    part = at - first
    weights = np.stack(
        [
            (1 - part) ** 3,
            3 * part**3 - 6 * part**2 + 4,
            -3 * part**3 + 3 * part**2 + 3 * part + 1,
            part**3,
        ]
    )
    matrix = np.zeros((size, cells + 3))
    for knot in range(4):
        matrix[np.arange(size), first + knot] = weights[knot] / 6.0
    return matrix
