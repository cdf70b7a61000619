"""The one scoring path: evaluation, tuning, Serve, bulk scoring and `Model.score` all end here.

Images are computed in chunks of a fixed size, the last one filled up, so that every kernel sees the same shapes and an
image's score does not depend on how many others came with it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from raydiff.methods.base import Method, Rows, ScoreSettings
from raydiff.model.scored import Scored
from raydiff.nn.batches import filled
from raydiff.nn.positions import PositionStatistics

# Large enough to keep the device busy, small enough that a single image does not wait for much filling.
CHUNK = {"cpu": 8, "cuda": 32}


def score_images(
    method: Method,
    images: np.ndarray,
    score: ScoreSettings,
    positions: PositionStatistics | None = None,
    categories: Sequence[str | None] | None = None,
) -> Scored:
    """Score uint8 (N, S, S, 3) images at the method's own image size; the rest as of `score_examples`."""
    size = method.settings.image_size
    if images.dtype != np.uint8 or images.shape[1:] != (size, size, 3):
        raise ValueError(f"uint8 (N, {size}, {size}, 3) images expected, {images.dtype} {images.shape} given")
    keys = [image_key(image) for image in images]
    return score_examples(method, examples_of(method, images), keys, score, positions, categories)


def examples_of(method: Method, images: np.ndarray, rows: Rows | None = None) -> Tensor:
    """The method's examples of uint8 (N, S, S, 3) images, on the CPU; to be trained on, if `rows` are given."""
    chunk = CHUNK[method.device.type]
    parts = []
    for start in range(0, len(images), chunk):
        batch = torch.from_numpy(images[start : start + chunk].copy())
        theirs = None if rows is None else [*rows[start : start + chunk], *[rows[start]] * (chunk - len(batch))]
        parts.append(method.example(filled(batch, chunk), theirs)[: len(batch)].cpu())
    return torch.cat(parts)


def score_examples(
    method: Method,
    examples: Tensor,
    keys: Sequence[str],
    score: ScoreSettings,
    positions: PositionStatistics | None = None,
    categories: Sequence[str | None] | None = None,
) -> Scored:
    """Score examples whose images have the given keys (see `image_key`).

    Args:
        positions: what normal maps hold at each position; without them the maps are the method's own.
        categories: of each image, where they are known; others the method guesses, if it can. None guesses nothing.
    """
    chunk = CHUNK[method.device.type]
    scores, maps = [], []
    guessed: list[str | None] = []
    details: dict[str, list[Tensor]] = {}
    for start in range(0, len(examples), chunk):
        batch = examples[start : start + chunk]
        whole = filled(batch, chunk)
        names = [*keys[start : start + chunk], *[""] * (chunk - len(batch))]
        found = method.maps(whole, names, score)
        shown: list[str | None] = [None] * len(batch)
        if categories is not None:
            shown = list(categories[start : start + chunk])
            guesses = _guesses(method, whole, shown)
            shown = [guess or name for guess, name in zip(guesses, shown, strict=True)]
            guessed += guesses
        standing = found.maps
        if positions is not None:
            standing = positions.standardised(standing, [*shown, *[None] * (chunk - len(batch))])
        of_images = method.scores(standing, score) if found.scores is None else found.scores
        scores.append(of_images[: len(batch)].double().cpu())
        maps.append(standing[: len(batch)].cpu())
        for name, values in found.details.items():
            details.setdefault(name, []).append(values[: len(batch)].double().cpu())
    told = {name: torch.cat(values).numpy() for name, values in details.items()}
    return Scored(torch.cat(scores).numpy(), torch.cat(maps).float().numpy(), told, guessed or [None] * len(examples))


def _guesses(method: Method, examples: Tensor, given: Sequence[str | None]) -> list[str | None]:
    """What the method takes those images for that were given no category that it knows; None for the others."""
    known = method.categories
    if not known or all(name in known for name in given):
        return [None] * len(given)
    likely = method.likely_categories(examples)
    return [None if name in known else likely[place] for place, name in enumerate(given)]


def image_key(image: np.ndarray) -> str:
    """An image's own key: the hash of its pixels at the model's size. Its noise is drawn from this."""
    return hashlib.sha256(np.ascontiguousarray(image).tobytes()).hexdigest()
