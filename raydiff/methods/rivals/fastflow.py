"""FastFlow (Yu et al., arXiv 2111.07677): the likelihood of frozen features under a normalising flow."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from raydiff.methods.base import GradientSettings
from raydiff.methods.rivals.base import LearnedRival, RivalTrain, anomalib, drawn_by
from raydiff.nn.backbones import Backbone

SEED = 0  # the flow's permutations have to be the same in each process that builds the model
STAGES = (1, 2, 3)  # anomalib's own of these networks
LEARNED = {"learning_rate": 0.001, "batch_size": 32, "weight_decay": 1e-5, "decay_from": 1.0, "ema_decay": 0.0}


class FastFlowTrain(RivalTrain, GradientSettings):
    """Train settings of FastFlow."""

    flow_steps: int = Field(8, ge=1)


class AnomalibFastFlow(LearnedRival):
    """anomalib's FastFlow, on resnet18 or wide_resnet50_2, which it trains with Adam."""

    name = "anomalib_fastflow"
    TrainSettings = FastFlowTrain
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "demo": {**LEARNED, "image_size": 160, "backbone": {"name": "resnet18", "stages": STAGES}, "train_steps": 200},
        "small": {**LEARNED, "backbone": {"name": "resnet18", "stages": STAGES}, "train_steps": 2_000},
        "paper": {
            **LEARNED,
            "image_size": 256,
            "backbone": {"name": "wide_resnet50_2", "stages": STAGES},
            "train_steps": 4_000,  # 500 epochs of one category of MVTec AD
        },
    }

    def built(self, backbone: Backbone) -> Any:
        """As `Rival.built`."""
        given = self.settings
        with drawn_by(SEED):
            model = anomalib("fastflow.torch_model", "FastflowModel")(
                input_size=(given.image_size, given.image_size),
                backbone=given.backbone.name,
                pre_trained=False,
                flow_steps=given.flow_steps,
            )
        model.feature_extractor = backbone.net
        return model

    def forward(self, examples: Tensor, generator: torch.Generator) -> Tensor:
        """The negative log-likelihood."""
        loss: Tensor = anomalib("fastflow.loss", "FastflowLoss")()(*self.network(self.pixels(examples)))
        return loss
