"""A turned steel gear in its fixture on a conveyor belt."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from raydiff.images.products.canvas import (
    Field,
    Scene,
    arc,
    bevel,
    blob,
    colour,
    cover,
    noise,
    paint,
    place,
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

_BELT = colour(0.23, 0.34, 0.33)
_STEEL = colour(0.985, 1.00, 1.03)


def draw(part: np.random.Generator, flaw: np.random.Generator, size: int, defect: str | None) -> Scene:
    """One gear, (3, size, size) in 0..1; `part` decides the gear and its pose, `flaw` its defect."""
    image_y, image_x = plane(size)
    image_y, image_x = image_y + part.uniform(-0.005, 0.005), image_x + part.uniform(-0.005, 0.005)
    # The fixture's pins hold the gear in one of six ways round, with a little play.
    pose = part.integers(HOLES) * 2.0 * np.pi / HOLES + part.uniform(-0.01, 0.01)
    y, x = turned(image_y, image_x, pose)
    zoom = part.uniform(0.995, 1.005)
    y, x = y / zoom, x / zoom
    radius, angle = np.hypot(y, x), np.arctan2(y, x)
    light = -2.2 + part.uniform(-0.15, 0.15)  # where it comes from: the upper left

    tip = _stump(flaw, radius, angle) if defect == "missing_tooth" else np.full_like(radius, TIP)
    outline = _outline(radius, angle, tip)
    if defect == "burr":
        outline = np.minimum(outline, _burr(flaw, y, x))
    hole, hole_y, hole_x = _folded(radius, angle)
    holes = np.hypot(hole_y, hole_x) - HOLE
    bore = np.minimum(radius - BORE, np.maximum(np.abs(y) - 0.018, np.abs(x - BORE) - 0.024))  # with a keyway
    solid = np.maximum(outline, -np.minimum(holes, bore))

    belt = part.uniform(0.96, 1.04) + 0.02 * noise(part, size, 5, octaves=2) + 0.025 * noise(part, size, 64)
    below, right = max(1, round(0.022 * size)), max(1, round(0.011 * size))
    shadow = cover(np.roll(solid, (below, right), (0, 1)), soft=0.035)
    scene = belt * (1.0 - 0.6 * shadow) * _BELT

    face = _turned_steel(part, radius, np.arctan2(image_y, image_x) - light)
    recess = np.maximum(radius - RECESS, HUB - radius)
    face += (0.40 + 0.02 * noise(part, size, 40, octaves=2) - face) * cover(recess)  # left as it was cast
    face += 0.22 * bevel(-recess, light, 0.012) + 0.18 * bevel(-holes, light, 0.008)
    face += 0.25 * bevel(np.maximum(outline, -bore), light, 0.010)
    face -= 0.02 * np.clip(noise(part, size, 4, octaves=2), 0.0, None)  # a film of oil
    for _ in range(int(part.integers(0, 4))):  # hairlines from handling, which are no defect
        face += part.uniform(0.015, 0.05) * cover(_line(part, y, x, 0.10) - 0.001)
    if defect == "scratch":
        mark = _line(flaw, y, x, flaw.uniform(0.25, 0.45))
        furrow = cover(mark - 0.005) - 0.6 * cover(np.abs(mark - 0.008) - 0.003)
        face += flaw.uniform(0.30, 0.50) * furrow
    elif defect == "missing_tooth":
        fresh = cover(tip - 0.028 - radius) * (tip < TIP)
        face += (0.25 + 0.12 * noise(flaw, size, 70)) * fresh  # the bright grain of the break
    face += 0.02 * part.standard_normal((size, size))
    scene = paint(scene, face * _STEEL, cover(solid))
    if defect == "blocked_hole":
        plug = blob(flaw, hole_y, hole_x, (flaw.uniform(-0.008, 0.008), 0.0), 0.042, 0.15)
        plug = np.where(hole == flaw.integers(HOLES), np.maximum(plug, holes), 1.0)
        scene = paint(scene, (0.55 + 0.12 * noise(flaw, size, 60)) * _STEEL, cover(plug))
    return np.clip(specks(part, scene, (0, 6), (0.05, 0.95)), 0.0, 1.0)


def _outline(radius: Field, angle: Field, tip: Field) -> Field:
    """Signed distance to the toothed rim; `tip` is how far out the tooth at each place reaches."""
    turn = angle * TEETH / (2.0 * np.pi)
    across = np.abs(turn - np.floor(turn) - 0.5)  # 0 in the middle of a tooth, 0.5 between two
    half_width = 0.315 - 0.165 * (radius - ROOT) / (TIP - ROOT)
    flank = (across - half_width) * radius * 2.0 * np.pi / TEETH
    return np.minimum(radius - ROOT, np.maximum(flank, radius - tip))


def _stump(flaw: np.random.Generator, radius: Field, angle: Field) -> Field:
    """How far out the teeth reach where one of them has broken off."""
    broken = np.floor(angle * TEETH / (2.0 * np.pi)) % TEETH == flaw.integers(TEETH)
    return np.where(broken, ROOT + flaw.uniform(0.0, 0.025) + 0.007 * noise(flaw, len(radius), 50), TIP)


def _burr(flaw: np.random.Generator, y: Field, x: Field) -> Field:
    """Signed distance to a curl of metal left on a tooth's edge."""
    turn = (flaw.integers(TEETH) + flaw.choice([0.2, 0.8])) / TEETH
    root = place(flaw.uniform(ROOT + 0.02, TIP), turn)
    curl = arc(y, x, root, flaw.uniform(0.0, np.pi), flaw.uniform(0.07, 0.11), flaw.uniform(-2.5, 2.5))
    return curl - flaw.uniform(0.009, 0.014)


def _folded(radius: Field, angle: Field) -> tuple[NDArray[np.int64], Field, Field]:
    """The number of the nearest of the ring of holes, and coordinates (y, x) from its middle."""
    turn = angle * HOLES / (2.0 * np.pi)
    number = np.floor(turn).astype(np.int64)
    off = (turn - number - 0.5) * 2.0 * np.pi / HOLES
    return number % HOLES, radius * np.sin(off), radius * np.cos(off) - HOLE_RING


def _turned_steel(part: np.random.Generator, radius: Field, from_light: Field) -> Field:
    """Steel with the rings and the bow-tie gleam that a lathe leaves."""
    gleam = -0.13 * np.cos(2.0 * from_light) + 0.05 * np.cos(6.0 * from_light)
    return 0.66 + gleam + 0.015 * ripple(part, radius, 190) + 0.012 * ripple(part, radius, 60)


def _line(rng: np.random.Generator, y: Field, x: Field, length: float) -> Field:
    """Distance to a slightly bent line somewhere on the gear's face."""
    middle = place(rng.uniform(0.10, 0.34), rng.uniform())
    return arc(y, x, middle, rng.uniform(0.0, np.pi), length * rng.uniform(0.6, 1.0), rng.uniform(-0.6, 0.6))
