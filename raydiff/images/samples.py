"""What a file says about its pixels, before it becomes an image or a mask: one rule for all kinds of file."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from raydiff.errors import ImageError
from raydiff.images.levels import Levels, eight_bits

LYING = (5, 6, 7, 8)  # orientations (EXIF, TIFF) of files whose rows are the upright image's columns


@dataclass(frozen=True)
class Samples:
    """The pixels of a file as it stores them, with black at 0.

    Args:
        colours: (height, width, 1 or 3), grey or RGB: integers or floats.
        white: the value of white; 0 = there is no agreed one.
        alpha: (height, width), unsigned: what a pixel shows of its colour. None = all of it.
        opaque: the value of `alpha` that shows all.
        orientation: as in EXIF and TIFF; 1 = row 0 is the top, column 0 the left.
        blurred: black may be a little more than 0 (JPEG and its like).
        note: what is odd about the file, which can be read all the same.
        inverted: where the file's lowest value is white, what its values were taken from to be `colours`.
        measured: its values are in a unit, which other files of its kind keep in other bits.
        reduced_from: bits of the file's colours, where only the high eight are here.
        reduced_by: each pixel here is a square of so many of the file's, along each side.
        size: (height, width) of the file's image, where a pixel here is several of it.
    """

    colours: np.ndarray
    white: int
    alpha: np.ndarray | None = None
    opaque: int = 255
    orientation: int = 1
    blurred: bool = False
    note: str = ""
    inverted: int | None = None
    measured: bool = False
    reduced_from: int = 0
    reduced_by: int = 1
    size: tuple[int, int] = (0, 0)

    @property
    def sees_through(self) -> bool:
        """Whether alpha says anything: frame grabbers leave it at zero everywhere, and nothing would be seen."""
        return self.alpha is not None and bool(self.alpha.any())


def check_size(width: int, height: int, max_pixels: int) -> None:
    """To be asked before anything is unpacked.

    Raises:
        ImageError: if there are no pixels, or more than `max_pixels`.
    """
    if width * height == 0:
        raise ImageError(f"the image is {width} x {height} pixels: there is nothing in it")
    if width * height > max_pixels:
        raise ImageError(
            f"the image is {width} x {height} pixels, more than the limit of {max_pixels:,}; "
            "cut it into tiles or raise the limit"
        )


def rgb(samples: Samples, levels: Levels | None = None) -> np.ndarray:
    """uint8 (height, width, 3), composited over black.

    Args:
        levels: which values are black and white; by default the file's own.

    Raises:
        ImageError: if the values have no agreed range, or are floats beyond theirs, or the levels do not fit them.
    """
    shown = _by_levels(samples, levels) if levels else _by_own_range(samples)
    shown = np.repeat(shown, 3, axis=2) if shown.shape[2] == 1 else shown
    alpha, opaque = samples.alpha, samples.opaque
    if alpha is None or not samples.sees_through:
        return shown
    veiled = alpha != opaque
    if veiled.any():
        shown = shown if shown.flags.writeable else shown.copy()
        seen = shown[veiled].astype(np.uint32) * alpha[veiled, None]
        shown[veiled] = (seen + opaque // 2) // opaque
    return shown


def mask(samples: Samples) -> np.ndarray:
    """bool (height, width): True where a pixel is not black and can be seen."""
    light = _by_own_range(samples) >= 128 if samples.blurred else samples.colours != 0
    bright = np.asarray(light.any(axis=2))
    return bright & (samples.alpha != 0) if samples.sees_through else bright


def _by_levels(samples: Samples, levels: Levels) -> np.ndarray:
    if samples.reduced_from > (levels.bit_depth or samples.reduced_from):
        raise ImageError(
            f"the file's colours have {samples.reduced_from} bits, of which the high eight are read, so that no bit "
            "depth can be applied; save it as PNG or TIFF"
        )
    ends = levels.ends(samples.colours.dtype, samples.white, samples.measured)
    return eight_bits(samples.colours, ends, samples.inverted) if ends else _by_own_range(samples)


def _by_own_range(samples: Samples) -> np.ndarray:
    values, white = samples.colours, samples.white
    if not white:
        raise ImageError(
            "the pixels are 32-bit, signed or rescaled numbers of no agreed range; say which values are black and "
            "white with --levels LOW,HIGH, or save as 8 or 16 bit"
        )
    if values.dtype.kind == "f":
        if not (values.min() >= 0 and values.max() <= 1):  # false for NaN too
            raise ImageError(
                "the pixels are floats and not all within 0 to 1; say which values are black and white with --levels "
                "LOW,HIGH, or save as 16 bit"
            )
        values = values.astype(np.float32) if values.dtype.itemsize < 4 else values
        return np.rint(values * 255).astype(np.uint8)
    if white == 255:
        return values
    stored = np.arange(white + 1, dtype=np.uint32)
    if white == 65535 and (values.shape[2] == 3 or samples.alpha is not None):
        return (stored >> 8).astype(np.uint8)[values]
    return ((stored * 255 + white // 2) // white).astype(np.uint8)[values]
