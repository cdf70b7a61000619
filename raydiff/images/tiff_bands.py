"""The pixels of a TIFF in bands of rows, so that no more of it is in memory than some of its strips or tiles."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from raydiff.errors import ImageError
from raydiff.images import tiff
from raydiff.images.samples import Samples
from raydiff.images.tiff_file import Data, Facts, Grid, facts, grid, page_of

BAND = 2**22  # pixels of a band, where strips and tiles allow for it
MOST = 2**27  # bytes of strips or tiles that lie side by side, once they are unpacked, which they are together


class Banded:
    """A page of a TIFF that is read in bands."""

    def __init__(self, data: Data, number: int | None = None) -> None:
        """Nothing is unpacked yet; arguments and errors as of `tiff.read`.

        Raises:
            ImageError: if it is read as a whole only.
        """
        self._page, before = page_of(data, number)
        self._said = facts(self._page)
        tiff.check_kind(self._said)
        _check(self._said)
        self._cells = _finer(grid(self._page, self._said, before), self._said)
        row = self._cells.across * self._cells.width * self._said.samples * -(-self._said.bits // 8)
        if row * self._cells.height > MOST:
            kind = "tiles" if self._cells.tiled else "strips"
            raise ImageError(
                f"its {kind} of {self._cells.height:,} rows are unpacked whole, and are too large for that; save it in "
                f"{kind} of at most {MOST // row:,} rows"
            )

    @property
    def size(self) -> tuple[int, int]:
        """Height and width, pixels."""
        return self._said.height, self._said.width

    def bands(self) -> Iterator[Samples]:
        """All its rows from the top on, as `tiff.read` has them.

        Raises:
            Exception: of any kind, if it is damaged.
        """
        cells, height = self._cells, self._said.height
        step = max(1, BAND // (cells.height * cells.across * cells.width))  # rows of cells
        for first in range(0, cells.down, step):
            count = min(step, cells.down - first)
            top = first * cells.height
            these = slice(first * cells.across, (first + count) * cells.across)
            some = replace(cells, down=count, offsets=cells.offsets[:, these], sizes=cells.sizes[:, these])
            rows = min(count * cells.height, height - top)
            found = tiff.samples_in(self._page, replace(self._said, height=rows), some)
            few = max(1, BAND // self._said.width)  # what is made of them takes more than they do
            for start in range(0, rows, few):
                yield replace(found, colours=found.colours[start : start + few])


def _check(said: Facts) -> None:
    """What is told by the whole image only, or not unpacked in parts."""
    if said.compression == tiff.JPEG:
        raise ImageError("its pixels are JPEGs; save it without compression, or with LZW or Deflate")
    if said.orientation in range(2, 9):
        raise ImageError("it lies turned or mirrored (orientation); save it upright")
    if tiff.has_alpha(said):
        raise ImageError("it has an alpha channel; save it without")


def _finer(cells: Grid, said: Facts) -> Grid:
    """Plain strips of many rows as strips of few: their rows lie one behind the other."""
    rows = max(1, BAND // said.width)
    if said.compression != tiff.NONE or cells.tiled or cells.height <= rows:
        return cells
    if cells.down > 1:  # all strips but the last are to be of one height
        rows = max(each for each in range(1, rows + 1) if cells.height % each == 0)
    channels = 1 if said.planar else said.samples
    row = -(-cells.width * channels * said.bits // 8)
    starts = np.arange(0, cells.height, rows) * row
    down = -(-said.height // rows)
    offsets = (cells.offsets[..., None] + starts).reshape(len(cells.offsets), -1)[:, :down]
    sizes = (cells.sizes[..., None] - starts).clip(0, rows * row).reshape(len(cells.sizes), -1)[:, :down]
    return replace(cells, height=rows, down=down, offsets=offsets, sizes=sizes)
