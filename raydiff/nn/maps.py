"""From errors on a grid to an anomaly map and an image score."""

from __future__ import annotations

import math

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


def image_score(maps: Tensor, pool: int) -> Tensor:
    """(N, H, W) maps to (N,) scores: the largest mean over any pool x pool window (stride 1)."""
    window = min(pool, *maps.shape[-2:])
    rows = F.avg_pool2d(maps[:, None], (1, window), stride=1)  # one way, then the other: a tenth of the work
    return F.avg_pool2d(rows, (window, 1), stride=1).amax(dim=(1, 2, 3))


def top_mean(maps: Tensor, pixels: int) -> Tensor:
    """(N, H, W) maps to (N,) scores: the mean of each map's so many largest pixels."""
    flat = maps.flatten(1)
    return flat.topk(min(pixels, flat.shape[1]), dim=1).values.mean(1)


def _reflect(maps: Tensor, radius: int, dim: int) -> Tensor:
    """Mirror `radius` rows at both ends, the edge row included (d c b a | a b c d | d c b a)."""
    length = maps.shape[dim]
    if radius > length:
        raise ValueError(f"a blur of {math.ceil(radius)} pixels does not fit a map of {length}")
    head = maps.narrow(dim, 0, radius).flip(dim)
    tail = maps.narrow(dim, length - radius, radius).flip(dim)
    return torch.cat([head, maps, tail], dim)
