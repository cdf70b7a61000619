"""PatchCore (Roth et al., CVPR 2022): the distance to the nearest of a greedy coreset of all normal patches."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import Field

from raydiff.methods.base import Examples, Report, quiet
from raydiff.methods.rivals.base import Rival, RivalTrain, anomalib, drawn_by, its_own_warnings_unheard
from raydiff.nn.backbones import Backbone


class PatchCoreTrain(RivalTrain):
    """Train settings of PatchCore."""

    coreset_ratio: float = Field(0.1, gt=0, le=1)  # share of all patches that is kept
    neighbours: int = Field(9, ge=1)  # bank vectors that weigh the image's score


class AnomalibPatchCore(Rival):
    """anomalib's PatchCore. All patches lie in memory until the coreset is chosen from them."""

    name = "anomalib_patchcore"
    TrainSettings = PatchCoreTrain
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "demo": {"image_size": 160, "backbone": {"name": "tf_efficientnet_lite0"}, "coreset_ratio": 0.02},
        "small": {"backbone": {"name": "tf_efficientnet_lite0"}, "coreset_ratio": 0.02},
        "paper": {"image_size": 224, "backbone": {"name": "wide_resnet50_2"}},
    }

    def built(self, backbone: Backbone) -> Any:
        """As `Rival.built`."""
        given = self.settings
        model = anomalib("patchcore.torch_model", "PatchcoreModel")(
            layers=given.backbone.stages,
            backbone=given.backbone.name,
            pre_trained=False,
            num_neighbors=given.neighbours,
        )
        model.feature_extractor.feature_extractor = backbone.net
        return model

    def fit_statistics(self, examples: Examples, seed: int, report: Report = quiet) -> None:
        """Collect all patches, and choose the coreset."""
        self.collect(examples, report)
        with drawn_by(seed), its_own_warnings_unheard():
            self.network.subsample_embedding(self.settings.coreset_ratio)
