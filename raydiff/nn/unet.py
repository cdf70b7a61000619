"""The denoising U-Net: diffusers' UNet2DModel on a grid of any size."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from raydiff.settings import Settings


class UNetSettings(Settings):
    """Shape of the U-Net. The defaults are LafitE's (base 256, multipliers 1, 2, 3, 4)."""

    base_channels: int = Field(256, ge=8)
    multipliers: tuple[int, ...] = Field((1, 2, 3, 4), min_length=1)
    blocks_per_level: int = Field(1, ge=1)
    attention_levels: tuple[int, ...] = (1, 2)  # levels with self-attention; level 0 is the full grid
    resample: Literal["conv", "resnet"] = "conv"  # how levels are halved and doubled; resnet is BigGAN's way


class UNet(nn.Module):
    """(N, channels, H, W) and t (N,) to a prediction of the same shape.

    UNet2DModel halves the grid at each level but the last, so other grids are padded by replication and cropped.
    """

    def __init__(self, channels: int, settings: UNetSettings) -> None:
        from diffusers import UNet2DModel  # here, because it takes seconds and not every method has a U-Net

        super().__init__()
        widths = tuple(settings.base_channels * multiplier for multiplier in settings.multipliers)
        attends = [level in settings.attention_levels for level in range(len(widths))]
        self.multiple = 2 ** (len(widths) - 1)
        plain = {"conv": "{}Block2D", "resnet": "Resnet{}sampleBlock2D"}[settings.resample]
        kinds = ["Attn{}Block2D" if attend else plain for attend in attends]
        self.net: Any = UNet2DModel(
            in_channels=channels,
            out_channels=channels,
            block_out_channels=widths,
            layers_per_block=settings.blocks_per_level,
            down_block_types=[kind.format("Down") for kind in kinds],
            up_block_types=[kind.format("Up") for kind in reversed(kinds)],
            downsample_type=settings.resample,
            upsample_type=settings.resample,
            norm_num_groups=8,
            attention_head_dim=min(32, *widths),
            add_attention=any(attends),
        )

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """The network's prediction at x_t."""
        height, width = x.shape[-2:]
        down, right = -height % self.multiple, -width % self.multiple
        if down or right:
            x = F.pad(x, (0, right, 0, down), mode="replicate")
        output: Tensor = self.net(x, t).sample
        return output[..., :height, :width]
