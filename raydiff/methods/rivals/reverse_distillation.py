"""Reverse distillation (Deng and Li, CVPR 2022): a decoder learns to bring back a frozen network's features."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from raydiff.methods.base import GradientSettings
from raydiff.methods.rivals.base import LearnedRival, RivalTrain, anomalib
from raydiff.nn.backbones import Backbone

STAGES = (1, 2, 3)
LEARNED = {"learning_rate": 0.005, "batch_size": 16, "weight_decay": 0.0, "decay_from": 1.0, "ema_decay": 0.0}


class ReverseDistillationTrain(RivalTrain, GradientSettings):
    """Train settings of reverse distillation; its decoders are made for ResNets."""


class AnomalibReverseDistillation(LearnedRival):
    """anomalib's reverse distillation, which it trains with Adam (.5, .99)."""

    name = "anomalib_reverse_distillation"
    TrainSettings = ReverseDistillationTrain
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "demo": {
            **LEARNED,
            "image_size": 160,
            "backbone": {"name": "resnet18", "stages": STAGES},
            "train_steps": 200,
        },
        "small": {**LEARNED, "backbone": {"name": "resnet18", "stages": STAGES}, "train_steps": 2_000},
        "paper": {
            **LEARNED,
            "image_size": 256,
            "backbone": {"name": "wide_resnet50_2", "stages": STAGES},
            "train_steps": 3_000,  # 200 epochs of one category of MVTec AD
        },
    }

    def built(self, backbone: Backbone) -> Any:
        """As `Rival.built`."""
        given = self.settings
        mode = anomalib("reverse_distillation.anomaly_map", "AnomalyMapGenerationMode").ADD
        model = anomalib("reverse_distillation.torch_model", "ReverseDistillationModel")(
            backbone=given.backbone.name,
            input_size=(given.image_size, given.image_size),
            layers=given.backbone.stages,
            anomaly_map_mode=mode,
            pre_trained=False,
        )
        model.encoder.feature_extractor = backbone.net
        return model

    def forward(self, examples: Tensor, generator: torch.Generator) -> Tensor:
        """One less the cosine of both networks' features, summed over stages."""
        loss: Tensor = anomalib("reverse_distillation.loss", "ReverseDistillationLoss")()(
            *self.network(self.pixels(examples))
        )
        return loss
