"""Writers of image files for the decoder's tests, by hand and to the formats' letters, so that no reader judges itself.

Each takes the samples as they are to be stored; none knows how they will look.
"""

from __future__ import annotations

import lzma
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import imagecodecs
import numpy as np

CODECS: dict[str, tuple[int, Callable[[bytes], bytes]]] = {
    "none": (1, bytes),
    "lzw": (5, imagecodecs.lzw_encode),
    "deflate": (8, zlib.compress),
    "old deflate": (32946, zlib.compress),
    "packbits": (32773, bytes),  # row by row, below
    "lzma": (34925, lzma.compress),
    "zstd": (50000, imagecodecs.zstd_encode),
}
LETTER = {1: "u", 2: "i", 3: "f"}


@dataclass(frozen=True)
class Tiff:
    """One page of a TIFF 6.0 file. `samples`: (height, width, samples a pixel), in the values' own type."""

    samples: np.ndarray
    bits: int = 8
    photometric: int = 1
    sample_format: int = 1  # 1 unsigned, 2 signed, 3 float
    extra: tuple[int, ...] = ()
    colour_map: tuple[int, ...] = ()
    planar: bool = False
    codec: str = "none"
    predictor: int = 1
    order: str = "<"
    big: bool = False
    tile: int = 0  # width and height; 0 = strips of `rows`
    rows: int = 4
    jpeg: Callable[[np.ndarray], bytes] | None = None  # a segment's samples to a JPEG stream
    more: dict[int, tuple[str, tuple[Any, ...]]] = field(default_factory=dict)

    def with_(self, **changes: Any) -> Tiff:
        return replace(self, **changes)

    def segments(self) -> Iterator[bytes]:
        height, width, _ = self.samples.shape
        planes = np.moveaxis(self.samples, 2, 0)[..., None] if self.planar else self.samples[None]
        for plane in planes:
            if not self.tile:
                for top in range(0, height, self.rows):
                    yield self._segment(plane[top : top + self.rows])
                continue
            for top in range(0, height, self.tile):
                for left in range(0, width, self.tile):
                    part = plane[top : top + self.tile, left : left + self.tile]
                    below, beside = self.tile - part.shape[0], self.tile - part.shape[1]
                    yield self._segment(np.pad(part, ((0, below), (0, beside), (0, 0)), mode="edge"))

    def _segment(self, part: np.ndarray) -> bytes:
        if self.jpeg:
            return self.jpeg(part)
        rows = [self._row(row) for row in part]
        if self.codec == "packbits":
            return b"".join(imagecodecs.packbits_encode(row) for row in rows)
        return CODECS[self.codec][1](b"".join(rows))

    def _row(self, row: np.ndarray) -> bytes:
        """(width, channels) as stored: predicted, in the file's order, packed."""
        if self.bits < 8 or self.bits % 8 or self.bits == 24:
            shifts = np.arange(self.bits - 1, -1, -1)
            return np.packbits((row.reshape(-1, 1).astype(np.int64) >> shifts) & 1).tobytes()
        if self.predictor == 2:
            raw = row.view(f"u{row.dtype.itemsize}")
            raw = np.concatenate([raw[:1], raw[1:] - raw[:-1]])  # modulo 2**bits
            return raw.astype(raw.dtype.newbyteorder(self.order)).tobytes()
        if self.predictor == 3:  # TIFF technical note 3: bytes by significance, then differences of bytes
            size, channels = row.dtype.itemsize, row.shape[1]
            flat = np.frombuffer(row.astype(row.dtype.newbyteorder(">")).tobytes(), np.uint8).reshape(-1, size).T
            flat = np.ascontiguousarray(flat).reshape(-1)
            return np.concatenate([flat[:channels], flat[channels:] - flat[:-channels]]).tobytes()
        return row.astype(row.dtype.newbyteorder(self.order)).tobytes()

    def file(self) -> bytes:
        height, width, channels = self.samples.shape
        segments = list(self.segments())
        body = b"".join(segments)
        start = 16 if self.big else 8
        starts = tuple(start + sum(map(len, segments[:i])) for i in range(len(segments)))
        counts = tuple(map(len, segments))
        tags: dict[int, tuple[str, tuple[Any, ...]]] = {
            256: ("I", (width,)),
            257: ("I", (height,)),
            258: ("H", (self.bits,) * channels),
            259: ("H", (7 if self.jpeg else CODECS[self.codec][0],)),
            262: ("H", (self.photometric,)),
            277: ("H", (channels,)),
            284: ("H", (2 if self.planar else 1,)),
            339: ("H", (self.sample_format,) * channels),
        }
        if self.tile:
            tags |= {322: ("I", (self.tile,)), 323: ("I", (self.tile,)), 324: ("I", starts), 325: ("I", counts)}
        else:
            tags |= {273: ("I", starts), 278: ("I", (self.rows,)), 279: ("I", counts)}
        if self.predictor != 1:
            tags[317] = ("H", (self.predictor,))
        if self.extra:
            tags[338] = ("H", self.extra)
        if self.colour_map:
            tags[320] = ("H", self.colour_map)
        return assemble(body, [tags | self.more], self.order, self.big)


def assemble(body: bytes, pages: list[dict[int, tuple[str, tuple[Any, ...]]]], order: str, big: bool) -> bytes:
    """Header, `body`, and a directory a page with its values behind it."""
    types = {"B": 1, "s": 2, "H": 3, "I": 4, "Q": 16}
    pointer, room, entry_size = ("Q", 8, 20) if big else ("I", 4, 12)
    start = 16 if big else 8
    body += bytes(len(body) % 2)
    first = start + len(body)
    mark = b"II" if order == "<" else b"MM"
    head = mark + (struct.pack(order + "HHHQ", 43, 8, 0, first) if big else struct.pack(order + "HI", 42, first))
    out = head + body
    for page, tags in enumerate(pages):
        here, entries, values = len(out), b"", b""
        behind = here + (8 if big else 2) + entry_size * len(tags) + room
        for tag, (letter, numbers) in sorted(tags.items()):
            packed = struct.pack(order + letter * len(numbers), *numbers)
            if len(packed) > room:
                place = behind + len(values)
                values += packed + bytes(len(packed) % 2)
                packed = struct.pack(order + pointer, place)
            entries += struct.pack(order + "HH" + pointer, tag, types[letter], len(numbers)) + packed.ljust(room, b"\0")
        last = page == len(pages) - 1
        following = struct.pack(order + pointer, 0 if last else behind + len(values))
        out += struct.pack(order + ("Q" if big else "H"), len(tags)) + entries + following + values
    return out


def pack(row: np.ndarray, bits: int) -> bytes:
    """Whole numbers as bits, the most significant first, padded to a byte."""
    shifts = np.arange(bits - 1, -1, -1)
    return np.packbits((row.reshape(-1, 1).astype(np.int64) >> shifts) & 1).tobytes()


def png_chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(
    samples: np.ndarray, depth: int, colour_type: int, interlaced: bool = False, chunks: bytes = b"", after: bytes = b""
) -> bytes:
    """(height, width, channels) as a PNG. `chunks` and `after` come before and behind the pixels."""
    height, width, _ = samples.shape
    passes = [(0, 0, 1, 1)]
    if interlaced:  # Adam7: first row, first column, and the steps
        passes = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)]
    rows = b""
    for top, left, down, right in passes:
        part = samples[top::down, left::right]
        if part.shape[1]:
            rows += b"".join(b"\0" + pack(row, depth) for row in part)
    header = struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, int(interlaced))
    head = b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + chunks
    return head + png_chunk(b"IDAT", zlib.compress(rows)) + after + png_chunk(b"IEND", b"")


def bmp(
    rows: bytes,
    width: int,
    height: int,
    bits: int,
    compression: int = 0,
    header: int = 40,
    masks: tuple[int, ...] = (),
    palette: np.ndarray | None = None,
) -> bytes:
    """A BMP of rows that are already packed, padded and in the file's order. `height` < 0: top-down."""
    if header == 12:
        info = struct.pack("<IHHHH", 12, width, height, 1, bits)
    else:
        used = 0 if palette is None else len(palette)
        info = struct.pack("<IiiHHIIiiII", 40, width, height, 1, bits, compression, len(rows), 2835, 2835, used, 0)
        if header > 40:
            info += struct.pack("<IIII", *(masks + (0,) * 4)[:4])
            info += (b"BGRs" if header >= 108 else b"") + bytes(header)
            info = struct.pack("<I", header) + info[4:header]
        else:
            info += struct.pack(f"<{len(masks)}I", *masks)
    colours = b""
    if palette is not None:
        colours = b"".join(bytes(colour[::-1]) + (b"" if header == 12 else b"\0") for colour in palette.tolist())
    start = 14 + len(info) + len(colours)
    return b"BM" + struct.pack("<IHHI", start + len(rows), 0, 0, start) + info + colours + rows
