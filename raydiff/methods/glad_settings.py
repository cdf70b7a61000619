"""GLAD's settings and recipes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import Field, field_validator, model_validator

from raydiff.methods.anomalies import AnomalyTrainSettings
from raydiff.methods.base import GradientSettings, ScoreSettings
from raydiff.nn.backbones import BackboneSettings
from raydiff.nn.codec import AutoencoderSettings
from raydiff.nn.diffusion import STEPS, NoiseSettings
from raydiff.nn.unet import UNetSettings


class GLADTrain(AnomalyTrainSettings, GradientSettings, NoiseSettings):
    """Train settings of GLAD."""

    image_size: int = Field(256, ge=32)
    # a Stable-Diffusion-1.x folder, its URI or a model hub's name, trained further under the prompt; None: from
    # scratch, with the two settings after these
    pretrained: str | None = None
    prompt: str = "a photo of sks"
    unet: UNetSettings = UNetSettings(base_channels=128, multipliers=(1, 2, 4), attention_levels=(1, 2))
    # trained along; or the path or URI of one that was trained elsewhere (see `nn.given_autoencoder`) and stays frozen;
    # None: diffusion in pixels
    autoencoder: AutoencoderSettings | str | None = AutoencoderSettings()
    gradient_checkpointing: bool = False  # of the U-Net: less memory, a third more time
    anomaly_oriented: bool = True  # ATP; False trains on normal images alone, the paper's ablation
    # of noise, for each image of a batch: where encoding it costs more than denoising its latent
    noise_draws: int = Field(1, ge=1)
    backbone: BackboneSettings = BackboneSettings(
        name="vit_base_patch8_224.dino", stages=(2, 5, 8, 11), grid=32, neighbourhood=1, timm_options={"img_size": 256}
    )
    feature_size: int = Field(256, ge=32)  # both images are resized to this many pixels for the backbone

    @field_validator("autoencoder", mode="before")
    @classmethod
    def _told_by_its_own_names(cls, value: Any) -> Any:
        return AutoencoderSettings.parse(value) if isinstance(value, Mapping) else value

    @model_validator(mode="after")
    def _fits_pretrained(self) -> GLADTrain:
        if self.pretrained and isinstance(self.autoencoder, str):
            raise ValueError("pretrained brings an autoencoder of its own; leave out pretrained or autoencoder")
        if self.pretrained and self.prediction != "epsilon":
            raise ValueError("a pretrained U-Net predicts the noise; leave out pretrained or prediction")
        return self


class GLADScore(ScoreSettings):
    """Score settings of GLAD. The defaults are the paper's for one model on all of MVTec AD."""

    start_step: int = Field(650, ge=1, lt=STEPS)  # the corruption that all images start from
    denoising_steps: int = Field(25, ge=1)  # DDIM steps from there to 0
    least_step: int = Field(350, ge=0, lt=STEPS)  # below this the image itself, corrupted anew, takes over
    # probing score (a mean cosine distance, 0 to 2) above which an image's own step is found; None = plain denoising to
    # least_step, which saves the probing
    switch_distance: float | None = 0.45
    guidance_scale: float = Field(9.0, ge=0)  # classifier-free guidance of a pretrained U-Net; 1 = none
    fusion: bool = True  # SAFF at an image's own step; False goes on from the image itself, the paper's ablation
    # so many positions of the backbone's grid away, at most, lies the position of the reconstruction that one of the
    # image is compared with; None = anywhere, the paper's, to which a piece that is missing looks like background
    reach: int | None = Field(None, ge=0)
    latent_weight: float = Field(0.0, ge=0)  # of the difference of latents beside that of features; 0 = the paper's
    pixel_weight: float = Field(0.0, ge=0)  # v, of the difference of pixels beside that of features
    top_pixels: int = Field(250, ge=1)  # image score = mean of this many largest pixels
    blur_sigma: float = Field(6.0, ge=0)  # Gaussian blur of the anomaly map, pixels at image_size

    @model_validator(mode="after")
    def _steps_fit(self) -> GLADScore:
        if self.denoising_steps > self.start_step:
            raise ValueError(f"denoising_steps ({self.denoising_steps}) may be at most start_step ({self.start_step})")
        return self


_QUICK: Mapping[str, Any] = {
    "texture_sources": ("procedural", "self"),
    "unet": {"base_channels": 32, "multipliers": (1, 2, 4), "attention_levels": (2,)},
    "learning_rate": 1e-3,
    "warmup_steps": 50,
    "ema_decay": 0.99,
}
DEMO: Mapping[str, Any] = {
    **_QUICK,
    "image_size": 64,
    "autoencoder": {"channels": (16, 32, 32)},
    "backbone": {"name": "tf_efficientnet_lite0", "stages": (1, 2, 3), "grid": 16, "neighbourhood": 1},
    "feature_size": 64,
    "train_steps": 220,
    "batch_size": 8,
}
SMALL: Mapping[str, Any] = {
    **_QUICK,
    "image_size": 128,
    "autoencoder": {"channels": (16, 32, 32)},
    "backbone": {"name": "efficientnet_b4", "stages": (2, 3), "grid": 16, "neighbourhood": 1},
    "feature_size": 128,
    "train_steps": 800,
    "batch_size": 8,
}
# The paper's recipe for one model on all of MVTec AD: Stable Diffusion 1.4 at 512 pixels, trained on. Batch 32 in parts
# of two, gradient checkpointing and 8-bit AdamW are meant for a GPU of 24 GB; not run here. The original took an A6000
# of 48 GB, and hours that it does not state. Textures: give DTD's folder.
PAPER: Mapping[str, Any] = {
    "image_size": 512,
    "pretrained": "CompVis/stable-diffusion-v1-4",
    "train_steps": 20_000,
    "batch_size": 32,
    "accumulation": 16,
    "optimizer": "adamw_8bit",
    "gradient_checkpointing": True,
    "learning_rate": 5e-6,
    "weight_decay": 1e-2,
    "decay_from": 1.0,
    "ema_decay": 0.0,
}
