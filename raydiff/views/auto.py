"""`tile=auto`: a tile that is chosen by the sizes of the images and by what its tiles cost. No label is looked at."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import NamedTuple

from raydiff.views.view import View

BUDGET = 64  # tiles an image, in the mean: each costs what an image that is seen whole does
WHOLE = 1.5  # images whose longest side is at most so many network inputs are seen whole
STEP = 16  # pixels, of the sides of tiles that are tried


class Choice(NamedTuple):
    """What was chosen."""

    view: View
    why: str  # a sentence


def chosen(view: View, shapes: Sequence[tuple[int, int]], size: int) -> Choice:
    """The view with the smallest tile that keeps to the budget, but none whose pixels are smaller than the image's own.

    Where most images are hardly larger than the network's input, without tiles.

    Args:
        view: with `tile=auto`.
        shapes: height and width of images as the networks will see them, the crop within each.
        size: side of the networks' input, pixels.
    """
    cropped = [view.cropped(*shape) for shape in shapes]
    longest = statistics.median(max(shape) for shape in cropped)
    told = f"images are {_range(cropped)} pixels"
    if longest <= WHOLE * size:
        why = (
            f"tile=auto: no tiles, one input an image: {told}, and those whose longest side is within {WHOLE:g} times "
            f"the network's {size} lose little when they are seen whole"
        )
        return Choice(view.changed(tile=None), why)
    finest = _tiles(view.changed(tile=size), shapes, size)
    tile, count = size, finest
    while count > BUDGET:
        tile = (tile // STEP + 1) * STEP
        count = _tiles(view.changed(tile=tile), shapes, size)
    shown = f"{count:.3g} tiles an image{' in the mean' if len(set(cropped)) > 1 else ''}"
    why = f"tile=auto: tile={tile}, {shown}, each of which costs what a whole image does: {told}, "
    if tile == size:
        why += "each of which is one of the network's"
    else:
        why += (
            f"of which {tile / size:.2g} a side become one of the network's (tile={size} would show each, with "
            f"{finest:,.0f} tiles an image, and no more than {BUDGET} are chosen without being asked for)"
        )
    return Choice(view.changed(tile=tile), why)


def _tiles(view: View, shapes: Sequence[tuple[int, int]], size: int) -> float:
    """Tiles an image, in the mean."""
    return statistics.fmean(view.tile_count(*shape, size) for shape in shapes)


def _range(shapes: Sequence[tuple[int, int]]) -> str:
    least, most = (f"{width:,} x {height:,}" for height, width in (f(shapes, key=_area) for f in (min, max)))
    return least if least == most else f"{least} to {most}"


def _area(shape: tuple[int, int]) -> int:
    return shape[0] * shape[1]
