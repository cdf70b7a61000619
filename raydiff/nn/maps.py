"""From errors on a grid to an anomaly map and an image score."""

from __future__ import annotations

import math
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor


def anomaly_map(errors: Tensor, size: int, blur_sigma: float) -> Tensor:
    """(N, g, g) errors to (N, size, size) maps: bilinear upsampling, then a Gaussian blur of sigma pixels."""
    maps = F.interpolate(errors[:, None], (size, size), mode="bilinear", align_corners=False)
    return gaussian_blur(maps, blur_sigma)[:, 0]


def gaussian_blur(maps: Tensor, sigma: float) -> Tensor:
    """Separable Gaussian blur of (N, 1, H, W), cut at 4 sigma, edges reflected as scipy's default does."""
    if sigma == 0:
        return maps
    radius = min(int(4 * sigma + 0.5), min(maps.shape[-2:]) - 1)
    offsets = torch.arange(-radius, radius + 1, dtype=maps.dtype, device=maps.device)
    kernel = torch.exp(-0.5 * (offsets / sigma) ** 2)
    kernel = kernel / kernel.sum()
    padded = _reflect(_reflect(maps, radius, -1), radius, -2)
    blurred = F.conv2d(padded, kernel.view(1, 1, 1, -1))
    return F.conv2d(blurred, kernel.view(1, 1, -1, 1))


class MapReader(Protocol):
    """Reads image scores off maps that come some rows at a time: the same to the bit, wherever they are cut."""

    @property
    def rule(self) -> str:
        """How, in words."""

    def add(self, rows: Tensor) -> None:
        """Take in the next rows (N, h, W) of N maps."""

    def scores(self) -> Tensor:
        """(N,) image scores of the maps whose rows were all taken in."""


class LargestWindow:
    """The largest mean over any pool x pool window (stride 1) of maps of a height and a width."""

    def __init__(self, pool: int, height: int, width: int) -> None:
        self._window = min(pool, height, width)
        self._held: Tensor | None = None  # rows in windows that reach further down
        self._largest: Tensor | None = None

    @property
    def rule(self) -> str:
        """As `MapReader.rule`."""
        return f"largest mean over {self._window} x {self._window} pixels"

    def add(self, rows: Tensor) -> None:
        """As `MapReader.add`."""
        # One way, then the other: a tenth of the work.
        across = F.avg_pool2d(rows[:, None], (1, self._window), stride=1)
        held = across if self._held is None else torch.cat([self._held, across], 2)
        if held.shape[2] >= self._window:
            found = F.avg_pool2d(held, (self._window, 1), stride=1).amax(dim=(1, 2, 3))
            self._largest = found if self._largest is None else torch.maximum(self._largest, found)
        self._held = held[:, :, max(0, held.shape[2] - self._window + 1) :]

    def scores(self) -> Tensor:
        """As `MapReader.scores`."""
        assert self._largest is not None, "rows are missing"
        return self._largest


class LargestPixels:
    """The mean of each map's so many largest pixels."""

    def __init__(self, pixels: int) -> None:
        self._pixels = pixels
        self._largest: Tensor | None = None

    @property
    def rule(self) -> str:
        """As `MapReader.rule`."""
        return f"mean of the {self._pixels} largest pixels"

    def add(self, rows: Tensor) -> None:
        """As `MapReader.add`."""
        flat = rows.flatten(1) if self._largest is None else torch.cat([self._largest, rows.flatten(1)], 1)
        self._largest = flat.topk(min(self._pixels, flat.shape[1]), dim=1).values

    def scores(self) -> Tensor:
        """As `MapReader.scores`."""
        assert self._largest is not None, "rows are missing"
        return self._largest.mean(1)


def _reflect(maps: Tensor, radius: int, dim: int) -> Tensor:
    """Mirror `radius` rows at both ends, the edge row included (d c b a | a b c d | d c b a)."""
    length = maps.shape[dim]
    if radius > length:
        raise ValueError(f"a blur of {math.ceil(radius)} pixels does not fit a map of {length}")
    head = maps.narrow(dim, 0, radius).flip(dim)
    tail = maps.narrow(dim, length - radius, radius).flip(dim)
    return torch.cat([head, maps, tail], dim)
