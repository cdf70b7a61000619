"""What an anomaly map holds on normal images, position by position.

Cut objects, the padding of convolutions, a tray's edge: at some positions normal images look odd, and a map that does
not know it raises its false alarms there. So a map's value is told in deviations from what normal images have at that
position. Zeros in PatchCore's average fade the border instead, and with it the defects that lie there.

It is a property of maps, whatever method made them, and of a category.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from raydiff.nn.maps import gaussian_blur
from raydiff.settings import Settings

CELLS = 16  # positions along a side that are told apart
SMOOTHING = 0.5  # cells; neighbouring positions are alike
SHRINKAGE = 10  # so many images' worth of what the typical position has is mixed into each
Grid = tuple[tuple[float, ...], ...]


class PositionGrid(Settings):
    """Mean and deviation of normal images' maps in each of CELLS x CELLS cells (fewer on smaller maps)."""

    mean: Grid = Field(min_length=1)
    deviation: Grid = Field(min_length=1)

    @classmethod
    def of(cls, cells: Tensor) -> PositionGrid:
        """From the cells (n, c, c) of n normal maps, NaN where nothing is looked at.

        No position counts for quieter than half of them are: where normals show next to nothing, a little more than
        nothing is no anomaly.
        """
        weight = len(cells) / (len(cells) + SHRINKAGE)
        own = _smooth(_mean(cells))
        mean = weight * own + (1 - weight) * own.median()
        own = _smooth(_mean((cells - mean).square()))
        variance = weight * own + (1 - weight) * own.median()
        mean, variance = (torch.maximum(each, each.median()) for each in (mean, variance))
        return cls.parse({"mean": mean.tolist(), "deviation": variance.clamp_min(1e-12).sqrt().tolist()})

    @cached_property
    def tensors(self) -> Tensor:
        """(2, c, c): mean and deviation."""
        return torch.tensor((self.mean, self.deviation))


class PositionStatistics(Settings):
    """The grids of each category, and of all together for images of no known category."""

    categories: dict[str, PositionGrid]
    all: PositionGrid

    @classmethod
    def of(cls, cells: Mapping[str, Tensor]) -> PositionStatistics:
        """From the cells of each category's normal maps, (n, c, c) with n >= 1."""
        return cls(
            categories={name: PositionGrid.of(found) for name, found in sorted(cells.items())},
            all=PositionGrid.of(torch.cat([found for _, found in sorted(cells.items())])),
        )

    def standardised(self, maps: Tensor, categories: Sequence[str | None]) -> Tensor:
        """(N, S, S) maps in deviations from what normals of their category have at each position."""
        size = maps.shape[-1]
        grids = torch.stack([self.categories.get(name or "", self.all).tensors for name in categories]).to(maps)
        mean, deviation = F.interpolate(grids, (size, size), mode="bilinear", align_corners=False).unbind(1)
        return (maps - mean) / deviation


def in_cells(maps: Tensor, cells: int = CELLS, inside: Tensor | None = None) -> Tensor:
    """(N, S, S) maps to the means (N, c, c) of their cells, fewer on smaller maps, on the CPU.

    Of maps that are looked at `inside` alone, (N, S, S) of bool, and zero elsewhere, over what is inside of each cell;
    NaN where nothing is.
    """
    cells = min(cells, maps.shape[-1])
    found = F.adaptive_avg_pool2d(maps[:, None].float(), cells)[:, 0].cpu()
    if inside is None:
        return found
    return found / F.adaptive_avg_pool2d(inside[:, None].float(), cells)[:, 0].cpu()  # 0 / 0 is NaN


def left_out(cells: Tensor) -> Iterable[PositionGrid]:
    """For each of n >= 2 normal maps' cells the grid that the others give: what is fair to it."""
    for place in range(len(cells)):
        yield PositionGrid.of(torch.cat([cells[:place], cells[place + 1 :]]))


def by_category(cells: Tensor, categories: Sequence[str]) -> dict[str, Tensor]:
    """The cells (n, c, c) of each category's maps."""
    rows: dict[str, list[int]] = defaultdict(list)
    for row, name in enumerate(categories):
        rows[name].append(row)
    return {name: cells[found] for name, found in rows.items()}


def _mean(cells: Tensor) -> Tensor:
    """The mean grid (c, c) of (n, c, c); where no map was looked at, what the others have in the middle."""
    if not cells.isnan().any():
        return cells.mean(0)
    found = cells.nanmean(0)
    return torch.where(found.isnan(), found.nanmedian(), found)


def _smooth(grid: Tensor) -> Tensor:
    return gaussian_blur(grid[None, None], SMOOTHING)[0, 0]
