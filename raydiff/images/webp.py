"""WebP files: lossy and lossless, with alpha or without."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator

from PIL import WebPImagePlugin

from raydiff.errors import ImageError
from raydiff.images import pillow
from raydiff.images.samples import Samples, check_size

_HEADER = 12
_EXTENDED, _LOSSY, _LOSSLESS, _FRAME = b"VP8X", b"VP8 ", b"VP8L", b"ANMF"


def read(data: bytes, max_pixels: int) -> Samples:
    """The pixels of a WebP file of one frame.

    Raises:
        ImageError: if it is larger than `max_pixels`, truncated, or an animation.
        Exception: of any kind, if it is damaged.
    """
    chunks = list(_chunks(data))
    frames = sum(name == _FRAME for name, _ in chunks)
    if frames > 1:
        raise ImageError(f"the WebP is an animation of {frames} frames; save each frame as a file of its own")
    sizes = [size for name, place in chunks if (size := _size(data, name, place))]
    if not sizes:
        raise ValueError("there is no picture in it")
    width, height = (max(sides) for sides in zip(*sizes, strict=True))
    check_size(width, height, max_pixels)  # before libwebp makes room for it
    pillow.allow(width * height)
    image = WebPImagePlugin.WebPImageFile(io.BytesIO(data))
    image.load()
    return pillow.samples(image, blurred=any(name in (_LOSSY, _FRAME) for name, _ in chunks))


def _chunks(data: bytes) -> Iterator[tuple[bytes, int]]:
    """Name and place of the content of each chunk."""
    end = 8 + struct.unpack_from("<I", data, 4)[0]
    if end > len(data):
        raise ImageError(f"the WebP file is truncated: it has {len(data):,} bytes of {end:,}")
    place = _HEADER
    while place + 8 <= end:
        name, size = struct.unpack_from("<4sI", data, place)
        if place + 8 + size > end:
            raise ImageError("the WebP file is truncated: it ends before its last pixel")
        yield name, place + 8
        place += 8 + size + size % 2


def _size(data: bytes, name: bytes, place: int) -> tuple[int, int] | None:
    """Width and height that a chunk tells of, if it does."""
    if name == _EXTENDED:
        width, height = (int.from_bytes(data[at : at + 3], "little") for at in (place + 4, place + 7))
        return width + 1, height + 1
    if name == _LOSSY and data[place + 3 : place + 6] == b"\x9d\x01\x2a":
        width, height = struct.unpack_from("<HH", data, place + 6)
        return width & 0x3FFF, height & 0x3FFF
    if name == _LOSSLESS and data[place : place + 1] == b"\x2f":
        (bits,) = struct.unpack_from("<I", data, place + 1)
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    return None
