"""Images that are unpacked smaller than they are, where they are to become much smaller still: libjpeg can do that."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

FACTORS = (8, 4, 2)  # libjpeg's own
MARGIN = 2  # what is unpacked has so many times the pixels that are to be seen, along each side at least

Reduction = Callable[[int, int], int]  # by how much an image of this height and width may be unpacked smaller


class Reduced(NamedTuple):
    """How an image was made smaller while it was unpacked."""

    by: int  # one pixel is a square of so many of the image's along each side; the last ones may be cut off by its edge
    height: int  # of the image in its file, upright, pixels
    width: int
    top: float  # where the image begins in what was unpacked, in pixels of that
    left: float


def factor(times: float) -> int:
    """By how much an image may be unpacked smaller that is to become smaller by `times`; 1 = not at all."""
    return next((by for by in FACTORS if by * MARGIN <= times), 1)
