"""A turned steel gear on a conveyor belt, lying any way round."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from raydiff.images.products.canvas import (
    Field,
    Scene,
    arc,
    bevel,
    blob,
    cover,
    noise,
    paint,
    plane,
    ripple,
    specks,
    turned,
)

DEFECTS = ("missing_tooth", "scratch", "burr", "blocked_hole")
TEETH = 18
HOLES = 6
# Radii in image sides: tips and roots of the teeth, the recess and the holes in it, the hub and its bore.
TIP, ROOT, RECESS, HOLE_RING, HOLE, HUB, BORE = 0.430, 0.360, 0.295, 0.216, 0.045, 0.132, 0.066

_STEEL = np.array([0.66, 0.67, 0.69])
_DARK = np.array([0.10, 0.11, 0.12])


def draw(part: np.random.Generator, flaw: np.random.Generator, size: int, defect: str | None) -> Scene:
    """One gear, (size, size, 3) in 0..1; `part` decides the gear and its pose, `flaw` its defect."""
    image_y, image_x = plane(size)
    shift, zoom = part.uniform(-0.005, 0.005, 2), part.uniform(0.995, 1.005)
    pose = part.integers(HOLES) * 2.0 * np.pi / HOLES + part.uniform(-0.01, 0.01)
    light = -2.2 + part.uniform(-0.15, 0.15)  # where it comes from: the upper left
    y, x = turned((image_y - shift[0]) / zoom, (image_x - shift[1]) / zoom, pose)
    radius, angle = np.hypot(y, x), np.arctan2(y, x)

    stump = _stump(flaw, radius, angle) if defect == "missing_tooth" else np.full_like(radius, TIP)
    outline = _outline(radius, angle, stump)
    if defect == "burr":
        outline = np.minimum(outline, _burr(flaw, y, x))
    ring_y, ring_x, hole = _folded(radius, angle)
    holes = np.hypot(ring_y, ring_x) - HOLE
    bore = np.minimum(radius - BORE, np.maximum(np.abs(y) - 0.018, np.abs(x - BORE) - 0.024))
    solid = np.maximum(outline, -np.minimum(holes, bore))

    scene = _belt(part, size)
    step = max(1, round(0.022 * size))
    shadow = cover(np.roll(solid, (step, step // 2), (0, 1)), soft=0.035)
    scene = scene * (1.0 - 0.6 * shadow)[..., None]

    turned_face = _turned_face(part, radius, np.arctan2(image_y - shift[0], image_x - shift[1]), light)
    cast = 0.40 + 0.02 * noise(part, size, 40, octaves=2)
    recess = np.maximum(radius - RECESS, HUB - radius)
    face = turned_face + (cast - turned_face) * cover(recess)
    face += 0.22 * bevel(-recess, light, 0.012)
    face += 0.25 * bevel(np.maximum(outline, -bore), light, 0.010) + 0.18 * bevel(-holes, light, 0.008)
    face -= 0.02 * np.clip(noise(part, size, 4, octaves=2), 0.0, None)  # a film of oil
    for _ in range(int(part.integers(0, 4))):  # hairlines from handling, which are no defect
        face += 0.5 * part.uniform(0.03, 0.10) * cover(_line(part, y, x, 0.10) - 0.001)
    if defect == "scratch":
        mark = _line(flaw, y, x, flaw.uniform(0.25, 0.45))
        face += flaw.uniform(0.30, 0.5) * (cover(mark - 0.005) - 0.6 * cover(np.abs(mark - 0.008) - 0.003))
    elif defect == "missing_tooth":
        fresh = cover(stump - 0.028 - radius) * (stump < TIP)  # the bright grain of the break
        face += (0.25 + 0.12 * noise(flaw, size, 70)) * fresh
    face += 0.02 * part.standard_normal((size, size))
    scene = paint(scene, face[..., None] * _STEEL / 0.67, cover(solid))
    if defect == "blocked_hole":
        scene = _blocked(flaw, scene, ring_y, ring_x, hole)
    return np.clip(specks(part, scene, (0, 6), (0.05, 0.95)), 0.0, 1.0)


def _belt(part: np.random.Generator, size: int) -> Scene:
    """A green-grey conveyor belt with a fine grain."""
    tone = 1.0 + 0.02 * noise(part, size, 5, octaves=2) + 0.025 * noise(part, size, 64)
    return tone[..., None] * np.array([0.23, 0.34, 0.33]) * part.uniform(0.96, 1.04)


def _outline(radius: Field, angle: Field, tip: Field) -> Field:
    """Signed distance to the toothed rim; `tip` is how far out the tooth at each place reaches."""
    turn = angle * TEETH / (2.0 * np.pi)
    across = np.abs(turn - np.floor(turn) - 0.5)  # 0 in the middle of a tooth, 0.5 between two
    half = 0.315 - 0.165 * (radius - ROOT) / (TIP - ROOT)
    flank = (across - half) * radius * 2.0 * np.pi / TEETH
    return np.minimum(radius - ROOT, np.maximum(flank, radius - tip))


def _folded(radius: Field, angle: Field) -> tuple[Field, Field, NDArray[np.int64]]:
    """Coordinates around the nearest of the ring of holes, and its number."""
    turn = angle * HOLES / (2.0 * np.pi)
    number = np.floor(turn).astype(np.int64)
    off = (turn - number - 0.5) * 2.0 * np.pi / HOLES
    return radius * np.sin(off), radius * np.cos(off) - HOLE_RING, number % HOLES


def _turned_face(part: np.random.Generator, radius: Field, angle: Field, light: float) -> Field:
    """Steel with the rings and the bow-tie gleam that a lathe leaves."""
    gleam = 0.13 * np.cos(2.0 * (angle - light - 0.5 * np.pi)) + 0.05 * np.cos(6.0 * (angle - light))
    rings = 0.015 * ripple(part, radius, 190) + 0.012 * ripple(part, radius, 60)
    return 0.66 + gleam + rings


def _place(flaw: np.random.Generator, radius: float, turn: float) -> tuple[float, float]:
    angle = turn * 2.0 * np.pi
    return radius * np.sin(angle), radius * np.cos(angle)


def _stump(flaw: np.random.Generator, radius: Field, angle: Field) -> Field:
    """How far out the teeth reach where one of them has broken off."""
    turn = angle * TEETH / (2.0 * np.pi)
    broken = (np.floor(turn) % TEETH) == flaw.integers(TEETH)
    rough = 0.007 * noise(flaw, len(radius), 50)
    return np.where(broken, ROOT + flaw.uniform(0.0, 0.025) + rough, TIP)


def _burr(flaw: np.random.Generator, y: Field, x: Field) -> Field:
    """Signed distance to a curl of metal left on a tooth's edge."""
    turn = (flaw.integers(TEETH) + flaw.choice([0.2, 0.8])) / TEETH
    place = _place(flaw, flaw.uniform(ROOT + 0.02, TIP), turn)
    length = flaw.uniform(0.07, 0.11)
    curl = arc(y, x, place, flaw.uniform(0.0, np.pi), length, flaw.uniform(-2.5, 2.5))
    return curl - flaw.uniform(0.009, 0.014)


def _line(rng: np.random.Generator, y: Field, x: Field, length: float) -> Field:
    """Distance to a slightly bent line somewhere on the gear's face."""
    place = _place(rng, rng.uniform(0.10, 0.34), rng.uniform())
    return arc(y, x, place, rng.uniform(0.0, np.pi), length * rng.uniform(0.6, 1.0), rng.uniform(-0.6, 0.6))


def _blocked(flaw: np.random.Generator, scene: Scene, y: Field, x: Field, hole: NDArray[np.int64]) -> Scene:
    """Swarf in one of the holes."""
    number = flaw.integers(HOLES)
    plug = np.where(hole == number, blob(flaw, y, x, (flaw.uniform(-0.008, 0.008), 0.0), 0.042, 0.15), 1.0)
    plug = np.maximum(plug, np.hypot(y, x) - HOLE)
    tone = 0.55 + 0.12 * noise(flaw, len(y), 60)
    return paint(scene, tone[..., None] * _STEEL / 0.67, cover(plug))
