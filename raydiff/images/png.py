"""PNG files."""

from __future__ import annotations

import io
import struct
import zlib
from dataclasses import replace

import numpy as np
from PIL import PngImagePlugin

from raydiff.images import pillow
from raydiff.images.samples import Samples, check_size

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
# What the pixels need. Other chunks (texts, colour profiles) may be of any size, and Pillow unpacks them.
_NEEDED = {b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND", b"eXIf"}
_TEXTS = {b"tEXt", b"zTXt", b"iTXt"}
_EXIF_TEXT = b"Raw profile type "  # ImageMagick's place for EXIF data

_GREY, _RGB, _GREY_ALPHA, _RGB_ALPHA = 0, 2, 4, 6


def read(data: bytes, max_pixels: int) -> Samples:
    """The pixels of a PNG file.

    Raises:
        ImageError: if it is larger than `max_pixels`.
        Exception: of any kind, if it is damaged.
    """
    chunks = _chunks(data)
    header = chunks[0][1]
    width, height, depth, colour_type = struct.unpack_from(">IIBB", header, 8)
    check_size(width, height, max_pixels)
    key = next((body[8:-4] for name, body in chunks if name == b"tRNS"), b"")
    if depth == 16 and colour_type == _GREY_ALPHA:
        # Pillow keeps the high bytes only. 16-bit grey with alpha is laid out as 8-bit RGBA is: read it as that.
        retyped = header[:16] + bytes([8, _RGB_ALPHA]) + header[18:-4]
        chunks[0] = (b"IHDR", retyped + struct.pack(">I", zlib.crc32(retyped[4:])))
        found = pillow.samples(_open(chunks))
        assert found.alpha is not None
        split = np.dstack([found.colours, found.alpha]).view(">u2").astype(np.uint16)
        return Samples(split[..., :1], 65535, split[..., 1], 65535, found.orientation)
    found = pillow.samples(_open(chunks))
    if depth == 16 and colour_type in (_RGB, _RGB_ALPHA):
        found = _deep(found, pillow.samples(_open(chunks, low_bytes=True)))
    if key and colour_type in (_GREY, _RGB):
        transparent = np.frombuffer(key, ">u2", 1 if colour_type == _GREY else 3).astype(np.int64)
        transparent = transparent if depth in (8, 16) else transparent * (255 // (2**depth - 1))
        seen = (found.colours != transparent).any(axis=2)
        return replace(found, alpha=seen.astype(np.uint8), opaque=1)
    return found


def _chunks(data: bytes) -> list[tuple[bytes, bytes]]:
    """Name and bytes (length, name, content, checksum) of the chunks that count, the header first."""
    chunks, place = [], len(_SIGNATURE)
    while place < len(data):
        (size,) = struct.unpack_from(">I", data.ljust(place + 4, b"\0") if place + 4 > len(data) else data, place)
        name = data[place + 4 : place + 8]
        exif = name in _TEXTS and data.startswith(_EXIF_TEXT, place + 8)
        if name in _NEEDED or exif:
            chunks.append((name, data[place : place + 12 + size]))
        place += 12 + size
    if not chunks or chunks[0][0] != b"IHDR" or len(chunks[0][1]) != 25:
        raise ValueError("it does not begin with its header")
    return chunks


def _open(chunks: list[tuple[bytes, bytes]], low_bytes: bool = False) -> PngImagePlugin.PngImageFile:
    image = PngImagePlugin.PngImageFile(io.BytesIO(_SIGNATURE + b"".join(body for _, body in chunks)))
    if low_bytes:  # Pillow takes every second byte; told the other byte order, it takes the others
        image.tile = [tile._replace(args=str(tile.args).replace("16B", "16L")) for tile in image.tile]
    image.load()
    return image


def _deep(high: Samples, low: Samples) -> Samples:
    colours = high.colours.astype(np.uint16) << 8 | low.colours
    if high.alpha is None or low.alpha is None:
        return replace(high, colours=colours, white=65535)
    alpha = high.alpha.astype(np.uint16) << 8 | low.alpha
    return replace(high, colours=colours, white=65535, alpha=alpha, opaque=65535)
