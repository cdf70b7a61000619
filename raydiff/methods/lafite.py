"""LafitE: latent diffusion with feature editing (Yao et al., arXiv 2307.08059).

A U-Net learns to denoise the frozen features of normal images. To score an image its features are edited towards the
memory bank of normal patches, corrupted to step T', and denoised again; where the reconstruction differs from the
features of the image itself, the image is anomalous.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from raydiff.methods.base import AnomalyMaps, GradientSettings
from raydiff.methods.editing import EditingMethod, EditingScoreSettings
from raydiff.methods.features import FEATURES_DEMO, FEATURES_PAPER, FEATURES_SMALL, FeatureTrainSettings
from raydiff.nn.blocks import Blocks, BlocksSettings
from raydiff.nn.diffusion import STEPS, Diffusion, NoiseSettings, keyed_noise, spaced_timesteps
from raydiff.nn.unet import UNet, UNetSettings


class LafitETrain(FeatureTrainSettings, GradientSettings, NoiseSettings):
    """Train settings of LafitE."""

    network: Literal["unet", "blocks"] = "unet"  # the paper's; blocks learn more in a short training
    unet: UNetSettings = UNetSettings()
    blocks: BlocksSettings = BlocksSettings()


class LafitEScore(EditingScoreSettings):
    """Score settings of LafitE."""

    corruption_steps: tuple[int, ...] = Field((500,), min_length=1)  # T'; the errors of several are averaged
    denoising_steps: int = Field(1, ge=1)  # DDIM steps from T' to 0; 1 = the clean estimate of a single call
    feature_editing: bool = True  # False is the paper's ablation
    draws: int = Field(1, ge=1)  # of noise; the reconstructions of several are averaged
    # share of the distance to the nearest normal patch in the error, beside that to the reconstruction; 0 = the paper's
    bank_weight: float = Field(0.0, ge=0, le=1)

    @model_validator(mode="after")
    def _steps_fit(self) -> LafitEScore:
        for step in self.corruption_steps:
            if not self.denoising_steps <= step < STEPS:
                raise ValueError(f"corruption step {step} lies outside {self.denoising_steps}..{STEPS - 1}")
        return self


# The recipes. Commands, hardware, time and what came out are in docs/accuracy.md.

# Minutes on two cores: few weights that see each image some tens of times, at the noise that scoring may ask for.
_QUICK = {
    "network": "blocks",
    "prediction": "v_prediction",  # learns faster than epsilon in few steps
    "noise_steps": (100, 750),
    "learning_rate": 1e-3,
    "warmup_steps": 50,
    "ema_decay": 0.995,
}
DEMO: Mapping[str, Any] = {**FEATURES_DEMO, **_QUICK, "train_steps": 200, "batch_size": 8}
# A step costs by the position, so half the reference's grid.
SMALL: Mapping[str, Any] = {
    **FEATURES_SMALL,
    **_QUICK,
    "backbone": {**FEATURES_SMALL["backbone"], "grid": 16},
    "train_steps": 1500,
}

# The paper's training as far as it is known (methods' sources differ on the grid): 1000 epochs of MVTec AD's 3629
# images at batch 64, learning rate 1e-4 and a tenth of it from 800 epochs on. A GPU of 24 GB; not run here.
PAPER: Mapping[str, Any] = {
    **FEATURES_PAPER,
    "train_steps": 56_700,
    "batch_size": 64,
    "learning_rate": 1e-4,
    "weight_decay": 1e-4,
}


class LafitE(EditingMethod):
    """Denoising reconstruction of edited features."""

    name = "lafite"
    TrainSettings = LafitETrain
    ScoreSettings = LafitEScore
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"demo": DEMO, "small": SMALL, "paper": PAPER}

    def __init__(self, train: LafitETrain, load_weights: bool = True) -> None:
        super().__init__(train, load_weights)
        channels = sum(self.parts)
        self.network = Blocks(channels, train.blocks) if train.network == "blocks" else UNet(channels, train.unet)
        self.diffusion = Diffusion("squaredcos_cap_v2", train.prediction, STEPS)

    @classmethod
    def for_examples(cls, train: LafitETrain) -> LafitE:
        """With the least of networks: examples are features, and a U-Net's library takes seconds to load."""
        return cls(train.changed(network="blocks", blocks=BlocksSettings(width=8, blocks=1)))

    @property
    def trained(self) -> nn.Module:
        """The denoising network; the backbone stays frozen."""
        return self.network

    def forward(self, examples: Tensor, generator: torch.Generator) -> Tensor:
        """Mean squared error of the prediction at uniformly drawn steps (equation 6)."""
        clean = self.standardised(examples)
        low, high = self.settings.noise_steps
        t = torch.randint(low, high, (len(clean),), generator=generator).to(clean.device)
        noise = torch.randn(clean.shape, generator=generator).to(clean.device)
        output = self._predict(self.diffusion.add_noise(clean, noise, t), t)
        target, inside = self.diffusion.target(clean, noise, t), self.inside(examples)
        if inside.all():
            return F.mse_loss(output.float(), target)
        errors = (output.float() - target).square().mean(1)
        return errors[inside].mean()

    @torch.inference_mode()
    def maps(self, examples: Tensor, keys: Sequence[str], score: LafitEScore) -> AnomalyMaps:
        """Distances of edited, corrupted and denoised features to the features themselves (equations 10 to 12)."""
        shown = self.shown(examples)
        features = self.standardised(examples, shown)
        edited = self.edit(features, shown, score)
        noises = [
            keyed_noise(keys, features.shape[1:], score.noise_seed + draw, features.device)
            for draw in range(score.draws)
        ]
        errors = torch.stack([self._error(features, edited, noises, step, score) for step in score.corruption_steps])
        error = errors.mean(0)
        if score.bank_weight:
            rarity = self.averaged([near.distances[:, 0] for near in self.nearest(features, shown, 1)])
            error = torch.lerp(error, rarity.view_as(error), score.bank_weight)
        return AnomalyMaps(self.error_map(error, examples, score.blur_sigma))

    def _error(
        self, features: Tensor, edited: Tensor, noises: Sequence[Tensor], step: int, score: LafitEScore
    ) -> Tensor:
        """(N, g, g) distance between the reconstruction from T' = step and the unedited features."""
        timesteps = spaced_timesteps(step, score.denoising_steps)
        t = torch.full((len(features),), step, device=features.device)
        found = [
            self.diffusion.denoise(self.diffusion.add_noise(edited, noise, t), timesteps, self._predict)
            for noise in noises
        ]
        return self.distances(torch.stack(found).mean(0), features)

    def _predict(self, x: Tensor, t: Tensor) -> Tensor:
        with self.autocast():
            output: Tensor = self.network(x, t)
        return output
