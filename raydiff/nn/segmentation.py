"""Segmentation networks on image and reconstruction: of pixels (DRAEM's U-Net, as DiffusionAD has it), of features."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

DOWN = (1, 2, 4, 8, 8, 8)  # widths, times the base, from the full image to a 32nd of it
UP = (8, 4, 2, 1, 1)  # and back
CONVOLUTIONS = 3  # of 3 x 3 places, on features


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


class FeatureSegmentation(nn.Module):
    """Features of image and reconstruction (N, channels, g, g) to one logit a place (N, 1, g, g).

    It reads the image's features and how far the reconstruction's are from them, each channel on its own scale.
    """

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.BatchNorm2d(2 * channels),
            nn.Conv2d(2 * channels, width, 1),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
            *(_convolution(width, width) for _ in range(CONVOLUTIONS)),
            nn.Conv2d(width, 1, 1),
        )

    def forward(self, images: Tensor, reconstructions: Tensor) -> Tensor:
        """Logits; above 0 is anomalous."""
        logits: Tensor = self.net(torch.cat([images, (images - reconstructions).abs()], 1))
        return logits


def _convolution(before: int, after: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(before, after, 3, padding=1), nn.BatchNorm2d(after), nn.ReLU(inplace=True))


def _block(before: int, after: int) -> nn.Sequential:
    return nn.Sequential(_convolution(before, after), _convolution(after, after))
