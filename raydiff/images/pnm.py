"""PBM, PGM and PPM files, raw and plain (netpbm's `pbm`, `pgm` and `ppm`), of 1 to 16 bits."""

from __future__ import annotations

import re

import numpy as np

from raydiff.errors import ImageError
from raydiff.images.samples import Samples, check_size

_GAP = rb"(?:\s|#[^\r\n]*[\r\n])+"  # a comment goes to the end of its line
_HEADER = re.compile(rb"P([1-6])" + _GAP + rb"(\d+)" + _GAP + rb"(\d+)")
_HIGHEST = re.compile(_GAP + rb"(\d+)")
_COMMENT = re.compile(rb"#[^\r\n]*")
_NO_NUMBERS = re.compile(rb"[^\d\s]")
_MOST = 65535
_BITS, _COLOURS, _RAW = (1, 4), (3, 6), (4, 5, 6)


def read(data: bytes, max_pixels: int) -> Samples:
    """The pixels of a file that holds one image; its header says which value is white.

    Raises:
        ImageError: if it is larger than `max_pixels`, truncated, or holds several images.
        ValueError: if it is damaged.
    """
    header = _HEADER.match(data)
    if header is None:
        raise ValueError("its header has no width and height")
    kind, width, height = (int(number) for number in header.groups())
    check_size(width, height, max_pixels)
    white, place = 1, header.end()
    if kind not in _BITS:
        highest = _HIGHEST.match(data, place)
        white, place = (int(highest[1]), highest.end()) if highest else (0, place)
        if not 0 < white <= _MOST:
            raise ValueError(f"its highest value is {white or 'missing'}; 1 to {_MOST} are known")
    channels = 3 if kind in _COLOURS else 1
    shape = (height, width, channels)
    if kind not in _RAW:
        values = _plain(data[place:], shape, kind in _BITS)
    else:
        values = _raw(data, place + 1, shape, white, kind in _BITS)  # one byte of white space
    if values.max() > white:
        raise ValueError(f"a pixel is {values.max()}, more than its highest value of {white}")
    values = white - values if kind in _BITS else values  # of bits 1 is black
    return Samples(values.astype(np.uint8 if white < 256 else np.uint16, copy=False), white)


def _raw(data: bytes, place: int, shape: tuple[int, int, int], white: int, bits: bool) -> np.ndarray:
    height, width, channels = shape
    row = (width + 7) // 8 if bits else width * channels * (1 if white < 256 else 2)
    if len(data) < place + row * height:
        raise ImageError("the PNM file is truncated: it ends before its last pixel")
    if re.match(rb"\s*P[1-6]\s", data[place + row * height : place + row * height + 64]):
        raise ImageError("the PNM file holds several images; save each as a file of its own")
    body = np.frombuffer(data, np.uint8, row * height, place)
    if bits:
        return np.unpackbits(body.reshape(height, row), axis=1, count=width).reshape(shape)
    return body.reshape(shape) if white < 256 else body.view(">u2").reshape(shape).astype(np.uint16)


def _plain(text: bytes, shape: tuple[int, int, int], bits: bool) -> np.ndarray:
    text = _COMMENT.sub(b"", text)
    if _NO_NUMBERS.search(text):
        raise ValueError("something else than whole numbers among its pixels")
    count = shape[0] * shape[1] * shape[2]
    if bits:  # digits of bits may stand without a space between
        digits = np.frombuffer(b"".join(text.split()), np.uint8) - ord("0")
    else:
        digits = np.fromstring(text.decode("ascii"), np.int64, sep=" ")
    if len(digits) < count:
        raise ImageError("the PNM file is truncated: it ends before its last pixel")
    if len(digits) > count:
        raise ValueError(f"{len(digits)} numbers where {count} were expected")
    return digits.reshape(shape)
