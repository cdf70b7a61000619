"""How far each place of one image is from the nearest place of another, in the features of a backbone."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def nearest_token_distance(features: Tensor, others: Tensor) -> Tensor:
    """(N, h, w) cosine distance, 0 to 2, of each position of `features` (N, C, h, w) to the nearest of `others`."""
    tokens, candidates = (F.normalize(each.flatten(2), dim=1) for each in (features, others))
    nearest = (tokens.transpose(1, 2) @ candidates).amax(2)
    return (1 - nearest).clamp_min(0).unflatten(1, features.shape[-2:])
