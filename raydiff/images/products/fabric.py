"""Denim: pale weft under and over blue warp threads, two by two."""

from __future__ import annotations

import functools

import numpy as np
from numpy.typing import NDArray

from raydiff.images.products.canvas import (
    Field,
    Point,
    Scene,
    arc,
    blob,
    colour,
    cover,
    noise,
    paint,
    plane,
    specks,
    turned,
)

DEFECTS = ("broken_thread", "hole", "stain")
THREADS = 27  # to an image side

_MANY = 96  # threads to give a look of their own to; the picture's middle is at number _MANY // 2
_BLUE = colour(0.20, 0.32, 0.53)
_CREAM = colour(0.80, 0.79, 0.75)


def draw(part: np.random.Generator, flaw: np.random.Generator, size: int, defect: str | None) -> Scene:
    """One piece of cloth, (3, size, size) in 0..1; `part` decides the cloth, `flaw` its defect."""
    y, x = plane(size)
    middle = (flaw.uniform(-0.4, 0.4), flaw.uniform(-0.4, 0.4))
    u, v = _threads(part, y, x)
    if defect == "hole":
        u, v = _pushed_apart(u, v, y - middle[0], x - middle[1])
    warp, weft = np.floor(u).astype(int) + _MANY // 2, np.floor(v).astype(int) + _MANY // 2
    warp_round = _round(u, 0.47 + 0.03 * part.standard_normal(_MANY)[warp])
    weft_round = _round(v, 0.47 + 0.03 * part.standard_normal(_MANY)[weft] + _slubs(part, u, weft))
    if defect == "broken_thread":
        weft_round = weft_round * (1.0 - _gap(flaw, middle, u, weft))

    # Each thread goes over two and under two, and its neighbour does so one thread further on.
    warp_height = warp_round + 0.9 * np.cos(np.pi / 2 * (np.floor(u) + 0.5 - v))
    weft_height = weft_round - 0.9 * np.cos(np.pi / 2 * (np.floor(v) + 0.5 - u))
    fibre = 1.0 + 0.07 * part.standard_normal((size, size))
    warp_tone = (fibre + 0.04 * part.standard_normal(_MANY)[warp]) * part.uniform(0.97, 1.03)  # the dye lot
    weft_tone = fibre + 0.03 * part.standard_normal(_MANY)[weft]
    warp_light = (0.35 + 0.65 * warp_round + 0.10 * np.tanh(warp_height)) * warp_tone
    weft_light = (0.35 + 0.65 * weft_round + 0.10 * np.tanh(weft_height)) * weft_tone
    on_top = np.clip(0.5 + 2.5 * (warp_height - weft_height), 0.0, 1.0)
    scene = paint(weft_light * _CREAM, warp_light * _BLUE, on_top)
    scene *= 1.0 + 0.02 * noise(part, size, 4, octaves=2)

    scene = paint(scene, colour(0.85, 0.85, 0.85), 0.6 * _fluff(part, y, x))
    scene = specks(part, scene, (4, 9), (0.0, 0.05))
    if defect == "hole":
        torn = blob(flaw, y, x, middle, flaw.uniform(0.024, 0.040), 0.25)
        scene = paint(scene, colour(0.17, 0.17, 0.19), cover(torn, soft=0.012))
        scene = paint(scene, colour(0.72, 0.72, 0.70), 0.8 * _frayed(flaw, y, x, middle))
    elif defect == "stain":
        spot = blob(flaw, y, x, middle, flaw.uniform(0.06, 0.12), 0.22)
        depth = flaw.uniform(0.25, 0.45) * cover(spot, soft=0.03) + 0.15 * np.exp(-((spot / 0.012) ** 2))
        scene *= 1.0 - depth * colour(0.70, 0.85, 1.00)
    return np.clip(scene, 0.0, 1.0)


def _threads(part: np.random.Generator, y: Field, x: Field) -> tuple[Field, Field]:
    """Coordinates across the warp and the weft, counted in threads; no cloth lies quite straight."""
    size, threads = len(y), THREADS * part.uniform(0.985, 1.015)
    v, u = turned(y, x, part.uniform(-0.02, 0.02))
    u = u * threads + part.uniform(0.0, 4.0) + 0.15 * noise(part, size, 3) + 0.04 * noise(part, size, 9)
    v = v * threads + part.uniform(0.0, 4.0) + 0.15 * noise(part, size, 3) + 0.04 * noise(part, size, 9)
    return u, v


def _round(at: Field, half_width: Field) -> Field:
    """Height of a round thread's surface, 1 in its middle and 0 beside it."""
    return np.sqrt(np.clip(1.0 - ((at - np.floor(at) - 0.5) / half_width) ** 2, 0.0, 1.0))


def _slubs(part: np.random.Generator, u: Field, weft: NDArray[np.int64]) -> Field:
    """Thick places in the yarn, which are no defect."""
    thicker = np.zeros_like(u)
    for _ in range(int(part.integers(0, 5))):
        thread = _MANY // 2 + part.integers(-THREADS // 2, THREADS // 2)
        along = (u - part.uniform(-13.0, 13.0)) / part.uniform(0.8, 2.0)
        thicker += 0.12 * (weft == thread) * np.exp(-(along**2))
    return thicker


def _fluff(part: np.random.Generator, y: Field, x: Field) -> Field:
    """A few loose fibres on the cloth, which are no defect."""
    fibres = [
        arc(
            y,
            x,
            (part.uniform(-0.5, 0.5), part.uniform(-0.5, 0.5)),
            part.uniform(0.0, np.pi),
            part.uniform(0.02, 0.08),
            part.uniform(-2.0, 2.0),
        )
        for _ in range(int(part.integers(0, 4)))
    ]
    return cover(functools.reduce(np.minimum, fibres, np.ones_like(y)) - 0.002)


def _frayed(flaw: np.random.Generator, y: Field, x: Field, middle: Point) -> Field:
    """Ends of fibres that hang into a hole."""
    fibres = [
        arc(
            y,
            x,
            (middle[0] + flaw.uniform(-0.025, 0.025), middle[1] + flaw.uniform(-0.025, 0.025)),
            flaw.uniform(0.0, np.pi),
            flaw.uniform(0.02, 0.05),
            flaw.uniform(-1.5, 1.5),
        )
        for _ in range(5)
    ]
    return cover(functools.reduce(np.minimum, fibres) - 0.002)


def _gap(flaw: np.random.Generator, middle: Point, u: Field, weft: NDArray[np.int64]) -> Field:
    """Where the weft thread through `middle` is missing."""
    row, column = (int((at + 0.5) * len(u)) for at in middle)
    here = np.clip(flaw.uniform(2.5, 5.5) - np.abs(u - u[row, column]), 0.0, 1.0)
    return here * (weft == weft[row, column])


def _pushed_apart(u: Field, v: Field, y: Field, x: Field) -> tuple[Field, Field]:
    """Threads that bulge around a hole at (y, x) = 0."""
    far = np.hypot(y, x) + 1e-9
    push = 0.022 * np.exp(-((far / 0.045) ** 2)) * THREADS / far
    return u - push * x, v - push * y
