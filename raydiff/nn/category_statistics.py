"""What the features of each category's normal images are like: mean and deviation of channels, and of whole images.

A model of several products sees each in its own units: a channel in which screws hardly differ may differ much between
screws and cookies, and in common units a defect that shows in it would be nothing. Which product an image shows, its
mean features tell.
"""

from __future__ import annotations

import torch
from torch import Tensor


class CategorySums:
    """Sums over features (N, C, g, g) of K categories' images, taken in batch by batch."""

    def __init__(self, categories: int, channels: int) -> None:
        shape = categories, channels
        self._images = torch.zeros(categories, 1, dtype=torch.float64)
        self._patches = torch.zeros_like(self._images)
        # of values, their squares, and the squares of each image's means
        self._sums, self._squares, self._mean_squares = (torch.zeros(shape, dtype=torch.float64) for _ in range(3))

    def add(self, features: Tensor, shown: Tensor, inside: Tensor | None = None) -> None:
        """Take in a batch; `shown` (N,) says which category each image is of, `inside` (N, g, g) what of it counts."""
        values, shown = features.double().flatten(2).cpu(), shown.long().cpu()
        counted = (
            torch.ones_like(values[:, :1], dtype=torch.bool) if inside is None else inside.flatten(1)[:, None].cpu()
        )
        values, patches = torch.where(counted, values, 0), counted.double().sum(2)
        self._images += torch.bincount(shown, minlength=len(self._images))[:, None]
        self._patches.index_add_(0, shown, patches)
        self._sums.index_add_(0, shown, values.sum(2))
        self._squares.index_add_(0, shown, values.square().sum(2))
        self._mean_squares.index_add_(0, shown, (values.sum(2) / patches.clamp_min(1)).square())

    @property
    def images(self) -> list[int]:
        """How many of each category."""
        return [int(count) for count in self._images[:, 0]]

    @property
    def patches(self) -> list[int]:
        """How many of each category."""
        return [int(count) for count in self._patches[:, 0]]

    @property
    def mean(self) -> Tensor:
        """(K, C)"""
        return self._sums / self._patches

    @property
    def deviation(self) -> Tensor:
        """(K, C), of patches."""
        return (self._squares / self._patches - self.mean.square()).clamp_min(0).sqrt()

    @property
    def image_deviation(self) -> Tensor:
        """(C,): how far images' means lie from their category's, over all images."""
        within = self._mean_squares - self._images * self.mean.square()
        return (within.sum(0) / self._images.sum()).clamp_min(0).sqrt()


def likeliest(features: Tensor, mean: Tensor, deviation: Tensor, inside: Tensor | None = None) -> Tensor:
    """(N,) of the K categories, the one whose mean (K, C) an image's mean features are nearest to.

    Args:
        features: (N, C, g, g).
        deviation: (C,) of images' means around their category's; the distance is in these units.
        inside: (N, g, g) of bool, what of an image counts; None: all.
    """
    if inside is None:
        inside = torch.ones_like(features[:, 0], dtype=torch.bool)
    looks = torch.where(inside[:, None], features, 0).sum((2, 3)) / inside.sum((1, 2)).clamp_min(1)[:, None]
    return ((looks[:, None] - mean) / deviation).square().sum(2).argmin(1)
