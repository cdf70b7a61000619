"""DiffusionAD: norm-guided one-step denoising with a segmentation network (Zhang et al., arXiv 2303.08730).

A U-Net learns to denoise normal images. An image is corrupted a little and a lot; from the second, where an anomaly has
drowned, comes a normal image that guides the one-step reconstruction from the first. A second network, trained on made
anomalies, sees where image and reconstruction differ in a way that matters.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from raydiff.methods.anomalies import AnomalyMethod, AnomalyTrainSettings, looked_at
from raydiff.methods.base import AnomalyMaps, GradientSettings, ScoreSettings
from raydiff.nn import backbones
from raydiff.nn.backbones import Backbone, BackboneSettings
from raydiff.nn.diffusion import Diffusion, keyed_noise, spaced_timesteps
from raydiff.nn.maps import LargestPixels, MapReader, gaussian_blur
from raydiff.nn.segmentation import FeatureSegmentation, SegmentationUNet
from raydiff.nn.unet import UNet, UNetSettings
from raydiff.vision_libraries import torchvision

BETWEEN = 300  # training corrupts a little below this step and a lot from it on
FOCAL_WEIGHT, FOCAL_GAMMA = 5.0, 4.0


class DiffusionADTrain(AnomalyTrainSettings, GradientSettings):
    """Train settings of DiffusionAD."""

    image_size: int = Field(256, ge=32)
    unet: UNetSettings = UNetSettings(
        base_channels=128,
        multipliers=(1, 1, 2, 2, 4, 4),
        blocks_per_level=2,
        attention_levels=(3, 4, 5),
        resample="resnet",
    )
    segmentation_channels: int = Field(64, ge=4)  # of the segmentation network's first level; all along, on features
    segmentation_learning_rate: float = Field(gt=0)
    # The rest is not the paper's and off unless said.
    # the segmentation network reads a frozen network's features of image and reconstruction; None: their pixels
    backbone: BackboneSettings | None = None
    reconstruction_size: int | None = Field(None, ge=16)  # images are reconstructed at this size; None: at image_size


class DiffusionADScore(ScoreSettings):
    """Score settings of DiffusionAD. The paper's are 200, 400, 1 and 50."""

    small_step: int = Field(200, ge=1, lt=1000)  # ts, the corruption that keeps the image
    large_step: int = Field(400, ge=1, lt=1000)  # tb, the corruption that drowns an anomaly
    guidance_weight: float = Field(1.0, ge=0)  # w; 0 leaves the one-step reconstruction from ts alone
    denoising_steps: int = Field(1, ge=1)  # from each of the two to 0; 1 is the paper's, more is the iterative form
    noise_draws: int = Field(1, ge=1)  # maps of several draws of noise are averaged
    top_pixels: int = Field(50, ge=1)  # image score = mean of this many largest pixels
    blur_sigma: float = Field(0.0, ge=0)  # Gaussian blur of the anomaly map, pixels at image_size; the paper has none

    @model_validator(mode="after")
    def _steps_fit(self) -> DiffusionADScore:
        if not self.denoising_steps <= self.small_step < self.large_step:
            raise ValueError(
                f"denoising_steps ({self.denoising_steps}) may be at most small_step ({self.small_step}), and that "
                f"must be below large_step ({self.large_step})"
            )
        return self


# What learns in minutes on two cores, where two networks that begin with nothing do not: pretrained features, and a
# reconstruction of so few pixels that it costs no more than they do. What came out is in docs/accuracy.md.
_QUICK: Mapping[str, Any] = {
    "texture_sources": ("procedural", "self"),
    "anomaly_parts": 3,
    "image_size": 128,
    "reconstruction_size": 32,
    "unet": {"base_channels": 16, "multipliers": (1, 2, 4), "attention_levels": ()},
    "backbone": {"name": "tf_efficientnet_lite0", "stages": (1, 2, 3), "grid": 16, "neighbourhood": 1},
    "segmentation_channels": 64,
    "learning_rate": 3e-3,
    "segmentation_learning_rate": 3e-3,
    "warmup_steps": 50,
    "ema_decay": 0.99,
    "precision": "float32",  # so narrow a network is slower in bfloat16
}
DEMO: Mapping[str, Any] = {**_QUICK, "train_steps": 300, "batch_size": 4}
SMALL: Mapping[str, Any] = {**_QUICK, "train_steps": 500, "batch_size": 8}

# The paper's recipe, one model a category: 3000 epochs at batch 16 of MVTec AD's 242 normal images in the mean, Adam
# without decay, the last weights. Users of the original report that 24 GB hold a batch of 3. The original's learning
# rate of the segmentation network swings between 1e-5 and 0 every 20 steps (a cosine over epochs that is stepped per
# batch); here it is the mean of that. Textures: give DTD's folder.
PAPER: Mapping[str, Any] = {
    "train_steps": 45_000,
    "batch_size": 16,
    "learning_rate": 1e-4,
    "segmentation_learning_rate": 5e-6,
    "weight_decay": 0.0,
    "decay_from": 1.0,
    "ema_decay": 0.0,
}


class DiffusionAD(AnomalyMethod):
    """Norm-guided one-step reconstruction, and a segmentation network on image and reconstruction.

    Images are scaled to [0, 1] and clean estimates clamped to [-1, 1], as in the original code; the steps of the paper
    hold for that scale. The preset `paper` is meant for one category and costs about 16 hours on an A100 (a user's
    report of the original; not run here).
    """

    name = "diffusion_ad"
    noise_cut, opacity = 0.5, (0.2, 0.8)
    TrainSettings = DiffusionADTrain
    ScoreSettings = DiffusionADScore
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"demo": DEMO, "small": SMALL, "paper": PAPER}

    def __init__(self, train: DiffusionADTrain, load_weights: bool = True) -> None:
        super().__init__(train)
        self.unet = UNet(3, train.unet)
        self.backbone = Backbone(train.backbone, load_weights) if train.backbone else None
        self.segmentation = (
            FeatureSegmentation(self.backbone.channels, train.segmentation_channels)
            if self.backbone
            else SegmentationUNet(6, train.segmentation_channels)
        )
        self.diffusion = Diffusion("linear", "epsilon")

    @classmethod
    def untrained(cls, train: DiffusionADTrain) -> DiffusionAD:
        """The method with its backbone's weights left out."""
        return cls(train, load_weights=False)

    @classmethod
    def check(cls, train: DiffusionADTrain) -> None:
        """Also the backbone's weights, if it has one."""
        super().check(train)
        if train.backbone:
            backbones.check(train.backbone)

    def about(self) -> dict[str, Any]:
        """Also the backbone's licence, if it has one."""
        return super().about() | ({"backbone_licence": self.backbone.licence} if self.backbone else {})

    @property
    def trained(self) -> nn.Module:
        """Both networks."""
        return nn.ModuleDict({"unet": self.unet, "segmentation": self.segmentation})

    def parameter_groups(self) -> list[dict[str, Any]]:
        """The two networks learn at rates of their own."""
        return [
            {"params": list(self.unet.parameters()), "lr": self.settings.learning_rate},
            {"params": list(self.segmentation.parameters()), "lr": self.settings.segmentation_learning_rate},
        ]

    def forward(self, examples: Tensor, generator: torch.Generator) -> Tensor:
        """The sum of noise, focal and smooth L1 loss of a batch, half of it with made anomalies."""
        images, masks = self.with_anomalies(examples.cpu(), generator)
        images, masks = images.to(self.device), masks.to(self.device)
        count = len(images)
        small = torch.randint(BETWEEN, (count,), generator=generator)
        large = torch.randint(BETWEEN, self.diffusion.steps, (count,), generator=generator)
        t = torch.cat([small, large]).to(self.device)
        shrunk = self._resized(images, self.settings.reconstruction_size)
        noise = torch.randn(2 * count, *shrunk.shape[1:], generator=generator).to(self.device)
        corrupted = self.diffusion.add_noise(shrunk.repeat(2, 1, 1, 1), noise, t)
        predicted = self._predict(corrupted, t).float()
        errors = (predicted - noise).square().flatten(1).mean(1).view(2, count).sum(0)
        noise_loss = mean_over_normals(errors, masks)

        clean, _ = self.diffusion.estimates(predicted, corrupted, t)
        guided = self.norm_guided(clean[:count], clean[count:], t[:count], 1.0)
        logits = self._segment(images, guided).float()
        focal = torchvision.ops.sigmoid_focal_loss(logits, masks, alpha=0.5, gamma=FOCAL_GAMMA, reduction="mean")
        return noise_loss + FOCAL_WEIGHT * focal + F.smooth_l1_loss(logits.sigmoid(), masks)

    def norm_guided(self, small: Tensor, large: Tensor, small_step: Tensor, weight: float) -> Tensor:
        """The reconstruction from ts guided by the one from tb, both of them clean estimates.

        In the paper the guiding estimate is corrupted to ts again and the difference to x_ts moves the noise estimate;
        written out that is x0_s + w (1 - alpha_bar_ts) (x0_b - x0_s).
        """
        share = weight * (1 - self.diffusion.alpha_bar[small_step]).view(-1, 1, 1, 1)
        return (small + share * (large.clamp(-1, 1) - small)).clamp(-1, 1)

    @torch.inference_mode()
    def maps(self, examples: Tensor, keys: Sequence[str], score: DiffusionADScore) -> AnomalyMaps:
        """The segmentation network's probability, averaged over draws of noise."""
        images = examples[:, :3].to(self.device).float() / 255
        draws = [
            self._segment(images, self.reconstruct(images, keys, score, draw)).float().sigmoid()
            for draw in range(score.noise_draws)
        ]
        found = torch.stack(draws).mean(0) * looked_at(examples).to(self.device)
        return AnomalyMaps(gaussian_blur(found, score.blur_sigma)[:, 0])

    @property
    def reconstructs(self) -> bool:
        """Always."""
        return True

    @torch.inference_mode()
    def reconstructions(self, examples: Tensor, keys: Sequence[str], score: DiffusionADScore) -> Tensor:
        """The first draw's, which the segmentation network compares the images with."""
        images = examples[:, :3].to(self.device).float() / 255
        return self._resized(self.reconstruct(images, keys, score), self.settings.image_size).clamp(0, 1)

    def reader(self, score: DiffusionADScore, height: int, width: int) -> MapReader:
        """Image scores are the mean of the map's largest pixels."""
        return LargestPixels(score.top_pixels)

    def reconstruct(self, images: Tensor, keys: Sequence[str], score: DiffusionADScore, draw: int = 0) -> Tensor:
        """The norm-guided reconstruction (N, 3, R, R) of images in [0, 1]; the draw is the noise's number."""
        shrunk = self._resized(images, self.settings.reconstruction_size)
        clean = []
        for step in (score.small_step, score.large_step):
            names = [f"{key}:{draw}:{step}" for key in keys]
            noise = keyed_noise(names, shrunk.shape[1:], score.noise_seed, shrunk.device)
            t = torch.full((len(images),), step, device=images.device)
            corrupted = self.diffusion.add_noise(shrunk, noise, t)
            timesteps = spaced_timesteps(step, score.denoising_steps)
            clean.append(self.diffusion.denoise(corrupted, timesteps, self._predict))
        small, large = clean
        return self.norm_guided(small, large, torch.full_like(t, score.small_step), score.guidance_weight)

    def _predict(self, x: Tensor, t: Tensor) -> Tensor:
        with self.autocast():
            output: Tensor = self.unet(x, t)
        return output

    def _segment(self, images: Tensor, reconstructions: Tensor) -> Tensor:
        """Logits (N, 1, S, S) of images (N, 3, S, S) and their reconstructions (N, 3, R, R)."""
        size = self.settings.image_size
        reconstructions = self._resized(reconstructions, size)
        with self.autocast():
            if not self.backbone:
                logits: Tensor = self.segmentation(torch.cat([images, reconstructions], 1))
                return logits
            with torch.no_grad():  # nothing to learn on that side
                features = self.backbone.features(images)
            logits = self.segmentation(features, self.backbone.features(reconstructions))
        return self._resized(logits.float(), size)

    def _resized(self, images: Tensor, size: int | None) -> Tensor:
        if size in (None, images.shape[-1]):
            return images
        return F.interpolate(images, (size, size), mode="bilinear", align_corners=False, antialias=True)


def mean_over_normals(errors: Tensor, masks: Tensor) -> Tensor:
    """The mean of errors (N,) over samples without anomaly (equation 9); exactly 0, not NaN, if all have one."""
    normal = ~masks.flatten(1).any(1)
    return torch.where(normal, errors, 0).sum() / normal.sum().clamp_min(1)
