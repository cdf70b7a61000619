"""What is seen of an image that comes in bands of rows, and its map in bands: as `View.seen` and `View.whole_map`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from raydiff.views.resizing import resized_rows
from raydiff.views.view import View

_ROWS = 64  # of a band in which nothing is seen


def seen_rows(view: View, bands: Iterable[np.ndarray], height: int, width: int, size: int) -> Iterator[np.ndarray]:
    """As `view.seen` of the whole image, to the bit, in bands of rows; some rows are held.

    Args:
        view: with tiles, and without a region of interest.
        bands: uint8 (h, W, 3), of an image of this height and width.

    Raises:
        ImageError: if the crop lies outside the image.
    """
    left, top, across, down = view.box(height, width)
    layout = view.layout_of(height, width, size)

    def cut() -> Iterator[np.ndarray]:
        begin = 0
        for band in bands:
            part = band[max(0, top - begin) : max(0, top + down - begin), left : left + across]
            begin += len(band)
            if len(part):
                yield part
            if begin >= top + down:
                return

    yield from resized_rows(cut(), down, layout.height, layout.width)


def map_rows(view: View, rows: Iterable[np.ndarray], height: int, width: int, size: int) -> Iterator[np.ndarray]:
    """As `view.whole_map` of the whole map, to the bit, in bands of rows.

    Args:
        rows: float32 (h, w), of the map of what was seen of an image of this height and width.
    """
    left, top, across, down = view.box(height, width)
    yield from _nothing(top, width)
    for part in resized_rows(rows, view.layout_of(height, width, size).height, down, across):
        yield np.pad(part, ((0, 0), (left, width - left - across))) if across < width else part
    yield from _nothing(height - top - down, width)


def _nothing(rows: int, width: int) -> Iterator[np.ndarray]:
    for start in range(0, rows, _ROWS):
        yield np.zeros((min(_ROWS, rows - start), width), np.float32)
