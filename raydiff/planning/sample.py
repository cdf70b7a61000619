"""A few examples that stand for many, and what `fit_statistics` would take of the many. No Ray here."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from raydiff.images.shards import ROWS_PER_PART
from raydiff.methods.base import Method


class Sample:
    """Some examples, repeated until they are as many as `images`; they take the place of a `training.store`.

    Args:
        images: of each category.
        seconds: a pass over them ends after so long, whatever is left.
    """

    def __init__(self, examples: Tensor, images: Sequence[int], seconds: float = 0.0) -> None:
        self._examples, self._images, self._seconds = examples, sum(images), seconds
        self.categories = [str(place) for place, count in enumerate(images) for _ in range(count)]
        self.passes: list[tuple[float, float]] = []  # seconds of each, and the share of the images that it came to
        self.passing = False

    def __len__(self) -> int:
        return self._images

    def take(self, indices: list[int]) -> Tensor:
        """The examples of these positions."""
        return self._examples[torch.tensor(indices) % len(self._examples)]

    def batches(self) -> Iterator[Tensor]:
        """All of them, or as many as time allows, as many at a time as a part holds."""
        self.passing = True
        began, done = time.monotonic(), 0
        while done < self._images and (not done or time.monotonic() - began < self._seconds):
            stop = min(done + ROWS_PER_PART, self._images)
            yield self.take(list(range(done, stop)))
            done = stop
        self.passes.append((time.monotonic() - began, done / self._images))
        self.passing = False


class _Enough(Exception):
    """Long enough looked at to tell the rest."""


def statistics_seconds(method: Method, examples: Tensor, images: Sequence[int], seconds: float) -> float:
    """How long the method's `fit_statistics` would take of so many images of each category, from a few examples.

    Each pass over the examples, and what comes after the last one, is cut off after `seconds` and extrapolated by the
    progress that the method reports; the latter is taken to grow with the examples that the last pass came to.
    """
    sample = Sample(examples, images, seconds)
    progress = 1.0
    began = time.monotonic()

    def since_last_pass() -> float:
        return time.monotonic() - began - sum(spent for spent, _ in sample.passes)

    def report(what: str, done: int, total: int) -> None:
        nonlocal progress
        if sample.passes and not sample.passing and done < total and since_last_pass() > seconds:
            progress = done / total
            raise _Enough

    with contextlib.suppress(_Enough), torch.no_grad():
        method.fit_statistics(sample, 0, report)
    after = since_last_pass()
    share = sample.passes[-1][1] if sample.passes else 1.0
    return sum(spent / reached for spent, reached in sample.passes) + after / progress / share
