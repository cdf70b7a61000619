"""From images to the latents that diffusion works on, and back."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from pydantic import Field
from torch import Tensor, nn

from raydiff.settings import Settings


class AutoencoderSettings(Settings):
    """Shape of an autoencoder that is trained along on the normal images, and how."""

    channels: tuple[int, ...] = Field((32, 64, 64), min_length=1)  # a level each; every one but the first halves
    latent_channels: int = Field(4, ge=1)
    blocks_per_level: int = Field(1, ge=1)
    kl_weight: float = Field(1e-6, ge=0)
    learning_rate: float = Field(1e-3, gt=0)


def to_signed(images: Tensor) -> Tensor:
    """[0, 1] to [-1, 1], which networks work on."""
    return 2 * images - 1


def from_signed(pixels: Tensor) -> Tensor:
    """[-1, 1] to [0, 1], cut to it."""
    return ((pixels + 1) / 2).clamp(0, 1)


class FixedCodec(nn.Module):
    """A codec that learns nothing."""

    def loss(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Zero."""
        return images.new_zeros(())


class Pixels(FixedCodec):
    """No autoencoder: the latents are the pixels, scaled to [-1, 1]."""

    channels = 3

    def encode(self, images: Tensor) -> Tensor:
        """Images (N, 3, S, S) in [0, 1] to latents."""
        return to_signed(images)

    def decode(self, latents: Tensor) -> Tensor:
        """Latents to images in [0, 1]."""
        return from_signed(latents)


class Autoencoder(nn.Module):
    """diffusers' AutoencoderKL; its latents are brought to zero mean and unit variance by running statistics.

    `encode` gives the mean of the latent's distribution, so that the same image has the same latent.
    """

    def __init__(self, settings: AutoencoderSettings) -> None:
        super().__init__()
        self.settings = settings
        self.channels = settings.latent_channels
        levels = len(settings.channels)
        self.net: Any = AutoencoderKL(
            block_out_channels=settings.channels,
            latent_channels=settings.latent_channels,
            layers_per_block=settings.blocks_per_level,
            down_block_types=("DownEncoderBlock2D",) * levels,
            up_block_types=("UpDecoderBlock2D",) * levels,
            norm_num_groups=8,
            mid_block_add_attention=False,
        )
        self.scale = nn.BatchNorm2d(settings.latent_channels, affine=False, momentum=0.01)

    def encode(self, images: Tensor) -> Tensor:
        """Images (N, 3, S, S) in [0, 1] to latents (N, C, S / f, S / f)."""
        mean: Tensor = self.net.encode(to_signed(images)).latent_dist.mean
        return F.batch_norm(mean.float(), self.scale.running_mean, self.scale.running_var)

    def decode(self, latents: Tensor) -> Tensor:
        """Latents to images in [0, 1]."""
        mean, variance = self.scale.running_mean, self.scale.running_var
        assert mean is not None
        assert variance is not None
        raw = latents * (variance + self.scale.eps).sqrt()[:, None, None] + mean[:, None, None]
        decoded: Tensor = self.net.decode(raw).sample
        return from_signed(decoded.float())

    def loss(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Mean absolute error of the reconstruction and the weighted divergence from a standard normal."""
        scaled = to_signed(images)
        found = self.net.encode(scaled).latent_dist
        noise = torch.randn(found.mean.shape, generator=generator).to(images.device)
        self.scale(found.mean.float())  # keeps the running statistics
        decoded = self.net.decode(found.mean + found.std * noise).sample.float()
        return F.l1_loss(decoded, scaled) + self.settings.kl_weight * found.kl().mean()
