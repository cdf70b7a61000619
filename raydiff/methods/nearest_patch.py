"""nearest_patch: the reference without diffusion.

PatchCore's idea (Roth et al., CVPR 2022): a patch is as anomalous as it is far from its nearest neighbours among the
normal patches. Same features and same memory bank as LafitE, so every table shows what diffusion adds or does not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from raydiff.methods.base import AnomalyMaps
from raydiff.methods.features import (
    FEATURES_DEMO,
    FEATURES_PAPER,
    FEATURES_SMALL,
    FeatureMethod,
    FeatureScoreSettings,
    FeatureTrainSettings,
    as_vectors,
)
from raydiff.nn.maps import anomaly_map
from raydiff.nn.memory_bank import nearest_neighbours


class NearestPatchScore(FeatureScoreSettings):
    """Score settings of nearest_patch."""

    neighbours: int = Field(1, ge=1)  # the mean distance to this many nearest vectors


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
        features = self.standardised(examples)
        k = min(score.neighbours, len(self.memory_bank))
        distances, _ = nearest_neighbours(as_vectors(features), self.memory_bank, k)
        errors = distances.mean(1).unflatten(0, (len(features), *features.shape[-2:]))
        return AnomalyMaps(anomaly_map(errors, self.settings.image_size, score.blur_sigma))
