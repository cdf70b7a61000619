"""How far each place of one image is from the nearest place of another, in the features of a backbone."""

from __future__ import annotations

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor


def nearest_token_distance(features: Tensor, others: Tensor, reach: int | None = None) -> Tensor:
    """(N, h, w) cosine distance, 0 to 2, of each position of `features` (N, C, h, w) to the nearest of `others`.

    With a `reach` it is the nearest of those at most so many positions away, up or down and to either side.
    """
    if reach is not None:
        return _near_token_distance(features, others, reach)
    tokens, candidates = (F.normalize(each.flatten(2), dim=1) for each in (features, others))
    nearest = (tokens.transpose(1, 2) @ candidates).amax(2)
    return (1 - nearest).clamp_min(0).unflatten(1, features.shape[-2:])


def _near_token_distance(features: Tensor, others: Tensor, reach: int) -> Tensor:
    tokens, candidates = (F.normalize(each, dim=1) for each in (features, others))
    height, width = tokens.shape[-2:]
    around = F.pad(candidates, (reach,) * 4, mode="replicate")  # the border's own positions, which are within reach
    nearest = torch.full_like(tokens[:, 0], -1)
    for down, right in itertools.product(range(2 * reach + 1), repeat=2):
        inside = around[..., down : down + height, right : right + width]
        nearest = torch.maximum(nearest, (tokens * inside).sum(1))
    return (1 - nearest).clamp_min(0)
