"""nearest_patch: the reference without diffusion.

PatchCore's idea (Roth et al., CVPR 2022): a patch is as anomalous as it is far from its nearest neighbours among the
normal patches. Same features and same memory bank as LafitE, so every table shows what diffusion adds or does not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from raydiff.errors import SettingsError
from raydiff.methods.base import AnomalyMaps, Method
from raydiff.methods.features import (
    FEATURES_DEMO,
    FEATURES_PAPER,
    FEATURES_SMALL,
    FeatureMethod,
    FeatureScoreSettings,
    FeatureTrainSettings,
)
from raydiff.nn.memory_bank import nearest_neighbours

_BANK = ("memory_bank", "bank_categories")  # the buffers that a bank which has grown differs in


class NearestPatchScore(FeatureScoreSettings):
    """Score settings of nearest_patch."""

    neighbours: int = Field(1, ge=1)  # the mean distance to this many nearest vectors
    # "window": as all feature methods; "patch": the farthest patch's distance, weighted by its `support` (PatchCore's)
    image_score: Literal["window", "patch"] = "window"
    support: int = Field(9, ge=1)  # bank vectors around a patch's nearest one that weigh its distance; 1 = no weight


class NearestPatch(FeatureMethod):
    """Distance to the nearest normal patches."""

    name = "nearest_patch"
    TrainSettings = FeatureTrainSettings
    ScoreSettings = NearestPatchScore
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "demo": FEATURES_DEMO,
        "small": FEATURES_SMALL,
        "paper": FEATURES_PAPER,
    }

    @torch.inference_mode()
    def maps(self, examples: Tensor, keys: Sequence[str], score: NearestPatchScore) -> AnomalyMaps:
        """Distances at each patch, brought to the image's size."""
        shown = self.shown(examples)
        features = self.standardised(examples, shown)
        found = self.nearest(features, shown, score.neighbours)
        grid = len(features), *features.shape[-2:]
        errors = self.averaged([each.distances.mean(1) for each in found]).unflatten(0, grid)
        maps = self.error_map(errors, examples, score.blur_sigma)
        if score.image_score == "window":
            return AnomalyMaps(maps)
        if len(found) > 1:
            raise SettingsError("image_score `patch` is PatchCore's, for one backbone; with several leave it `window`")
        largest, farthest = torch.where(self.inside(examples), errors, 0).flatten(1).max(1)
        patches = torch.arange(len(features), device=farthest.device) * errors[0].numel() + farthest
        (near,) = found
        weights, own = [], self.bank_rows()
        for patch, place in zip(patches, shown.tolist(), strict=True):
            nearest = near.indices[patch] - own[place].start
            bank = near.bank[own[place]]
            weights.append(support_weights(near.vectors[patch][None], bank, nearest[:1], score.support))
        return AnomalyMaps(maps, scores=torch.cat(weights) * largest)

    def falls_from(self, before: Method, score: NearestPatchScore) -> bool:
        """Where each category's part of the bank goes on from what it was, and all else is the same.

        Each patch is then as far as before from its nearest vectors, or less far; maps are sums of such distances with
        weights that are not negative, and so are windows of them. Of PatchCore's own score nothing is said: the weight
        of a patch may rise where the bank grows.
        """
        if not isinstance(before, NearestPatch) or score.image_score != "window":
            return False
        mine, theirs = self.state_dict(), before.state_dict()
        if mine.keys() != theirs.keys() or not all(
            name in _BANK or torch.equal(value, theirs[name]) for name, value in mine.items()
        ):
            return False
        parts = list(zip(self.bank_rows(), before.bank_rows(), strict=True))
        asked = [min(score.neighbours, *(rows.stop - rows.start for rows in own)) for own in zip(*parts, strict=True)]
        return asked[0] == asked[1] and all(
            torch.equal(self.memory_bank[own][: old.stop - old.start], before.memory_bank[old]) for own, old in parts
        )

    def image_score_rule(self, score: NearestPatchScore) -> str:
        """As of all feature methods, or PatchCore's."""
        if score.image_score == "window":
            return super().image_score_rule(score)
        return f"distance of the farthest patch, weighted by {score.support} bank vectors"


def support_weights(patches: Tensor, bank: Tensor, nearest: Tensor, support: int) -> Tensor:
    """(q,) weights of patches (q, d): small where their nearest bank vector, (q,) indices, lies among many.

    1 - softmax of the distances to the `support` bank vectors nearest to that vector, taken at the vector itself
    (PatchCore, equation 7; with distances in the features' own units, as in its authors' code). 1 where support is 1.
    """
    count = min(support, len(bank))
    if count == 1:
        return torch.ones_like(patches[:, 0])
    _, around = nearest_neighbours(bank[nearest], bank, count)
    distances = (patches[:, None] - bank[around]).square().sum(2).sqrt()
    return 1 - torch.softmax(distances, 1)[:, 0]
