"""BMP files."""

from __future__ import annotations

import io
import struct

import numpy as np
from PIL import BmpImagePlugin

from raydiff.errors import ImageError
from raydiff.images import pillow
from raydiff.images.samples import Samples, check_size

_PLAIN, _FIELDS, _ALPHA_FIELDS = 0, 3, 6
_HAS_ALPHA = 56  # headers of this size and more have a place for a mask of alpha
# Where red, green and blue lie if the file does not say.
_MASKS = {16: (0x7C00, 0x03E0, 0x001F), 32: (0xFF0000, 0x00FF00, 0x0000FF)}


def read(data: bytes, max_pixels: int) -> Samples:
    """The pixels of a BMP file.

    Raises:
        ImageError: if it is larger than `max_pixels`, or holds another format.
        Exception: of any kind, if it is damaged.
    """
    image = BmpImagePlugin.BmpImageFile(io.BytesIO(data)) if not _by_masks(data) else None
    if image is None:
        return _masked(data, max_pixels)
    check_size(*image.size, max_pixels)
    image.load()
    return pillow.samples(image)


def _by_masks(data: bytes) -> bool:
    """Whether it has 16 or 32 bits a pixel: of these Pillow knows a few kinds, and no alpha of theirs but one."""
    (header,) = struct.unpack_from("<I", data, 14)
    return header >= 40 and struct.unpack_from("<H", data, 28)[0] in _MASKS


def _masked(data: bytes, max_pixels: int) -> Samples:
    (start,) = struct.unpack_from("<I", data, 10)
    header, width, height, _, bits, compression = struct.unpack_from("<IiiHHI", data, 14)
    check_size(max(width, 0), abs(height), max_pixels)
    if compression not in (_PLAIN, _FIELDS, _ALPHA_FIELDS):
        raise ImageError(f"the BMP is of compression {compression}, which is not read; save it uncompressed")
    masks = list(_MASKS[bits])
    if compression != _PLAIN:
        masks = list(struct.unpack_from("<4I" if header >= _HAS_ALPHA or compression == 6 else "<3I", data, 54))
    row = (width * bits + 31) // 32 * 4
    stored = np.frombuffer(data, np.uint8, row * abs(height), start).reshape(abs(height), row)
    stored = stored[:, : width * bits // 8] if height < 0 else stored[::-1, : width * bits // 8]
    pixels = np.ascontiguousarray(stored).view(f"<u{bits // 8}")
    channels = [_channel(pixels, stored, mask) for mask in masks if mask]
    if len([mask for mask in masks[:3] if mask]) != 3:
        raise ImageError("the BMP has no place for one of red, green and blue; save it as 24 bit")
    return Samples(np.dstack(channels[:3]), 255, channels[3] if len(channels) > 3 else None)


def _channel(pixels: np.ndarray, stored: np.ndarray, mask: int) -> np.ndarray:
    """uint8 (height, width): the bits under `mask`, stretched to 0 to 255."""
    shift = (mask & -mask).bit_length() - 1
    full = mask >> shift
    if full & (full + 1):
        raise ImageError(f"the BMP keeps a colour in bits that are not neighbours ({mask:#x}); save it as 24 bit")
    if full == 255 and shift % 8 == 0:
        return stored[:, shift // 8 :: pixels.dtype.itemsize]
    values = (pixels & mask) >> shift
    return ((values.astype(np.uint64) * 255 + full // 2) // full).astype(np.uint8)
