"""Two-coloured capsules in a blister pack of aluminium foil."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from raydiff.images.products.canvas import (
    Field,
    Scene,
    bevel,
    cover,
    jagged,
    noise,
    paint,
    plane,
    specks,
    turned,
)

DEFECTS = ("missing", "cracked", "open", "wrong_colour")
COLUMNS, ROWS = 5, 2
CELLS = COLUMNS * ROWS
PITCH_X, PITCH_Y = 0.186, 0.455
LENGTH, WIDTH = 0.325, 0.118  # of a capsule, in image sides
SEAM = 0.02  # where the cap ends, above the middle

_CAP = np.array([0.78, 0.22, 0.14])
_BODY = np.array([0.94, 0.82, 0.52])
_POWDER = np.array([0.95, 0.94, 0.90])
_FOIL = np.array([0.66, 0.68, 0.71])


def draw(part: np.random.Generator, flaw: np.random.Generator, size: int, defect: str | None) -> Scene:
    """One pack, (size, size, 3) in 0..1; `part` decides the pack, `flaw` its defect."""
    image_y, image_x = plane(size)
    pack_y, pack_x = turned(
        image_y + part.uniform(-0.006, 0.006), image_x + part.uniform(-0.006, 0.006), part.uniform(-0.012, 0.012)
    )
    light = -2.2 + part.uniform(-0.15, 0.15)  # where it comes from: the upper left
    cell, y, x = _folded(pack_y, pack_x)
    chosen = cell == flaw.integers(CELLS)

    scene = _foil(part, pack_y, pack_x)
    dome = _bar(y, x, LENGTH + 0.062, WIDTH + 0.036)
    scene *= (1.0 - 0.24 * cover(dome, soft=0.02) + 0.45 * bevel(dome, light, 0.020))[..., None]

    # The capsule's own frame: it lies a little askew in its dome, either end up.
    lean, slip_y, slip_x = (part.normal(0.0, sigma, CELLS)[cell] for sigma in (0.015, 0.004, 0.002))
    cos, sin = np.cos(lean), np.sin(lean)
    end = np.where(part.uniform(size=CELLS) < 0.5, -1.0, 1.0)[cell]
    along = ((y - slip_y) * cos - (x - slip_x) * sin) * end  # negative in the cap
    across = (y - slip_y) * sin + (x - slip_x) * cos
    gap = np.full_like(y, -1.0)
    if defect == "open":
        gap = np.where(chosen, flaw.uniform(0.008, 0.020) - np.abs(along + SEAM), -1.0)
        along = along - np.where(chosen, np.sign(along + SEAM) * flaw.uniform(0.008, 0.020), 0.0)

    capsule = np.maximum(_bar(along, across, LENGTH, WIDTH), gap)
    if defect == "missing":
        capsule = np.where(chosen, 1.0, capsule)
    shadow = cover(np.roll(capsule, (max(1, round(0.012 * size)),) * 2, (0, 1)), soft=0.03)
    scene *= (1.0 - 0.45 * shadow)[..., None]
    tone = 1.0 + 0.02 * part.standard_normal((CELLS, 3))[cell] * np.array([0.6, 1.0, 1.0])
    colour = np.where((along < -SEAM)[..., None], _CAP, _BODY) * tone
    if defect == "wrong_colour":
        colour = _recoloured(flaw, colour, chosen, along)
    scene = paint(scene, _lit(colour, along, across, light, end, lean), cover(capsule))
    if defect == "cracked":
        scene = _cracked(flaw, scene, along, across, chosen, capsule)

    scene = _gleam(part, scene, y, x, cell, light)
    return np.clip(specks(part, scene, (0, 6), (0.05, 0.98)), 0.0, 1.0)


def _folded(y: Field, x: Field) -> tuple[NDArray[np.int64], Field, Field]:
    """The number of the nearest dome and coordinates (y, x) from its middle."""
    row = np.clip(np.floor(y / PITCH_Y + ROWS / 2), 0, ROWS - 1).astype(np.int64)
    column = np.clip(np.floor(x / PITCH_X + COLUMNS / 2), 0, COLUMNS - 1).astype(np.int64)
    from_row = y - (row - (ROWS - 1) / 2) * PITCH_Y
    from_column = x - (column - (COLUMNS - 1) / 2) * PITCH_X
    return row * COLUMNS + column, from_row, from_column


def _bar(along: Field, across: Field, length: float, width: float) -> Field:
    """Signed distance to a bar with round ends."""
    return np.hypot(np.maximum(np.abs(along) - (length - width) / 2, 0.0), across) - width / 2


def _foil(part: np.random.Generator, y: Field, x: Field) -> Scene:
    """Knurled aluminium, a little crumpled."""
    size = len(y)
    knurl = np.cos(2.0 * np.pi * 34 * (x + y)) * np.cos(2.0 * np.pi * 34 * (x - y))
    crumple = noise(part, size, 7, octaves=3)
    slope_y, slope_x = np.gradient(crumple)
    glint = np.clip((slope_x + slope_y) * size / 20.0, -1.5, 2.5)
    tone = 1.0 + 0.05 * knurl + 0.05 * glint + 0.02 * part.standard_normal((size, size))
    return tone[..., None] * _FOIL


def _lit(colour: Scene, along: Field, across: Field, light: float, end: Field, lean: Field) -> Scene:
    """A glossy round bar's shading; the cap is slipped over the body and a little wider."""
    off_y = np.sign(along) * np.maximum(np.abs(along) - (LENGTH - WIDTH) / 2, 0.0) * end
    ny, nx = off_y / (WIDTH / 2), across / (WIDTH / 2)
    nz = np.sqrt(np.clip(1.0 - ny**2 - nx**2, 0.0, 1.0))
    facing = 0.45 * (ny * np.sin(light) + nx * np.cos(light)) + 0.89 * nz
    gloss = np.clip(0.28 * (ny * np.sin(light) + nx * np.cos(light)) / 0.5 + 0.83 * nz, 0.0, 1.0) ** 30
    seam = np.exp(-(((along + SEAM) / 0.005) ** 2))
    shade = 0.42 + 0.60 * np.clip(facing, 0.0, 1.0) - 0.16 * seam
    return colour * shade[..., None] + 0.40 * gloss[..., None]


def _gleam(part: np.random.Generator, scene: Scene, y: Field, x: Field, cell: NDArray[np.int64], light: float) -> Scene:
    """Reflections of the lamp in the clear domes; how strong differs from dome to dome."""
    strength = part.uniform(0.1, 0.7, CELLS)[cell]
    place = part.normal(0.0, 0.02, CELLS)[cell]
    streak = _bar(y + 0.02 - place, x + 0.040, 0.20, 0.010)
    spot = np.hypot(y - 0.150 - place / 2, x - 0.030) - 0.008
    return paint(scene, [1.0, 1.0, 1.0], strength * cover(np.minimum(streak, spot), soft=0.012))


def _parted(flaw: np.random.Generator, along: Field, chosen: NDArray[np.bool_]) -> Field:
    return along


def _recoloured(flaw: np.random.Generator, colour: Scene, chosen: NDArray[np.bool_], along: Field) -> Scene:
    """A capsule whose cap or body has another product's dye."""
    dye = np.array([[0.74, 0.36, 0.12], [0.62, 0.18, 0.26], [0.50, 0.16, 0.12]])[flaw.integers(3)]
    cap = chosen & (along < -SEAM)
    return np.where(cap[..., None], dye, colour)


def _cracked(
    flaw: np.random.Generator, scene: Scene, along: Field, across: Field, chosen: NDArray[np.bool_], capsule: Field
) -> Scene:
    """A crack across a capsule."""
    steps = 8
    middle = flaw.choice([-0.07, 0.06]) + flaw.uniform(-0.02, 0.02)
    corners = np.stack([np.linspace(-0.085, 0.085, steps) + middle, np.linspace(-0.04, 0.04, steps)], axis=1)
    corners += flaw.uniform(-0.012, 0.012, corners.shape)
    crack = np.where(chosen, jagged(along, across, corners), 1.0)
    scene = paint(scene, _POWDER, 0.8 * cover(crack - 0.009) * cover(capsule))
    return paint(scene, [0.14, 0.07, 0.06], 0.9 * cover(crack - 0.004) * cover(capsule))
