"""A denoising network for feature grids that learns in minutes on a CPU: ConvNeXt blocks steered by the noise level.

On 16 x 16 features most of a U-Net's weights see 4 x 4 positions, and a plain machine makes few steps with them. Here
every block looks at the whole grid, depthwise convolutions see 7 x 7 positions each (Liu et al., arXiv 2201.03545), and
the noise level scales and shifts each block, which begins as the identity (adaLN-Zero, Peebles and Xie, arXiv
2212.09748). There is no position embedding: parts may lie anywhere.
"""

from __future__ import annotations

import math

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from raydiff.settings import Settings

KERNEL = 7
TIME_CHANNELS = 128


class BlocksSettings(Settings):
    """Shape of the network."""

    width: int = Field(160, ge=8)  # channels inside
    blocks: int = Field(6, ge=1)
    expansion: int = Field(3, ge=1)  # of the width, inside a block


class Blocks(nn.Module):
    """(N, channels, H, W) and t (N,) to a prediction of the same shape."""

    def __init__(self, channels: int, settings: BlocksSettings) -> None:
        super().__init__()
        width = settings.width
        self.enter, self.leave = nn.Linear(channels, width), nn.Linear(width, channels)
        self.time = nn.Sequential(nn.Linear(TIME_CHANNELS, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU())
        self.blocks = nn.ModuleList(Block(width, settings.expansion) for _ in range(settings.blocks))
        self.norm = nn.LayerNorm(width)
        nn.init.zeros_(self.leave.weight)
        nn.init.zeros_(self.leave.bias)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """The network's prediction at x_t."""
        level = self.time(step_embedding(t, TIME_CHANNELS).to(x.dtype))
        hidden = self.enter(x.permute(0, 2, 3, 1))
        for block in self.blocks:
            hidden = block(hidden, level)
        output: Tensor = self.leave(self.norm(hidden)).permute(0, 3, 1, 2)
        return output


def step_embedding(t: Tensor, channels: int) -> Tensor:
    """(N, channels) sines and cosines of steps t (N,) at wavelengths from 2 pi to 10,000 times that.

    As in Vaswani et al. (arXiv 1706.03762, section 3.5) and in diffusers, which takes seconds to import.
    """
    half = channels // 2
    rates = torch.exp(-math.log(10_000) * torch.arange(half, dtype=torch.float32, device=t.device) / (half - 1))
    angles = t.float()[:, None] * rates
    return torch.cat([angles.sin(), angles.cos()], dim=1)


class Block(nn.Module):
    """A mixing of neighbouring positions, then one of channels, each beside a shortcut; (N, H, W, width) all along."""

    def __init__(self, width: int, expansion: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(width, elementwise_affine=False) for _ in range(2))
        around = nn.Conv2d(width, width, KERNEL, padding=KERNEL // 2, groups=width)
        self.around = around.to(memory_format=torch.channels_last)  # as its gradient comes, or workers copy it and warn
        self.mix = nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, expansion * width), nn.Linear(expansion * width, width)
        self.steer = nn.Linear(width, 6 * width)
        nn.init.zeros_(self.steer.weight)
        nn.init.zeros_(self.steer.bias)

    def forward(self, hidden: Tensor, level: Tensor) -> Tensor:
        """One step on, steered by the noise level (N, width)."""
        steer = self.steer(level)[:, None, None].chunk(6, dim=-1)
        inside = _steered(self.norms[0](hidden), *steer[:2])
        inside = F.gelu(self.around(inside.permute(0, 3, 1, 2)).permute(0, 2, 3, 1))
        hidden = hidden + steer[2] * self.mix(inside)
        inside = _steered(self.norms[1](hidden), *steer[3:5])
        return hidden + steer[5] * self.down(F.gelu(self.up(inside)))


def _steered(hidden: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    return torch.addcmul(shift, hidden, 1 + scale)
