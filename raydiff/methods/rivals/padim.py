"""PaDiM (Defard et al., ICPR 2021): at each position, the Mahalanobis distance to a Gaussian of normal features."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import Field

from raydiff.methods.base import Examples, Report, quiet
from raydiff.methods.rivals.base import Rival, RivalTrain, anomalib, drawn_by
from raydiff.nn.backbones import Backbone

SEED = 0  # which channels are drawn has to be the same in each process that builds the model


class PaDiMTrain(RivalTrain):
    """Train settings of PaDiM."""

    channels: int = Field(100, ge=1)  # drawn from all of the backbone's; a covariance of so many each position


class AnomalibPaDiM(Rival):
    """anomalib's PaDiM. The features of all images lie in memory until the Gaussians are fitted."""

    name = "anomalib_padim"
    TrainSettings = PaDiMTrain
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "demo": {"image_size": 160, "backbone": {"name": "tf_efficientnet_lite0", "stages": (1, 2, 3)}, "channels": 40},
        "small": {"backbone": {"name": "tf_efficientnet_lite0", "stages": (1, 2, 3)}},
        "paper": {"backbone": {"name": "wide_resnet50_2", "stages": (1, 2, 3)}, "channels": 550},
    }

    def built(self, backbone: Backbone) -> Any:
        """As `Rival.built`."""
        given = self.settings
        with drawn_by(SEED):
            model = anomalib("padim.torch_model", "PadimModel")(
                backbone=given.backbone.name,
                layers=list(given.backbone.stages),
                pre_trained=False,
                n_features=min(given.channels, backbone.channels),
            )
        model.feature_extractor.feature_extractor = backbone.net
        return model

    def fit_statistics(self, examples: Examples, seed: int, report: Report = quiet) -> None:
        """Collect all features, and fit a Gaussian each position."""
        self.collect(examples, report)
        self.network.fit()
