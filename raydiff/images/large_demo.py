"""Large demo images: two products as a line camera sees them, whose defects are a few pixels wide.

Squashed to the square of a network they are next to nothing; seen tile by tile they are there (see raydiff.views).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from raydiff.images.drawn_set import Drawn, write_set

VERSION = 1  # of the drawings: a change that moves a pixel raises it
HEIGHT, WIDTH = 2000, 3000
SMALLEST, LARGEST = 6.0, 24.0  # width of a defect, pixels
PITCH = 100  # of a board's pads, pixels

Field = NDArray[np.float32]
# From a generator, the pixels' places (y, x) around a flaw's middle and its width in pixels: what of each pixel is
# flaw, and the flaw's grey.
Flaw = Callable[[np.random.Generator, Field, Field, float], tuple[Field, float]]


class Product(NamedTuple):
    """Something to inspect: what draws it, a generator, height and width given, and its kinds of defect."""

    scene: Callable[[np.random.Generator, int, int], Field]
    flaws: dict[str, Flaw]
    pitch: int | None = None  # pixels between the parts on which its defects lie; None: they lie anywhere


def draw(
    folder: str,
    seed: int = 0,
    train: int = 50,
    test_good: int = 30,
    test_defective: int = 30,
    height: int = HEIGHT,
    width: int = WIDTH,
) -> None:
    """Draw the large demo set into a local folder, in MVTec's layout.

    Args:
        folder: where to; must be empty, absent or an earlier call's.
        seed: another seed draws other pieces of the same products.
        train: normal images to train on, for each product.
        test_good: normal images to test on, for each product.
        test_defective: defective images to test on, for each product, its kinds of defect in turn.
        height, width: of the images, pixels.

    Raises:
        DataError: if the folder holds something else, or is not on this machine's disk.
    """
    card = {"large": VERSION, "seed": seed, "train": train, "test_good": test_good, "test_defective": test_defective}
    card |= {"height": height, "width": width}
    todo: list[Drawn] = []
    for name, product in PRODUCTS.items():
        kinds = list(product.flaws)
        for split, count in (("train", train), ("test", test_good), ("defective", test_defective)):
            for number in range(count):
                index, kind = divmod(number, len(kinds)) if split == "defective" else (number, None)
                defect = None if kind is None else kinds[kind]
                key = [seed, *name.encode(), *split.encode(), number]
                paint = partial(_paint, product, defect, key, height, width)
                place = f"{name}/{'train' if split == 'train' else 'test'}/{defect or 'good'}/{index:03d}.jpg"
                mask = f"{name}/ground_truth/{defect}/{index:03d}_mask.png" if defect else None
                todo.append((place, mask, paint))
    write_set(folder, card, todo)


def _paint(
    product: Product, defect: str | None, key: list[int], height: int, width: int
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """A grey image (H, W) and the mask (H, W) of its defect."""
    part, fault, grain = (np.random.default_rng([*key, stream]) for stream in range(3))
    image = product.scene(part, height, width)
    mask = np.zeros((height, width), bool)
    if defect is not None:
        size = float(np.exp(fault.uniform(np.log(SMALLEST), np.log(LARGEST))))
        reach = int(2 * LARGEST)
        top, left = (int(fault.integers(0, side - 2 * reach)) for side in (height, width))
        if pitch := product.pitch:
            top, left = (round((at + reach) / pitch - 0.5) * pitch + pitch // 2 - reach for at in (top, left))
            top, left = (int(np.clip(at, 0, side - 2 * reach)) for at, side in ((top, height), (left, width)))
        y, x = np.mgrid[-reach:reach, -reach:reach].astype(np.float32)
        share, tone = product.flaws[defect](fault, y, x, size)
        place = slice(top, top + 2 * reach), slice(left, left + 2 * reach)
        image[place] += share * (tone - image[place])
        mask[place] = share > 0.2
    image = image * part.uniform(0.95, 1.05) + 0.012 * grain.standard_normal((height, width), np.float32)
    return np.rint(255 * image.clip(0, 1)).astype(np.uint8), mask


def _sheet(rng: np.random.Generator, height: int, width: int) -> Field:
    """Brushed metal: streaks along the rolling direction, and light that falls off to one side."""
    streaks = ndimage.gaussian_filter(rng.standard_normal((height, width // 8 + 1), np.float32), (0.8, 12))
    streaks = np.repeat(streaks / streaks.std(), 8, axis=1)[:, :width]
    light = np.linspace(-1, 1, width, dtype=np.float32) * rng.uniform(-0.05, 0.05)
    return np.asarray(0.55 + 0.035 * streaks + light, np.float32)


def _board(rng: np.random.Generator, height: int, width: int) -> Field:
    """A plate with a pad every PITCH pixels and traces between the pads of a row, laid down a little off each time."""
    y, x = np.mgrid[:height, :width].astype(np.float32)
    angle = np.deg2rad(rng.uniform(-0.05, 0.05))
    y, x = y + angle * x + rng.uniform(-2, 2), x - angle * y + rng.uniform(-2, 2)
    v, u = (np.mod(at, PITCH) - PITCH / 2 for at in (y, x))
    radius = np.hypot(v, u)
    pad = np.clip(22.5 - radius, 0, 1) * np.clip(radius - 8.5, 0, 1)
    trace = np.clip(4.5 - np.abs(v), 0, 1) * np.clip(radius - 22, 0, 1) * (np.floor(y / PITCH) % 2)
    metal = np.maximum(pad, trace)
    cloudy = ndimage.zoom(rng.standard_normal((9, 13)), (height / 9 + 1, width / 13 + 1), order=1)[:height, :width]
    return np.asarray(0.25 + 0.015 * cloudy + metal * (0.5 - 0.02 * cloudy), np.float32)


def _pit(rng: np.random.Generator, y: Field, x: Field, size: float) -> tuple[Field, float]:
    return np.clip(size / 2 - np.hypot(y, x) + 0.5, 0, 1), 0.3


def _stain(rng: np.random.Generator, y: Field, x: Field, size: float) -> tuple[Field, float]:
    squared = (y**2 + x**2) / (size / 2) ** 2
    return np.asarray(np.exp(-squared) * (squared < 4), np.float32), 0.85


def _scratch(rng: np.random.Generator, y: Field, x: Field, size: float) -> tuple[Field, float]:
    turn = rng.uniform(0.2, np.pi - 0.2)  # across the streaks
    across, along = y * np.cos(turn) - x * np.sin(turn), y * np.sin(turn) + x * np.cos(turn)
    return np.clip(1.5 - np.abs(across), 0, 1) * np.clip(size - np.abs(along) + 0.5, 0, 1), 0.9


def _chip(rng: np.random.Generator, y: Field, x: Field, size: float) -> tuple[Field, float]:
    turn = rng.uniform(0, 2 * np.pi)  # a bite out of the pad's ring
    return np.clip(size / 2 - np.hypot(y - 17 * np.sin(turn), x - 17 * np.cos(turn)) + 0.5, 0, 1), 0.22


def _bridge(rng: np.random.Generator, y: Field, x: Field, size: float) -> tuple[Field, float]:
    turn = rng.uniform(0.6, np.pi - 0.6) * rng.choice([-1, 1])  # solder on the way to a pad of the next row
    across, along = y * np.cos(turn) - x * np.sin(turn), y * np.sin(turn) + x * np.cos(turn)
    return np.clip(3.5 - np.abs(across), 0, 1) * np.clip(along - 20, 0, 1) * np.clip(20 + size - along, 0, 1), 0.7


PRODUCTS = {
    "board": Product(_board, {"chip": _chip, "bridge": _bridge}, PITCH),
    "sheet": Product(_sheet, {"pit": _pit, "scratch": _scratch, "stain": _stain}),
}
