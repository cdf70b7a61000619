"""What scoring gives, in a module of its own: who only passes it on need not import torch."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Scored(NamedTuple):
    """Scores and maps of N images."""

    scores: np.ndarray  # (N,) float64, higher = more anomalous
    maps: np.ndarray  # (N, S, S) float32, at the model's image size
    details: dict[str, np.ndarray]  # (N,) float64 each: what else the method tells of an image
    guessed: list[str | None]  # (N,) categories that the method took images for that came without one that it knows

    def without_maps(self) -> Scored:
        """The same with maps of no pixels."""
        return self._replace(maps=np.empty((len(self.scores), 0, 0), np.float32))

    def each(self) -> list[Scored]:
        """The images' one by one."""
        return [
            Scored(
                self.scores[place : place + 1],
                self.maps[place : place + 1],
                {name: values[place : place + 1] for name, values in self.details.items()},
                self.guessed[place : place + 1],
            )
            for place in range(len(self.scores))
        ]
