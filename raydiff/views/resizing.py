"""Images and maps made larger or smaller: bilinear and antialiased, as Pillow does it, whole or in bands of rows.

What may come in bands becomes first as wide as it is to be, row by row, and then as high. Pillow 13 and later take the
columns of some images first, by rules of their own, so it is asked for one direction after the other: a score depends
then neither on Pillow's version nor on whether an image came whole.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
from PIL import Image

BILINEAR = Image.Resampling.BILINEAR
_BITS = 22  # behind the point, of Pillow's weights for pixels of 8 bits
_AT_ONCE = 2**22  # values of a band that is given


Box = tuple[float, float, float, float]  # left, top, right and lower edge, in pixels; they may divide some


def resized_at_once(image: np.ndarray, height: int, width: int, box: Box | None = None) -> np.ndarray:
    """As `resized`, in whichever order Pillow likes."""
    return np.array(Image.fromarray(image).resize((width, height), BILINEAR, box))


def resized(image: np.ndarray, height: int, width: int, box: Box | None = None) -> np.ndarray:
    """An image (H, W, 3) of uint8 or a map (H, W) of float32, or a box of it, at another size, rows first."""
    left, top, right, bottom = box or (0, 0, image.shape[1], image.shape[0])
    across = Image.fromarray(image).resize((width, image.shape[0]), BILINEAR, (left, 0, right, image.shape[0]))
    return np.array(across.resize((width, height), BILINEAR, (0, top, width, bottom)))


def resized_rows(bands: Iterable[np.ndarray], of_height: int, height: int, width: int) -> Iterator[np.ndarray]:
    """As `resized`, of what comes in bands of whole rows, to the bit; what a row is made of is held.

    Args:
        of_height: of all bands together, rows.
    """
    if of_height == height:
        yield from (_across(band, width) for band in bands)
        return
    firsts, weights = _weights(of_height, height)
    held: np.ndarray | None = None
    begin = row = 0  # of what is held, and of the rows to come
    for band in bands:
        added = _across(band, width)
        held = added if held is None else np.concatenate([held, added])
        ends = np.minimum(firsts[row:] + weights.shape[1], of_height)
        ready = row + int(np.searchsorted(ends, begin + len(held), "right"))
        step = max(1, _AT_ONCE // held[0].size)
        for start in range(row, ready, step):
            some = range(start, min(start + step, ready))
            yield np.stack([_sum(held[firsts[each] - begin :], weights[each]) for each in some])
        row = ready
        spent = (firsts[row] if row < height else of_height) - begin
        held, begin = held[spent:], begin + min(spent, len(held))


def _across(band: np.ndarray, width: int) -> np.ndarray:
    return resized(band, len(band), width)


def _sum(rows: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """A row that is made of the first of some, in the order and the numbers of Pillow's own sums."""
    exact = rows.dtype == np.uint8
    total = np.full(rows.shape[1:], 2 ** (_BITS - 1) if exact else 0, np.int32 if exact else np.float64)
    for row, weight in zip(rows, weights, strict=False):
        total += row * (np.int32(0.5 + weight * 2**_BITS) if exact else weight)
    return (total >> _BITS).astype(np.uint8) if exact else total.astype(np.float32)


def _weights(of_height: int, height: int) -> tuple[np.ndarray, np.ndarray]:
    """For each of the rows to be: the first row that it is made of, and how much that one and those behind it count.

    Shapes (height,) and (height, taps); integers and doubles, computed step by step as Pillow does.
    """
    scale = of_height / height
    support = max(scale, 1.0)
    centres = (np.arange(height) + 0.5) * scale
    firsts = np.maximum((centres - support + 0.5).astype(np.int64), 0)
    counts = np.minimum((centres + support + 0.5).astype(np.int64), of_height) - firsts
    taps = np.arange(counts.max())
    found = 1 - np.abs((taps + firsts[:, None] - centres[:, None] + 0.5) * (1 / support))
    found = np.where(taps < counts[:, None], np.maximum(found, 0), 0)
    total = np.zeros(height)
    for column in found.T:  # one after the other, as the sum's last bit depends on the order
        total += column
    return firsts, found / total[:, None]
