"""Two-coloured capsules in a blister pack of aluminium foil."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from raydiff.images.products.canvas import (
    Field,
    Scene,
    bevel,
    colour,
    cover,
    jagged,
    noise,
    paint,
    plane,
    specks,
    turned,
)

DEFECTS = ("missing", "cracked", "open", "wrong_colour")
ROWS, COLUMNS = 2, 5
DOMES = ROWS * COLUMNS
PITCH_Y, PITCH_X = 0.455, 0.186  # from dome to dome, in image sides
LENGTH, WIDTH = 0.325, 0.118  # of a capsule
SEAM = -0.02  # where the cap ends on the body, along the capsule from its middle

_CAP = colour(0.78, 0.22, 0.14)
_BODY = colour(0.94, 0.82, 0.52)
_OTHER_CAPS = (colour(0.75, 0.34, 0.13), colour(0.66, 0.18, 0.24), colour(0.56, 0.17, 0.12))
_POWDER = colour(0.95, 0.94, 0.90)
_FOIL = colour(0.66, 0.68, 0.71)


def draw(part: np.random.Generator, flaw: np.random.Generator, size: int, defect: str | None) -> Scene:
    """One pack, (3, size, size) in 0..1; `part` decides the pack, `flaw` its defect."""
    pack_y, pack_x = plane(size)
    pack_y, pack_x = pack_y + part.uniform(-0.006, 0.006), pack_x + part.uniform(-0.006, 0.006)
    pack_y, pack_x = turned(pack_y, pack_x, part.uniform(-0.012, 0.012))
    light = -2.2 + part.uniform(-0.15, 0.15)  # where it comes from: the upper left
    dome, y, x = _folded(pack_y, pack_x)
    chosen = dome == flaw.integers(DOMES)

    rim = _bar(y, x, LENGTH + 0.062, WIDTH + 0.036)
    scene = _foil(part, pack_y, pack_x)
    scene *= 1.0 - 0.24 * cover(rim, soft=0.02) + 0.45 * bevel(rim, light, 0.020)

    # The capsule's own frame: it lies a little askew in its dome, either end up.
    lean, slip_y, slip_x = (part.normal(0.0, sigma, DOMES)[dome] for sigma in (0.015, 0.004, 0.002))
    end = part.choice([-1.0, 1.0], DOMES)[dome]
    along, across = turned(y - slip_y, x - slip_x, lean)
    along = along * end  # negative in the cap
    capsule = _bar(along, across, LENGTH, WIDTH)
    if defect == "open":
        gap = flaw.uniform(0.010, 0.020) - np.abs(along - SEAM)
        capsule = np.where(chosen, np.maximum(capsule, gap), capsule)
    if defect == "missing":
        capsule = np.where(chosen, 1.0, capsule)

    fall = max(1, round(0.012 * size))
    scene *= 1.0 - 0.45 * cover(np.roll(capsule, (fall, fall), (0, 1)), soft=0.03)
    shell = np.where(along < SEAM, _CAP, _BODY) * (1.0 + _tints(part)[:, dome])
    if defect == "wrong_colour":
        shell = np.where(chosen & (along < SEAM), _OTHER_CAPS[flaw.integers(len(_OTHER_CAPS))], shell)
    scene = paint(scene, _glossy(shell, along, across, end, light), cover(capsule))
    if defect == "cracked":
        crack = np.where(chosen, _crack(flaw, along, across), 1.0)
        scene = paint(scene, _POWDER, 0.8 * cover(crack - 0.0085) * cover(capsule))
        scene = paint(scene, colour(0.14, 0.07, 0.06), 0.9 * cover(crack - 0.004) * cover(capsule))

    scene = paint(scene, colour(1.0, 1.0, 1.0), _reflections(part, y, x, dome))
    return np.clip(specks(part, scene, (0, 6), (0.05, 0.98)), 0.0, 1.0)


def _folded(y: Field, x: Field) -> tuple[NDArray[np.int64], Field, Field]:
    """The number of the nearest dome, and coordinates (y, x) from its middle."""
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
    slope_y, slope_x = np.gradient(noise(part, size, 7, octaves=3))
    glint = np.clip((slope_x + slope_y) * size / 20.0, -1.5, 2.5)
    return (1.0 + 0.05 * knurl + 0.05 * glint + 0.02 * part.standard_normal((size, size))) * _FOIL


def _tints(part: np.random.Generator) -> NDArray[np.float64]:
    """Small differences of colour between capsules, (3, DOMES)."""
    return np.array([[0.012], [0.020], [0.020]]) * part.standard_normal((3, DOMES))


def _glossy(shell: Scene, along: Field, across: Field, end: Field, light: float) -> Scene:
    """A round bar's light and gloss, and the step from the cap to the body."""
    up = np.sign(along) * np.maximum(np.abs(along) - (LENGTH - WIDTH) / 2, 0.0) * end / (WIDTH / 2)
    side = across / (WIDTH / 2)
    front = np.sqrt(np.clip(1.0 - up**2 - side**2, 0.0, 1.0))
    facing = up * np.sin(light) + side * np.cos(light)
    seam = np.exp(-(((along - SEAM) / 0.005) ** 2))
    shade = 0.42 + 0.60 * np.clip(0.45 * facing + 0.89 * front, 0.0, 1.0) - 0.16 * seam
    return shell * shade + 0.40 * np.clip(0.56 * facing + 0.83 * front, 0.0, 1.0) ** 30


def _crack(flaw: np.random.Generator, along: Field, across: Field) -> Field:
    """Distance to a crack that runs lengthwise through the cap or the body."""
    middle = flaw.choice([-0.07, 0.06]) + flaw.uniform(-0.02, 0.02)
    corners = np.linspace([middle - 0.085, -0.04], [middle + 0.085, 0.04], 8)
    return jagged(along, across, corners + flaw.uniform(-0.012, 0.012, corners.shape))


def _reflections(part: np.random.Generator, y: Field, x: Field, dome: NDArray[np.int64]) -> Field:
    """The lamp in the clear domes, stronger in some than in others."""
    strength, shift = part.uniform(0.1, 0.7, DOMES)[dome], part.normal(0.0, 0.02, DOMES)[dome]
    streak = _bar(y + 0.02 - shift, x + 0.040, 0.20, 0.010)
    spot = np.hypot(y - 0.150 - shift / 2, x - 0.030) - 0.008
    return strength * cover(np.minimum(streak, spot), soft=0.012)
