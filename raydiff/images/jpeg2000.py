"""JPEG 2000: files (JP2) and bare codestreams, of 1 to 16 bits."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace

from PIL import Jpeg2KImagePlugin

from raydiff.errors import ImageError
from raydiff.images import pillow
from raydiff.images.samples import Samples, check_size

CODESTREAM = b"\xff\x4f\xff\x51"
_CODING, _TILE_PART, _END = 0xFF52, 0xFF90, 0xFFD9
_SRGB, _GREY, _SYCC = 16, 17, 18
_OPACITY = 1


@dataclass(frozen=True)
class _Stream:
    """What a codestream says of its pixels."""

    width: int
    height: int
    tiles: int
    bits: tuple[int, ...]  # of each channel
    signed: bool
    subsampled: bool


def read(data: bytes, max_pixels: int) -> Samples:
    """The pixels of a JPEG 2000 file.

    Raises:
        ImageError: if it is larger than `max_pixels`, truncated, or of a variety that is not read.
        Exception: of any kind, if it is damaged.
    """
    start, colours, channels = (0, 0, b"") if data.startswith(CODESTREAM) else _file(data)
    stream = _stream(data, start)
    check_size(stream.width, stream.height, max_pixels)
    _check(stream, colours, channels, bare=start == 0)
    reversible = _check_whole(data, start, stream)
    image = Jpeg2KImagePlugin.Jpeg2KImageFile(io.BytesIO(data))
    if image.size != (stream.width, stream.height):
        raise ValueError(f"its header says {image.size[0]} x {image.size[1]} pixels and its codestream another size")
    image.load()
    found = pillow.samples(image, blurred=not reversible)
    own = stream.bits[0]
    room = 16 if found.white == 65535 else 8
    if own >= room:
        return replace(found, reduced_from=own if own > room else 0)
    # Pillow moves what it reads to the top of its bytes
    colours_ = found.colours >> (room - own)
    alpha = None if found.alpha is None else found.alpha >> (room - own)
    white = 2**own - 1
    return replace(found, colours=colours_, white=white, alpha=alpha, opaque=white)


def _file(data: bytes) -> tuple[int, int, bytes]:
    """Where the codestream begins, the colour space (0: a profile's) and the definition of channels."""
    colours, channels, inner = 0, b"", (0, 0)
    boxes = _boxes(data, 0, len(data))
    for name, begin, end in boxes:
        if name == b"jp2h":
            inner = begin, end
        if name == b"jp2c":
            break
    else:
        raise ValueError("there is no codestream in it")
    for kind, at, stop in _boxes(data, *inner):
        if kind == b"pclr":
            raise ImageError("the JPEG 2000 file has a palette, which is not read; save it as grey or RGB")
        if kind == b"colr" and data[at] == 1:
            (colours,) = struct.unpack_from(">I", data, at + 3)
        if kind == b"cdef":
            channels = data[at:stop]
    return begin, colours, channels


def _boxes(data: bytes, place: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Name, beginning and end of the content of each box."""
    while place + 8 <= end:
        size, name = struct.unpack_from(">I4s", data, place)
        head = 8
        if size == 1:
            (size,) = struct.unpack_from(">Q", data, place + 8)
            head = 16
        stop = end if size == 0 else place + size
        if stop < place + head:
            raise ValueError("a box that is shorter than its header")
        yield name, place + head, min(stop, end)
        place = stop


def _stream(data: bytes, start: int) -> _Stream:
    if not data.startswith(CODESTREAM, start):
        raise ValueError("there is no codestream in it")
    _, _, right, bottom, left, top, across, down, tiles_left, tiles_top, channels = struct.unpack_from(
        ">HHIIIIIIIIH", data, start + 4
    )
    each = [struct.unpack_from(">BBB", data, start + 42 + 3 * channel) for channel in range(channels)]
    if not across or not down:
        raise ValueError("tiles without pixels")
    tiles = -(-(right - tiles_left) // across) * -(-(bottom - tiles_top) // down)
    return _Stream(
        right - left,
        bottom - top,
        tiles,
        tuple((depth & 0x7F) + 1 for depth, _, _ in each),
        any(depth & 0x80 for depth, _, _ in each),
        any((x, y) != (1, 1) for _, x, y in each),
    )


def _check(stream: _Stream, colours: int, channels: bytes, bare: bool) -> None:
    def refuse(what: str) -> None:
        raise ImageError(f"the JPEG 2000 file holds {what}, which is not read; save it as grey or RGB")

    count = len(stream.bits)
    if stream.width < 0 or stream.height < 0:
        raise ValueError("a picture of negative size")
    if count not in (1, 2, 3, 4) or (bare and count in (2, 4)):
        refuse(f"{count} channels of unknown meaning" if count in (2, 4) else f"{count} channels")
    if stream.signed:
        refuse("signed numbers")
    if len(set(stream.bits)) > 1 or stream.bits[0] > 16:
        refuse(f"channels of {', '.join(map(str, stream.bits))} bits")
    known = (_GREY,) if count < 3 else (_SRGB, _SYCC)
    if colours and colours not in known:
        refuse(f"{count} channels of colour space {colours}")
    if stream.subsampled and colours != _SYCC:
        refuse("channels of several sizes")
    if channels or count in (2, 4):
        meant = [struct.unpack_from(">HHH", channels, at) for at in range(2, len(channels) - 5, 6)]
        plain = [(number, 0, number + 1) for number in range(count - (count in (2, 4)))]
        alpha = [(count - 1, _OPACITY, 0)] if count in (2, 4) else []
        if sorted(meant) != plain + alpha:
            refuse(f"{count} channels of unusual meaning")


def _check_whole(data: bytes, start: int, stream: _Stream) -> bool:
    """Whether it is reversible; raises ImageError if a tile is missing, which OpenJPEG would show as black."""
    place, reversible, seen = start + 2, False, set()
    try:
        while True:
            marker, size = struct.unpack_from(">HH", data, place)
            if marker == _CODING:
                reversible = data[place + 13] == 1
            if marker == _TILE_PART:
                tile, length = struct.unpack_from(">HI", data, place + 4)
                seen.add(tile)
                # a length of 0 goes to the end
                place = place + length if length else data.rindex(b"\xff\xd9", place)
                if struct.unpack_from(">H", data, place)[0] == _END:
                    break
            else:
                place += 2 + size
    except (struct.error, ValueError, IndexError):
        raise ImageError("the JPEG 2000 file is truncated: it ends before its last pixel") from None
    if len(seen) != stream.tiles:
        raise ImageError(f"the JPEG 2000 file is truncated: of its {stream.tiles} tiles there are {len(seen)}")
    return reversible
