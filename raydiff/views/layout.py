"""How the pixels that are to be seen of an image are cut into network inputs, and how their maps become one again."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple, TypeVar

import numpy as np

from raydiff.views.roi import alike

T = TypeVar("T")


class Layout(NamedTuple):
    """Square tiles over an image at the network's scale.

    They begin at the image's edges and overlap evenly, by `overlap` pixels at least. An image that is smaller than a
    tile lies in its upper left corner, and the rest repeats the image's edge.
    """

    height: int  # of the image, pixels
    width: int
    size: int  # of a tile's side
    overlap: int  # of neighbouring tiles, at least

    @property
    def origins(self) -> list[tuple[int, int]]:
        """Each tile's upper left corner (y, x), row by row."""
        rows, columns = (self._starts(side) for side in (self.height, self.width))
        return [(y, x) for y in rows for x in columns]

    @property
    def tile_count(self) -> int:
        """How many tiles there are."""
        return self._along(self.height) * self._along(self.width)

    @property
    def is_one_tile(self) -> bool:
        """Whether the image is one tile, with nothing added."""
        return self.height == self.width == self.size

    def tiles(self, image: np.ndarray) -> np.ndarray:
        """(T, S, S, C) tiles of an image (H, W, C) of this layout's size; where they are filled up, nothing is to be
        looked at, and a fourth channel says so (see `roi`).
        """
        if self.is_one_tile:
            return image[None]
        below, right = (max(0, self.size - side) for side in (self.height, self.width))
        filled = image
        if below or right:
            (image,) = alike([image], True)
            filled = np.pad(image, ((0, below), (0, right), (0, 0)), mode="edge")
            filled[self.height :, :, 3] = filled[:, self.width :, 3] = 0
        return np.stack([filled[y : y + self.size, x : x + self.size] for y, x in self.origins])

    def tiles_of(self, bands: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """As `tiles`, one after the other, of an image that comes in bands of whole rows; a tile's rows are held.

        The image is at least as high and as wide as a tile.
        """
        starts, columns = self._starts(self.height), self._starts(self.width)
        held: np.ndarray | None = None
        first = row = 0  # of what is held, and of the tiles to come
        for band in bands:
            held = band if held is None else np.concatenate([held, band])
            while row < len(starts) and starts[row] + self.size <= first + len(held):
                rows = held[starts[row] - first :][: self.size]
                yield from (rows[:, x : x + self.size] for x in columns)
                row += 1
            spent = min(starts[row] - first, len(held)) if row < len(starts) else len(held)
            held, first = held[spent:], first + spent

    def joined(self, maps: Iterable[np.ndarray]) -> np.ndarray:
        """The image's map (H, W), float32, from its tiles' maps (S, S): where they overlap, one fades into the other.

        What was added to fill a tile is cut off.
        """
        return np.concatenate(list(self.joined_rows(maps)))

    def joined_rows(self, maps: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """As `joined`, in bands of rows (h, W), each as soon as no further tile reaches it; a tile's rows are held."""
        found = iter(maps)
        if self.is_one_tile:
            yield np.asarray(next(found), np.float32)
            return
        columns, weight = self._starts(self.width), self._weight()
        total, weights = np.zeros((2, self.size, max(self.width, self.size)), np.float32)
        starts = self._starts(self.height)
        for y, following in zip(starts, [*starts[1:], max(self.height, self.size)], strict=True):
            for x in columns:
                total[:, x : x + self.size] += weight * next(found)
                weights[:, x : x + self.size] += weight
            done = following - y
            yield (total[:done] / weights[:done])[: self.height - y, : self.width]
            for each in (total, weights):
                each[: self.size - done] = each[done:].copy()
                each[self.size - done :] = 0

    def _along(self, side: int) -> int:
        return 1 if side <= self.size else math.ceil((side - self.overlap) / (self.size - self.overlap))

    def _starts(self, side: int) -> list[int]:
        found = np.linspace(0, max(0, side - self.size), self._along(side))
        return [int(start) for start in np.rint(found)]

    def _weight(self) -> np.ndarray:
        """(S, S): one, but for the edges, where it falls evenly over the width of the overlap."""
        steps = np.arange(1, self.size + 1, dtype=np.float32)
        ramp = np.minimum(np.minimum(steps, steps[::-1]) / (self.overlap + 1), 1)
        return np.outer(ramp, ramp)


def each_tile(values: Iterable[T], layouts: Sequence[Layout]) -> list[T]:
    """What is known of each image, told of each of its tiles."""
    return [value for value, layout in zip(values, layouts, strict=True) for _ in range(layout.tile_count)]
