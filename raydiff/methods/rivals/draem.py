"""DRAEM (Zavrtanik et al., ICCV 2021): a network reconstructs, another one tells the anomalies from both pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from raydiff.methods.anomalies import AnomalyMethod, AnomalyTrainSettings
from raydiff.methods.base import AnomalyMaps, GradientSettings
from raydiff.methods.rivals.base import RivalScore, anomalib, own_maps
from raydiff.nn.maps import LargestPixels, MapReader

LEARNED = {"learning_rate": 1e-4, "batch_size": 8, "weight_decay": 0.0, "decay_from": 0.8, "ema_decay": 0.0}


class DRAEMTrain(AnomalyTrainSettings, GradientSettings):
    """Train settings of DRAEM."""


class AnomalibDRAEM(AnomalyMethod):
    """anomalib's DRAEM, on anomalies that raydiff makes by the same recipe (Perlin masks, textures, opacity)."""

    name = "anomalib_draem"
    noise_cut, opacity = 0.5, (0.0, 0.8)
    as_published = True
    TrainSettings = DRAEMTrain
    ScoreSettings = RivalScore
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "demo": {**LEARNED, "image_size": 128, "texture_sources": ("procedural", "self"), "train_steps": 100},
        "small": {**LEARNED, "image_size": 128, "texture_sources": ("procedural", "self"), "train_steps": 1_000},
        "paper": {**LEARNED, "image_size": 256, "train_steps": 17_000},  # 700 epochs of one category of MVTec AD
    }

    def __init__(self, train: DRAEMTrain) -> None:
        super().__init__(train)
        self.network = anomalib("draem.torch_model", "DraemModel")()

    @property
    def trained(self) -> nn.Module:
        """Both networks."""
        network: nn.Module = self.network
        return network

    def forward(self, examples: Tensor, generator: torch.Generator) -> Tensor:
        """Reconstruction (L2 and SSIM) and focal loss."""
        images, masks = self.with_anomalies(examples.cpu(), generator)
        images, masks = images.to(self.device), masks.to(self.device)
        clean = examples[:, :3].to(self.device).float() / 255
        reconstruction, prediction = self.network(images)
        loss: Tensor = anomalib("draem.loss", "DraemLoss")()(clean, reconstruction, masks, prediction)
        return loss

    @torch.inference_mode()
    def maps(self, examples: Tensor, keys: Sequence[str], score: RivalScore) -> AnomalyMaps:
        """The model's own maps and image scores."""
        pixels = examples[:, :3].to(self.device).float() / 255
        return own_maps(self.network, pixels, examples[:, 3:], score.blur_sigma)

    def reader(self, score: RivalScore, height: int, width: int) -> MapReader:
        """The largest pixel; used where a map comes without the model's own score."""
        return LargestPixels(1)

    def image_score_rule(self, score: RivalScore) -> str:
        """The model's own."""
        return f"{self.name}'s own"
