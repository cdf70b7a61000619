"""From the bytes of an image file to pixels: one rule for every kind of file an archive may hold."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

import numpy as np
from PIL import Image

from raydiff.errors import ImageError
from raydiff.images import avif, bmp, dicom, jpeg, jpeg2000, pillow, png, pnm, samples, tiff, tiff_file, webp
from raydiff.images.levels import Levels
from raydiff.images.samples import LYING, Samples
from raydiff.views import Reduced, Reduction, View, roi

MAX_PIXELS = 200_000_000
NO_ALPHA = "its alpha is zero everywhere, which would show nothing: the colours were taken as they are"

# By how a file begins: that, and not its name, says of which kind it is.
_READERS: dict[str, tuple[re.Pattern[bytes], Callable[[bytes, int], Samples]]] = {
    "PNG": (re.compile(rb"\x89PNG\r\n\x1a\n"), png.read),
    "JPEG": (re.compile(rb"\xff\xd8\xff"), jpeg.read),
    "BMP": (re.compile(rb"BM"), bmp.read),
    "TIFF": (tiff_file.BEGINNING, tiff.read),
    "WebP": (re.compile(rb"RIFF.{4}WEBP", re.DOTALL), webp.read),
    "JPEG 2000": (re.compile(rb"\xff\x4f\xff\x51|\0\0\0\x0cjP  \r\n\x87\n"), jpeg2000.read),
    # A container of the general kind says behind its first brand what it may be read as.
    "AVIF": (re.compile(rb".{4}ftyp(avi[fs]|m[is]f1.{4}(.{4}){0,9}?avi[fs])", re.DOTALL), avif.read),
    "PNM": (re.compile(rb"P[1-6][\s#]"), pnm.read),
    "DICOM": (dicom.BEGINNING, dicom.read),
}

_OF_PAGES: dict[str, Callable[[bytes, int, int | None], Samples]] = {"TIFF": tiff.read, "DICOM": dicom.read}
_REDUCIBLE: dict[str, Callable[[bytes, int, Reduction | None], Samples]] = {"JPEG": jpeg.read}


class Decoded(NamedTuple):
    """The pixels of a file, and what is odd about it; an empty note where nothing is."""

    pixels: np.ndarray
    note: str
    highest: int | None = None  # of the values stored in a 16-bit file; None of other files
    reduced: Reduced | None = None  # how it was unpacked smaller than it is; None: it was not

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the image in its file, upright, pixels."""
        height, width = self.pixels.shape[:2]
        return (self.reduced.height, self.reduced.width) if self.reduced else (height, width)


class Seen(NamedTuple):
    """What a network sees of a file, and what is odd about that; an empty note where nothing is."""

    pixels: np.ndarray  # uint8 (h, w, 3 or 4) as the view has them
    height: int  # of the image in its file, upright, pixels
    width: int
    note: str
    image: np.ndarray  # uint8 (H, W, 3), the whole of it as it was unpacked


def decode(
    data: bytes, max_pixels: int = MAX_PIXELS, levels: Levels | None = None, page: int | None = None
) -> np.ndarray:
    """The image in a file of a kind that is read (see `_READERS`) as uint8 RGB, shape (height, width, 3).

    - Orientation (EXIF, TIFF) is applied.
    - Grey is repeated to three channels, palettes are looked up, CMYK is converted without a colour profile.
    - 16-bit grey is scaled by its full range, round(v / 257) (12-bit TIFF: round(v * 255 / 4095)), never by
      the image's own extremes, so that brightness stays comparable between images. A camera that stores 12
      bits in a 16-bit file therefore looks dark without `levels`. 16-bit colour arrives as its high byte, at most
      one level less.
    - Float must be finite and within [0, 1]; 32-bit and signed integers have no agreed range and are refused. With
      `levels` of a low and a high value all of them are read.
    - Alpha is composited over black: what no viewer can see must not move a score. Alpha that is zero everywhere
      says nothing (frame grabbers write it so): then the colours count.
    - Of DICOM grey is read, after its rescaling; the windows that a file suggests are not applied.
    - A TIFF must hold one page, a DICOM file one frame, or `page` says which counts, from 1; reduced copies
      (thumbnails, pyramids) do not count. A WebP or AVIF holds one frame.
    - What viewers show differently is refused: unmarked CMYK in a JPEG, grey channels of unknown meaning.
    - A JPEG may lack its end marker, but no pixel.

    Raises:
        ImageError: if the file is empty, truncated, of another kind, larger than `max_pixels` (told from its
            header, before anything is unpacked) or has values as above.
    """
    return decode_noted(data, max_pixels, levels, page).pixels


def decode_noted(
    data: bytes,
    max_pixels: int = MAX_PIXELS,
    levels: Levels | None = None,
    page: int | None = None,
    reduction: Reduction | None = None,
) -> Decoded:
    """As `decode`, with a note of what is odd about the file.

    Args:
        reduction: by how much an image may be unpacked smaller than it is; of some JPEGs it is (see `jpeg.read`).

    Raises:
        ImageError: as `decode`; what `reduction` raises.
    """
    return _read(data, max_pixels, partial(samples.rgb, levels=levels), page, reduction)


def see(
    data: bytes,
    view: View,
    size: int,
    max_pixels: int = MAX_PIXELS,
    levels: Levels | None = None,
    page: int | None = None,
    category: str | None = None,
    own: np.ndarray | None = None,
) -> Seen:
    """What a network of `size` pixels sees of an image file: the one way from a file to a score.

    Args:
        levels: of all categories (see `Levels.of`).
        category, own: whose levels and region of interest apply, as of `View.seen`.

    Raises:
        ImageError: as `decode`, or if the view's crop lies outside the image.
    """
    theirs = levels.of(category) if levels else None
    found = decode_noted(data, max_pixels, theirs, page, partial(view.reduction, size=size))
    return Seen(view.seen(found.pixels, size, category, own, found.reduced), *found.size, found.note, found.pixels)


def decode_mask(data: bytes, max_pixels: int = MAX_PIXELS, page: int | None = None) -> np.ndarray:
    """The ground-truth mask in an image file as bool, shape (height, width): True = anomalous.

    Any pixel that is not black is anomalous, whatever the depth. What is not kept as it was (JPEG, lossy WebP) blurs
    black, so there it takes half of white.

    Raises:
        ImageError: as `decode`, except that integers of any depth are masks.
    """
    return _read(data, max_pixels, samples.mask, page).pixels


def resize(image: np.ndarray, size: int) -> np.ndarray:
    """uint8 RGB (height, width, 3) to (size, size, 3), bilinear and antialiased as Pillow does it."""
    return np.array(Image.fromarray(image).resize((size, size), Image.Resampling.BILINEAR))


def resize_mask(mask: np.ndarray, size: int) -> np.ndarray:
    """bool (height, width) to (size, size): each pixel takes the nearest one's value."""
    return roi.resized(mask, size, size)


def _read(
    data: bytes,
    max_pixels: int,
    pixels: Callable[[Samples], np.ndarray],
    page: int | None,
    reduction: Reduction | None = None,
) -> Decoded:
    """`pixels` of the file's samples, upright, with every failure told as an ImageError."""
    kind = _kind(data)
    pillow.silence_remarks()
    with told_as_damage(kind):
        if kind in _OF_PAGES:
            found = _OF_PAGES[kind](data, max_pixels, page)
        elif page not in (None, 1):
            raise ImageError(f"a {kind} file holds one image, and page {page} was asked for")
        elif kind in _REDUCIBLE:
            found = _REDUCIBLE[kind](data, max_pixels, reduction)
        else:
            found = _READERS[kind][1](data, max_pixels)
        array = pixels(found)
        upright = _UPRIGHT.get(found.orientation)
        array = upright(array) if upright else array
        note = found.note or (NO_ALPHA if found.alpha is not None and not found.sees_through else "")
        full = found.white == 65535 and found.colours.dtype == np.uint16 and found.inverted is None
        highest = int(found.colours.max()) if full else None
        return Decoded(np.require(array, requirements=["C", "W", "O"]), note, highest, _reduced(found))


@contextlib.contextmanager
def told_as_damage(kind: str) -> Iterator[None]:
    """Turn whatever a file of a kind raises into an ImageError."""
    try:
        yield
    except ImageError:
        raise
    except Exception as error:  # a damaged file can raise anything
        reason = str(error) or type(error).__name__
        raise ImageError(f"the {kind} file is damaged or of a variety not known here ({reason})") from None


def _reduced(found: Samples) -> Reduced | None:
    """How the upright image was made smaller.

    Pixels of which the file's last edge cuts off a part come first where the image is turned.
    """
    if found.reduced_by == 1:
        return None
    height, width = found.size[::-1] if found.orientation in LYING else found.size
    spare = [-side % found.reduced_by / found.reduced_by for side in (height, width)]
    top, left = (part * (found.orientation in turned) for part, turned in zip(spare, _FROM_THE_END, strict=True))
    return Reduced(found.reduced_by, height, width, top, left)


def _kind(data: bytes) -> str:
    if not data:
        raise ImageError("the file is empty")
    for kind, (beginning, _) in _READERS.items():
        if beginning.match(data):
            return kind
    raise ImageError(f"this is no {', '.join(_READERS)} file, whatever its name: it begins with {data[:8]!r}")


_UPRIGHT: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    2: lambda array: array[:, ::-1],
    3: lambda array: array[::-1, ::-1],
    4: lambda array: array[::-1],
    5: lambda array: array.swapaxes(0, 1),
    6: lambda array: np.rot90(array, -1),
    7: lambda array: array[::-1, ::-1].swapaxes(0, 1),
    8: lambda array: np.rot90(array),
}
# Orientations in which the upright image's first row, or its first column, is a last one of the file's.
_FROM_THE_END = ((3, 4, 7, 8), (2, 3, 6, 7))
