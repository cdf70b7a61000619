"""Perlin noise and the anomaly masks made of it (DRAEM's, as DiffusionAD's code draws them)."""

from __future__ import annotations

import math

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from raydiff.vision_libraries import torchvision

V = torchvision.transforms.v2.functional
FINEST = 6  # cells along an axis: 2^0 to 2^5
TRIES = 50
ROUGHNESS = 0.6  # height of each fineness of fractal noise, of the coarser one's before it


def perlin_noise(size: int, cells: tuple[int, int], generator: torch.Generator) -> Tensor:
    """(size, size) gradient noise, about -1 to 1, on a lattice of cells[0] x cells[1] cells."""
    angles = 2 * math.pi * torch.rand(cells[0] + 1, cells[1] + 1, generator=generator)
    (row, y), (column, x) = (_places(size, count) for count in cells)
    y, x = y[:, None], x[None, :]

    def corner(down: int, right: int) -> Tensor:
        angle = angles[(row + down)[:, None], (column + right)[None, :]]
        return torch.cos(angle) * (y - down) + torch.sin(angle) * (x - right)

    across = _fade(x)
    top = torch.lerp(corner(0, 0), corner(0, 1), across)
    bottom = torch.lerp(corner(1, 0), corner(1, 1), across)
    return math.sqrt(2) * torch.lerp(top, bottom, _fade(y))


def perlin_mask(foreground: Tensor, generator: torch.Generator, cut: float) -> Tensor:
    """(S, S) bool: where a made anomaly lies, inside the foreground (S, S).

    Noise of random fineness along each axis, turned by up to 90 degrees and cut at the height `cut`, is drawn until
    some of it lies on the foreground; after 50 draws the mask stays empty.
    """
    size = len(foreground)
    finest = _finenesses(size)
    for _ in range(TRIES):
        rows, columns = (2 ** int(torch.randint(finest, (), generator=generator)) for _ in range(2))
        noise = perlin_noise(size, (rows, columns), generator)
        angle = 180 * float(torch.rand((), generator=generator)) - 90
        mask = (V.rotate(noise[None], angle, V.InterpolationMode.BILINEAR)[0] > cut) & foreground
        if mask.any():
            break
    return mask


def some_parts(mask: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """(S, S) bool: at most `count` of a mask's connected parts, drawn by the square root of their areas.

    A mask of noise may have a hundred parts, where a product has one defect; most of the hundred are specks.
    """
    parts, found = ndimage.label(mask.numpy())
    if found <= count:
        return mask
    areas = torch.from_numpy(np.bincount(parts.ravel())[1:])
    kept = 1 + torch.multinomial(areas.sqrt(), count, generator=generator)
    return torch.isin(torch.from_numpy(parts), kept)


def fractal_noise(size: int, generator: torch.Generator) -> Tensor:
    """(size, size) Perlin noise of several finenesses on top of each other, between 0 and 1."""
    total, height = torch.zeros(size, size), 1.0
    for octave in range(1, _finenesses(size)):
        total += height * perlin_noise(size, (2**octave, 2**octave), generator)
        height *= ROUGHNESS
    low, high = total.aminmax()
    return (total - low) / (high - low).clamp_min(1e-6)


def _finenesses(size: int) -> int:
    """How many of the finenesses 2^0, 2^1, ... an image of this size can show."""
    return min(FINEST, int(math.log2(size)) + 1)


def _places(size: int, cells: int) -> tuple[Tensor, Tensor]:
    """The cell of each pixel along an axis, and where in it the pixel lies (0 to 1)."""
    place = torch.arange(size) * (cells / size)
    return place.long(), place.frac()


def _fade(t: Tensor) -> Tensor:
    return t**3 * (t * (6 * t - 15) + 10)
