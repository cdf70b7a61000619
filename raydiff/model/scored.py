"""What scoring gives, in a module of its own: who only passes it on need not import torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from raydiff.views import ragged


class Scored(NamedTuple):
    """Scores and maps of N images."""

    scores: np.ndarray  # (N,) float64, higher = more anomalous
    # (N, H, W) float32 at the scale that the images are seen at; (N,) arrays (H, W) where they differ in size
    maps: np.ndarray
    details: dict[str, np.ndarray]  # (N,) float64 each: what else the method tells of an image
    guessed: list[str | None]  # (N,) categories that the method took images for that came without one that it knows

    def without_maps(self) -> Scored:
        """The same with maps of no pixels."""
        return self._replace(maps=np.empty((len(self.scores), 0, 0), np.float32))

    def rows(self, rows: slice) -> Scored:
        """Some of the images'."""
        told = {name: values[rows] for name, values in self.details.items()}
        return Scored(self.scores[rows], self.maps[rows], told, self.guessed[rows])

    def each(self) -> list[Scored]:
        """The images' one by one."""
        return [self.rows(slice(place, place + 1)) for place in range(len(self.scores))]


def concatenated(parts: Sequence[Scored]) -> Scored:
    """Several images', of one method, as one; at least one part."""
    if len(parts) == 1:
        return parts[0]
    told = {name: np.concatenate([part.details[name] for part in parts]) for name in parts[0].details}
    return Scored(
        np.concatenate([part.scores for part in parts]),
        ragged([found for part in parts for found in part.maps]),
        told,
        [name for part in parts for name in part.guessed],
    )
