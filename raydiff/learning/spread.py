"""Choosing few of many so that they are worth it and unlike each other: greedy, the farthest first, by weight."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Looks(NamedTuple):
    """What N images look like where they are most anomalous."""

    categories: list[str]  # (N,) distances are taken within one alone
    vectors: NDArray[np.float32]  # (N, D)


class Choice(NamedTuple):
    """One that was chosen."""

    place: int  # among those that were offered
    novelty: float  # as of `spread`, when it was chosen
    # place of the nearest of its category, of those known or chosen before: in the offered ones and then, counted on,
    # the known ones; None: there was none
    like: int | None


def mean_square(vectors: NDArray[np.float32]) -> float:
    """The mean of the squared distances between all pairs of vectors (N, D), a vector and itself included.

    Not their median: where most images show one stain, that would be how far two pictures of it lie apart.
    """
    return float(2 * vectors.astype(np.float64).var(0).sum()) if len(vectors) else 0.0


def spread(values: NDArray[np.float64], offered: Looks, known: Looks, count: int) -> list[Choice]:
    """Choose up to `count` of N offered images one by one, each with the largest value times novelty of those left.

    An image's novelty is its squared distance to the nearest one of its category that is known or was chosen before,
    through the mean square of its category (see `mean_square`), and 1 at most: what is as unlike the others as two
    commonly are is new, and no outlier counts more. It is 1 where there is no such image. Of equal ones the first is
    chosen. Squared as k-means++ has it: two pictures of one stain may lie half as far apart as any two.

    Args:
        values: (N,) above 0; each image's worth.
        known: M images that the chosen ones shall be unlike, too.
    """
    everything = Looks(offered.categories + known.categories, np.concatenate([offered.vectors, known.vectors]))
    names = np.array(everything.categories, object)
    scales = {name: mean_square(everything.vectors[names == name]) for name in set(offered.categories)}
    scale = np.array([scales[name] for name in offered.categories])
    novelty = np.ones(len(values))
    like = np.full(len(values), -1)

    def met(place: int) -> None:
        """Take in that one of all was chosen or is known."""
        mine = np.flatnonzero(names[: len(values)] == names[place])
        distance = np.square(offered.vectors[mine] - everything.vectors[place]).sum(1)
        found = np.minimum(distance / np.where(scale[mine] > 0, scale[mine], 1), 1)
        nearer = (found < novelty[mine]) | (like[mine] < 0)
        novelty[mine[nearer]], like[mine[nearer]] = found[nearer], place

    for place in range(len(values), len(everything.categories)):
        met(place)
    left = np.ones(len(values), bool)
    choices = []
    for _ in range(min(count, len(values))):
        place = int(np.argmax(np.where(left, values * novelty, -1)))
        left[place] = False
        choices.append(Choice(place, float(novelty[place]), int(like[place]) if like[place] >= 0 else None))
        met(place)
    return choices
