"""JPEG files: which kinds are read, and whether all of a picture is there."""

from __future__ import annotations

import hashlib
import io
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from PIL import JpegImagePlugin

from raydiff.errors import ImageError
from raydiff.images import pillow
from raydiff.images.samples import LYING, Samples, check_size
from raydiff.views import Reduction

_SOF = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}  # frame headers; the three are tables
_SEQUENTIAL, _PROGRESSIVE, _ARITHMETIC = {0xC0, 0xC1}, {0xC2}, {0xC9, 0xCA}
_SOS, _END, _ADOBE, _JFIF = 0xDA, b"\xff\xd9", 0xEE, 0xE0
_MARKER = re.compile(rb"\xff+([\x01-\xcf\xd8-\xfe])")  # no stuffed byte, no restart
_RESTART = re.compile(rb"\xff[\xd0-\xd7]")
_INTERVAL = b"\xff\xdd"  # begins the segment that says after how many blocks there is a restart
# Bytes that could come behind an incomplete file's last one.
_TAILS = tuple(hashlib.sha256(bytes([number])).digest().replace(b"\xff", b"\0") for number in range(8))
_SMALL = 2**14  # pixels; so many are decoded again in no time
NO_END = "the JPEG lacks its end marker, but none of its pixels"
_MOST_SCANS = 200  # of a progressive picture; sound ones have some ten, each costs a pass over all pixels


@dataclass(frozen=True)
class Frame:
    """What stands before the pixels."""

    kind: int
    bits: int
    height: int
    width: int
    components: int
    adobe: int | None  # its mark's colour transform; None = no mark
    jfif: bool
    scan: int  # where the first scan begins
    scans: bool  # whether there must be more of them


def read(data: bytes, max_pixels: int, reduction: Reduction | None = None) -> Samples:
    """The pixels of a JPEG file, of several pictures (MPO) the first.

    A file that lacks its end marker is read if all pixels are there. So that this can be told, whatever comes behind
    the last byte of the pixels is tried: if other bytes make another picture, then there was something missing.

    Args:
        reduction: by how much it may be unpacked smaller. Files that only their whole picture tells to be complete
            (no end marker, progressive or of several scans, small) are not.

    Raises:
        ImageError: if it is larger than `max_pixels`, of a kind that is not read, or incomplete.
        Exception: of any kind, if it is damaged.
    """
    frame = find_frame(data)
    check_size(frame.width, frame.height, max_pixels)
    _check_kind(frame)
    if frame.kind in _PROGRESSIVE and data.count(b"\xff\xda", frame.scan) > _MOST_SCANS:
        raise ImageError(f"the JPEG has more than {_MOST_SCANS} scans; save it as a plain one")
    if frame.components == 4 and frame.adobe is None:
        raise ImageError("the JPEG has four channels and no mark of what they mean; save it as RGB")
    _check_restarts(data, frame)
    end = data.find(_END, frame.scan)
    whole = data if end >= 0 else _bare(data) + _END
    small = frame.width * frame.height <= _SMALL
    plain = end >= 0 and frame.kind in _SEQUENTIAL and not frame.scans and not small
    by = _reduced_by(whole, frame, reduction) if reduction and plain else 1
    image = _load(whole, by)
    if end < 0:
        _check_whole(whole[:-2], frame, image, _TAILS)
    elif small:
        _check_whole(data[:end], frame, image, _TAILS[:3])
    elif frame.kind in _PROGRESSIVE or frame.scans:
        _check_whole(data[:end], frame, image, _TAILS[:1])
    elif frame.kind in _SEQUENTIAL and _grey_end(image, 8 // by):
        _check_whole(data[:end], frame, _load(data, light=True), _TAILS[:1], light=True)
    note, size = "" if end >= 0 else NO_END, (frame.height, frame.width)
    return replace(pillow.samples(image, blurred=True), note=note, reduced_by=by, size=size)


def find_frame(data: bytes) -> Frame:
    """The frame header and what comes before the first scan.

    Raises:
        ValueError: if there is none.
    """
    adobe, jfif, found = None, False, None
    for marker, body, place in _segments(data, 2):
        if marker in _SOF and found is None:
            bits, height, width, components = struct.unpack_from(">BHHB", body)
            found = (marker, bits, height, width, components)
        elif marker == _ADOBE and body[:5] == b"Adobe" and len(body) >= 12:
            adobe = body[11]
        elif marker == _JFIF and body[:4] == b"JFIF":
            jfif = True
        elif marker == _SOS:
            if found is None:
                break
            return Frame(*found, adobe, jfif, place, body[0] < found[4])
    raise ValueError("there is no picture in it")


def segment_samples(data: bytes, tables: bytes, colours: str, width: int, rows: int) -> np.ndarray:
    """One strip or tile of a TIFF: uint8 (rows, width, channels), YCbCr as RGB, everything else as it is stored.

    Args:
        tables: the TIFF's JPEGTables, or nothing.
        colours: "grey", "RGB", "CMYK" or "YCbCr", as the TIFF says.

    Raises:
        ImageError: if the stream is of another size or kind than the TIFF says.
        Exception: of any kind, if it is damaged.
    """
    frame = find_frame(data)
    _check_kind(frame)
    if (frame.width, frame.height) != (width, rows):
        raise ImageError(
            f"the TIFF has a JPEG of {frame.width} x {frame.height} pixels where {width} x {rows} were expected; "
            "save it with another compression"
        )
    _check_restarts(data, frame)
    channels = {"grey": 1, "RGB": 3, "YCbCr": 3, "CMYK": 4}[colours]
    marked = {0: "RGB", 1: "YCbCr"}.get(frame.adobe, "") if frame.adobe is not None else "YCbCr" if frame.jfif else ""
    if frame.components != channels or (channels == 3 and marked not in ("", colours)) or frame.adobe == 2:
        raise ImageError(f"the TIFF says that its JPEG holds {colours} and the JPEG says otherwise; save it as RGB")
    mark = b"\xff\xee\x00\x0eAdobe\0\x64\0\0\0\0" + bytes([colours == "YCbCr"])
    kept = b"".join(
        b"\xff" + bytes([marker]) + struct.pack(">H", len(body) + 2) + body
        for marker, body, place in _segments(data, 2, frame.scan)
        if not 0xE0 <= marker <= 0xEF
    )
    inner = tables[2:-2] if tables.endswith(_END) else tables[2:]
    rest = data[frame.scan :]
    image = _load(data[:2] + mark + inner + kept + rest + (b"" if rest.rstrip(b"\0").endswith(_END) else _END))
    values = np.asarray(image)
    if colours == "CMYK":
        values = ~values  # Pillow takes every CMYK for inverted
    return values.reshape(rows, width, channels)


def _check_kind(frame: Frame) -> None:
    if frame.kind in _ARITHMETIC:  # few programs read it, and what is missing of one cannot be told
        raise ImageError("the JPEG is an arithmetic-coded one, which is not read; save it as a plain one")
    if frame.kind not in _SEQUENTIAL | _PROGRESSIVE:
        raise ImageError("the JPEG is a lossless or hierarchical one, which are not read; save it as PNG")
    if frame.bits != 8:
        raise ImageError(f"the JPEG has {frame.bits} bits a channel, and 8 are read; save it as 16-bit PNG or TIFF")


def _reduced_by(data: bytes, frame: Frame, reduction: Reduction) -> int:
    """What `reduction` says of the picture as it is upright."""
    height, width = frame.height, frame.width
    lies = pillow.orientation(JpegImagePlugin.JpegImageFile(io.BytesIO(data))) in LYING
    return reduction(width, height) if lies else reduction(height, width)


def _load(data: bytes, by: int = 1, light: bool = False) -> JpegImagePlugin.JpegImageFile:
    """Unpacked smaller by 1, 2, 4 or 8; `light`: the brightness of each block alone, in a quarter of the time."""
    image = JpegImagePlugin.JpegImageFile(io.BytesIO(data))
    if light:
        image.draft("L" if image.mode == "RGB" else None, (1, 1))
    elif by > 1:
        image.draft(None, (image.width // by, image.height // by))
    image.load()
    return image


def _grey_end(image: JpegImagePlugin.JpegImageFile, block: int) -> bool:
    """Whether the last block, of `block` pixels a side, is of the middle grey that libjpeg gives, in silence, to blocks
    without data.
    """
    width, height = image.size
    left, top = (max((size - 1) // block * block, size - 2) for size in (width, height))
    corner = np.asarray(image.crop((left, top, width, height)).convert("L"), np.int16)
    return bool((abs(corner - 128) <= 1).all())


def _bare(data: bytes) -> bytes:
    """A file without end marker less what is no pixel: zeros that were allocated and not written, half a marker."""
    bare = data.rstrip(b"\0")
    if not bare.endswith(b"\xff"):
        return bare
    return bare + b"\0" if len(bare) < len(data) else bare[:-1]  # 0xFF 0x00 is a byte of the pixels


def _check_whole(
    bare: bytes, frame: Frame, image: JpegImagePlugin.JpegImageFile, tails: tuple[bytes, ...], light: bool = False
) -> None:
    """Raises ImageError unless all that `image` shows is in `bare`, the file up to its end marker."""
    scans = [(body, place) for marker, body, place in _segments(bare, frame.scan) if marker == _SOS]
    whole = _all_scans(frame, [body for body, _ in scans])
    last = _RESTART.findall(bare, scans[-1][1])[-1:]
    restart = b"\xff" + bytes([0xD0 + (last[0][1] - 0xD0 + 1) % 8 if last else 0xD0])
    pixels = np.asarray(image)
    for tail in tails if whole else ():
        other = _load(bare + tail + restart + tail + _END, light=light)
        whole = whole and np.array_equal(np.asarray(other), pixels)
    if not whole:
        raise ImageError("the JPEG file is truncated: it ends before its last pixel")


def _check_restarts(data: bytes, frame: Frame) -> None:
    """Raises ImageError if intervals between restart markers are missing: what is behind them would move up.

    The markers count 0 to 7 and around (T.81, F.1.2.3), one between two intervals; some cameras write one more.
    """
    if _INTERVAL not in data:
        return
    sampling: dict[int, tuple[int, int]] = {}
    interval, end = 0, data.find(_END, frame.scan)
    for marker, body, place in _segments(data, 2, end if end >= 0 else None):
        if marker in _SOF:
            sampling = {body[at]: (body[at + 1] >> 4, body[at + 1] & 15) for at in range(6, len(body) - 2, 3)}
        elif marker == _INTERVAL[1]:
            interval = int.from_bytes(body, "big")
        elif marker == _SOS:
            ends = _MARKER.search(data, place + 4 + len(body))
            found = _RESTART.findall(data, place + 4 + len(body), ends.start() if ends else len(data))
            in_turn = all(mark[1] == 0xD0 + number % 8 for number, mark in enumerate(found))
            blocks = _blocks(frame, sampling, body[1 : 1 + 2 * body[0] : 2])
            between = -(-blocks // interval) - 1 if interval else 0
            if interval and not (in_turn and between <= len(found) <= between + 1):
                raise ImageError(
                    f"the JPEG file is damaged: of the {between} restart markers of a scan there are {len(found)}, "
                    f"{'in turn' if in_turn else 'and not in turn'}, so parts of the picture are lost"
                )


def _blocks(frame: Frame, sampling: dict[int, tuple[int, int]], components: bytes) -> int:
    """How many units a scan has: blocks of all its components together, or of the only one (T.81, A.2)."""
    most = [max(factors) for factors in zip(*sampling.values(), strict=True)]
    sides = (frame.width, frame.height)
    if len(components) > 1:
        wide, high = (-(-side // (8 * whole)) for side, whole in zip(sides, most, strict=True))
    else:  # of one alone its own pixels count
        own = [-(-side * part // whole) for side, part, whole in zip(sides, sampling[components[0]], most, strict=True)]
        wide, high = (-(-side // 8) for side in own)
    return wide * high


def _all_scans(frame: Frame, scans: list[bytes]) -> bool:
    """Whether every component had all its coefficients, from their first bits to their last one (T.81, G.1.1.1)."""
    to_come: dict[int, list[int | None]] = {}  # bits of each coefficient; None before its first scan
    for body in scans:
        first, last, high, low = body[-3], body[-2], body[-1] >> 4, body[-1] & 15
        if frame.kind in _SEQUENTIAL:
            first, last, high, low = 0, 63, 0, 0
        for component in body[1 : 1 + 2 * body[0] : 2]:
            bits = to_come.setdefault(component, [None] * 64)
            if high and any(bit != high for bit in bits[first : last + 1]):
                return False
            bits[first : last + 1] = [low] * (last + 1 - first)
    return len(to_come) == frame.components and not any(bit != 0 for bits in to_come.values() for bit in bits)


def _segments(data: bytes, place: int, stop: int | None = None) -> Iterator[tuple[int, bytes, int]]:
    """Marker, content and beginning of the segments from `place` on; entropy-coded bytes between them are skipped."""
    stop = len(data) if stop is None else stop
    while (found := _MARKER.search(data, place)) and found.start() < stop:
        marker = found[1][0]
        place = found.end()
        if marker in (0x01, 0xD8, 0xD9):
            continue
        if place + 2 > len(data):
            return
        size = int.from_bytes(data[place : place + 2], "big")
        yield marker, data[place + 2 : place + size], found.start()
        place += max(size, 2)
