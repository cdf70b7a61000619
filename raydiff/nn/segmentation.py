"""The segmentation network on a pair of images: a plain U-Net, DRAEM's discriminative network as DiffusionAD has it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

DOWN = (1, 2, 4, 8, 8, 8)  # widths, times the base, from the full image to a 32nd of it
UP = (8, 4, 2, 1, 1)  # and back


class SegmentationUNet(nn.Module):
    """(N, channels, H, W) to one logit a pixel (N, 1, H, W). H and W of at least 32, best multiples of it."""

    def __init__(self, channels: int, base: int) -> None:
        super().__init__()
        down, up = ([base * times for times in widths] for widths in (DOWN, UP))
        befores, skips = [down[-1], *up[:-1]], down[-2::-1]
        self.down = nn.ModuleList(_block(*pair) for pair in zip([channels, *down[:-1]], down, strict=True))
        self.narrow = nn.ModuleList(_convolution(*pair) for pair in zip(befores, up, strict=True))
        self.join = nn.ModuleList(_block(after + skip, after) for after, skip in zip(up, skips, strict=True))
        self.out = nn.Conv2d(base, 1, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Logits; above 0 is anomalous."""
        skips: list[Tensor] = []
        for level, block in enumerate(self.down):
            x = block(F.max_pool2d(x, 2) if level else x)
            skips.append(x)
        skips.pop()
        for narrow, join in zip(self.narrow, self.join, strict=True):
            skip = skips.pop()
            larger = F.interpolate(x, skip.shape[-2:], mode="bilinear", align_corners=True)
            x = join(torch.cat([narrow(larger), skip], 1))
        logits: Tensor = self.out(x)
        return logits


def _convolution(before: int, after: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(before, after, 3, padding=1), nn.BatchNorm2d(after), nn.ReLU(inplace=True))


def _block(before: int, after: int) -> nn.Sequential:
    return nn.Sequential(_convolution(before, after), _convolution(after, after))
