"""Denim-like twill: pale weft under and over blue warp threads."""

from __future__ import annotations

import numpy as np

from raydiff.images.products.canvas import Field, Scene, arc, blob, cover, noise, paint, plane, specks, turned

DEFECTS = ("broken_thread", "hole", "stain")
THREADS = 27  # to an image side

_SPARE = 48  # so that an index of a thread left of the image is not negative


def draw(part: np.random.Generator, flaw: np.random.Generator, size: int, defect: str | None) -> Scene:
    """One piece of cloth, (size, size, 3) in 0..1; `part` decides the cloth, `flaw` its defect."""
    y, x = plane(size)
    v, u = turned(y, x, part.uniform(-0.02, 0.02))
    threads = THREADS * part.uniform(0.985, 1.015)
    u = u * threads + part.uniform(0.0, 4.0) + 0.15 * noise(part, size, 3) + 0.04 * noise(part, size, 9)
    v = v * threads + part.uniform(0.0, 4.0) + 0.15 * noise(part, size, 3) + 0.04 * noise(part, size, 9)
    middle = (flaw.uniform(-0.4, 0.4), flaw.uniform(-0.4, 0.4))
    torn = np.full_like(y, np.inf)
    if defect == "hole":
        torn = blob(flaw, y, x, middle, flaw.uniform(0.024, 0.040), 0.25)
        u, v = _pushed_apart(u, v, y - middle[0], x - middle[1], threads)

    warp, weft = np.floor(u).astype(int) + _SPARE, np.floor(v).astype(int) + _SPARE
    warp_width = 0.47 + 0.03 * part.standard_normal(2 * _SPARE)[warp]
    weft_width = 0.47 + 0.03 * part.standard_normal(2 * _SPARE)[weft] + _slubs(part, u, weft)
    warp_round = _roundness(u, warp_width)
    weft_round = _roundness(v, weft_width)
    if defect == "broken_thread":
        weft_round = weft_round * (1.0 - _gap(flaw, middle, y, x, u, weft))
    # Twill two over, two under: the floats of each thread are shifted by one against its neighbour's.
    warp_height = warp_round + 0.9 * np.cos(np.pi / 2 * (warp + 0.5 - _SPARE - v))
    weft_height = weft_round - 0.9 * np.cos(np.pi / 2 * (u - (weft + 0.5 - _SPARE)))
    warp_on_top = np.clip(0.5 + 2.5 * (warp_height - weft_height), 0.0, 1.0)

    lint = 0.07 * part.standard_normal((size, size))
    warp_tone = 1.0 + 0.04 * part.standard_normal(2 * _SPARE)[warp] + lint
    weft_tone = 1.0 + 0.03 * part.standard_normal(2 * _SPARE)[weft] + lint
    dye = part.uniform(0.97, 1.03)
    blue = np.array([0.20, 0.32, 0.53]) * dye
    cream = np.array([0.80, 0.79, 0.75])
    shade_warp = (0.35 + 0.65 * warp_round + 0.10 * np.tanh(warp_height)) * warp_tone
    shade_weft = (0.35 + 0.65 * weft_round + 0.10 * np.tanh(weft_height)) * weft_tone
    scene = shade_weft[..., None] * cream
    scene = paint(scene, shade_warp[..., None] * blue, warp_on_top)
    scene *= (1.0 + 0.02 * noise(part, size, 4, octaves=2))[..., None]
    scene = specks(part, _fluff(part, scene, y, x), (4, 9), (0.0, 0.05))

    if defect == "hole":
        scene = paint(scene, [0.17, 0.17, 0.19], cover(torn, soft=0.012))
        scene = _frayed(flaw, scene, y, x, middle)
    elif defect == "stain":
        spot = blob(flaw, y, x, middle, flaw.uniform(0.06, 0.12), 0.22)
        depth = flaw.uniform(0.25, 0.45) * cover(spot, soft=0.03)
        rim = 0.15 * np.exp(-((spot / 0.012) ** 2))
        scene = scene * (1.0 - (depth + rim)[..., None] * np.array([0.7, 0.85, 1.0]))
    return np.clip(scene, 0.0, 1.0)


def _roundness(at: Field, width: Field) -> Field:
    """Height of a round thread's surface, 1 in its middle and 0 beside it."""
    off = (at - np.floor(at) - 0.5) / width
    return np.sqrt(np.clip(1.0 - off**2, 0.0, 1.0))


def _slubs(part: np.random.Generator, u: Field, weft: np.ndarray) -> Field:
    """Thick places in the yarn, which are no defect."""
    more = np.zeros_like(u)
    for _ in range(int(part.integers(0, 5))):
        thread, place = part.integers(_SPARE - THREADS // 2, _SPARE + THREADS // 2), part.uniform(-13.0, 13.0)
        more += 0.12 * (weft == thread) * np.exp(-(((u - place) / part.uniform(0.8, 2.0)) ** 2))
    return more


def _gap(
    flaw: np.random.Generator, middle: tuple[float, float], y: Field, x: Field, u: Field, weft: np.ndarray
) -> Field:
    """Where one weft thread is missing, around `middle`."""
    row, column = (np.clip(((np.array(middle) + 0.5) * len(y)).astype(int), 0, len(y) - 1)).tolist()
    half = flaw.uniform(2.5, 5.5)
    return (weft == weft[row, column]) * np.clip(half - np.abs(u - u[row, column]), 0.0, 1.0)


def _pushed_apart(u: Field, v: Field, y: Field, x: Field, threads: float) -> tuple[Field, Field]:
    """Threads bulging around a hole at (y, x) = 0."""
    far = np.hypot(y, x) + 1e-9
    push = 0.022 * np.exp(-((far / 0.045) ** 2)) * threads / far
    return u - push * x, v - push * y


def _fluff(part: np.random.Generator, scene: Scene, y: Field, x: Field) -> Scene:
    """A few loose fibres on the cloth, which are no defect."""
    for _ in range(int(part.integers(0, 4))):
        place = (part.uniform(-0.5, 0.5), part.uniform(-0.5, 0.5))
        fibre = arc(y, x, place, part.uniform(0, np.pi), part.uniform(0.02, 0.08), part.uniform(-2.0, 2.0))
        scene = paint(scene, [0.85, 0.85, 0.85], 0.6 * cover(fibre - 0.002))
    return scene


def _frayed(flaw: np.random.Generator, scene: Scene, y: Field, x: Field, middle: tuple[float, float]) -> Scene:
    """Fibre ends that hang into a hole."""
    for _ in range(5):
        place = (middle[0] + flaw.uniform(-0.025, 0.025), middle[1] + flaw.uniform(-0.025, 0.025))
        fibre = arc(y, x, place, flaw.uniform(0, np.pi), flaw.uniform(0.02, 0.05), flaw.uniform(-1.5, 1.5))
        scene = paint(scene, [0.72, 0.72, 0.70], 0.8 * cover(fibre - 0.002))
    return scene
