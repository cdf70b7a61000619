"""Sets of made anomalies of one category, with the kinds in turn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from raydiff.errors import DataError
from raydiff.synthesis.fragments import FragmentSettings, Image, Mask
from raydiff.synthesis.kinds import KINDS, Kind

_DEFAULT = FragmentSettings()
PLACES = 20  # tried for an anomaly, where only a part of an image is looked at


class MadeAnomalies(NamedTuple):
    """Images (M, H, W, 3) uint8, masks (M, H, W) bool, and the kind of each anomaly (a name in KINDS)."""

    images: NDArray[np.uint8]
    masks: NDArray[np.bool_]
    kinds: list[str]


def make_set(
    images: NDArray[np.uint8],
    anomalies: int,
    seed: int,
    kinds: Sequence[str] = tuple(KINDS),
    settings: FragmentSettings = _DEFAULT,
    inside: NDArray[np.bool_] | None = None,
) -> MadeAnomalies:
    """Anomalies on a category's normal images, on one image after the other, all kinds in each round of kinds.

    Each sample has its own random stream, so it does not depend on how many others are made.

    Args:
        images: (N, H, W, 3) uint8 with N >= 2, normal images of ONE category; anomaly m lies on image m % N.
        anomalies: how many, M.
        seed: the same seed gives the same set.
        kinds: names in KINDS; the paper's alone is ("fragment",).
        settings: how large they are and how much they change.
        inside: (N, H, W) where each image is looked at; there the anomalies lie, and nothing else changes.

    Raises:
        DataError: if there is only one image, so that there is none to cut from, or none of the kinds shows anywhere
            on one of the images (a fragment is always made).
    """
    count = len(images)
    if count < 2:
        raise DataError(f"an anomaly is cut from one normal image and pasted on another: two are needed, not {count}")
    made = MadeAnomalies(
        np.empty((anomalies, *images.shape[1:]), np.uint8), np.empty((anomalies, *images.shape[1:3]), bool), []
    )
    for number in range(anomalies):
        turn, target = divmod(number, count)
        if number % len(kinds) == 0:  # in another order each round, so that no image has always the same
            order = np.random.default_rng([seed, number]).permutation(len(kinds))
        rng = np.random.default_rng([seed, target, turn])
        source = (target + int(rng.integers(1, count))) % count
        for place in np.roll(order, -(number % len(kinds))):  # the next, where one would not show
            kind = kinds[place]
            where = None if inside is None else inside[target]
            found = _made(KINDS[kind], images[target], images[source], rng, settings, where)
            if found:
                made.images[number], made.masks[number] = found
                made.kinds.append(kind)
                break
        else:
            raise DataError(f'none of {", ".join(kinds)} shows on image {target}; let "fragment" be among the kinds')
    return made


def _made(
    kind: Kind,
    target: Image,
    source: Image,
    rng: np.random.Generator,
    settings: FragmentSettings,
    inside: NDArray[np.bool_] | None,
) -> tuple[Image, Mask] | None:
    """One anomaly; of several places, where it must lie inside, the first that half of it does, or the one that most
    of it does.
    """
    if inside is None:
        return kind(target, source, rng, settings)
    best: tuple[float, Image, Mask] | None = None
    for _ in range(PLACES):
        found = kind(target, source, rng, settings)
        if found is None:
            break
        image, mask = found[0], found[1] & inside
        share = mask.sum() / found[1].sum()
        if share and (best is None or share > best[0]):
            best = share, np.where(inside[..., None], image, target), mask
        if share >= 0.5:
            break
    return best and best[1:]
