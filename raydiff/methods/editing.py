"""LafitE's feature editing (Yao et al., arXiv 2307.08059): what is odd is replaced before it is reconstructed.

Each position's features become a weighted mean of its nearest normal patches. What reconstructs these cannot copy the
defect, whichever network it is; the paper edits for UniAD, too (its table 4).
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from raydiff.methods.features import FeatureMethod, FeatureScoreSettings, as_features


class EditingScoreSettings(FeatureScoreSettings):
    """Score settings of a method that can edit features; whether it does by itself, each method says."""

    feature_editing: bool
    neighbours: int = Field(1, ge=1)  # K
    neighbour_weights: Literal["uniform", "inverse_distance", "softmax"] = "inverse_distance"


class EditingMethod(FeatureMethod):
    """A method that reconstructs features, edited ones where it is asked to, and compares them with the unedited."""

    def edit(self, features: Tensor, shown: Tensor, score: EditingScoreSettings) -> Tensor:
        """Replace each position by a weighted mean of its K nearest normal patches of its category (equation 10).

        The paper's weights are not known; see `neighbour_weights`. Without `feature_editing` all stays as it is.
        """
        if not score.feature_editing:
            return features
        mixed = []
        for near in self.nearest(features, shown, score.neighbours):
            weights = edit_weights(near.distances, score.neighbour_weights)
            mixed.append((weights[..., None] * near.bank[near.indices]).sum(1))
        return as_features(torch.cat(mixed, 1), features)

    def distances(self, reconstructed: Tensor, features: Tensor) -> Tensor:
        """(N, g, g) distances of features (N, C, g, g): one backbone's, or the mean of several's."""
        return self.averaged([part.square().sum(1).sqrt() for part in (reconstructed - features).split(self.parts, 1)])


def edit_weights(distances: Tensor, kind: str) -> Tensor:
    """(q, k) ascending distances to (q, k) weights that sum to 1; an exact match takes all by inverse distance."""
    if kind == "uniform":
        return torch.full_like(distances, 1 / distances.shape[1])
    if kind == "softmax":
        return torch.softmax(-distances, dim=1)
    inverse = 1 / distances.clamp_min(1e-6)
    return inverse / inverse.sum(1, keepdim=True)
