"""Anomaly maps on disk: one float32 TIFF an image, as MVTec's evaluation code reads them."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterable
from typing import Any

import numpy as np
from PIL import Image, TiffImagePlugin

from raydiff import storage
from raydiff.errors import DataError

_BITS_PER_SAMPLE, _COMPRESSION, _STRIP_OFFSETS, _STRIP_SIZES, _SAMPLE_FORMAT = 258, 259, 273, 279, 339
_FLOAT = 3
_STRIP = 2**20  # bytes, of a map that is written in strips
_TYPES = {"<u2": 3, "<u4": 4, "<u8": 16}
_LARGEST = 2**32  # bytes of a file with places of 32 bits; larger ones are BigTIFF


def write_map(uri: str, anomaly_map: np.ndarray) -> None:
    """Write an anomaly map (H, W), higher = more anomalous, as a single-page, uncompressed float32 TIFF.

    Raises:
        StorageError: if it cannot be written.
    """
    assert anomaly_map.ndim == 2, f"an anomaly map is (H, W), not {anomaly_map.shape}"
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(anomaly_map, dtype=np.float32)).save(buffer, format="TIFF")
    storage.write_bytes(uri, buffer.getvalue())


def write_map_rows(uri: str, rows: Iterable[np.ndarray], height: int, width: int) -> None:
    """As `write_map`, of a map (H, W) that comes in bands of rows, in strips; above 4 GB a BigTIFF.

    Raises:
        StorageError: if it cannot be written; what the rows raise is raised as it is. Nothing of it is left then.
    """
    with storage.written(uri) as write:
        write(_head(height, width))
        for band in rows:
            write(np.ascontiguousarray(band, dtype="<f4").tobytes())


def _head(height: int, width: int) -> bytes:
    """All of a map's file that stands before its pixels, which follow row by row."""
    row = 4 * width
    step = min(height, max(1, _STRIP // row))  # rows of a strip
    count = -(-height // step)
    big = height * row + 2**12 + 16 * count >= _LARGEST
    pointer = "<u8" if big else "<u4"
    room = np.dtype(pointer).itemsize
    tops = np.arange(count) * step
    sizes = np.minimum(height - tops, step) * row
    tags: dict[int, tuple[str, Any]] = {
        256: ("<u4", width),
        257: ("<u4", height),
        _BITS_PER_SAMPLE: ("<u2", 32),
        _COMPRESSION: ("<u2", 1),
    }
    tags |= {262: ("<u2", 1), _STRIP_OFFSETS: (pointer, tops * row), 277: ("<u2", 1), 278: ("<u4", step)}
    tags |= {_STRIP_SIZES: (pointer, sizes), _SAMPLE_FORMAT: ("<u2", _FLOAT)}
    begin = 16 if big else 8
    behind = begin + (8 if big else 2) + len(tags) * (4 + 2 * room) + room  # the directory, which comes first
    lists = 2 * count * room if count > 1 else 0
    entries, values = b"", b""
    for tag, (kind, value) in tags.items():
        numbers = np.atleast_1d(value) + (behind + lists if tag == _STRIP_OFFSETS else 0)
        packed = numbers.astype(kind).tobytes()
        inside = len(packed) <= room
        place = (behind + len(values)).to_bytes(room, "little")
        entries += struct.pack("<HH", tag, _TYPES[kind]) + len(numbers).to_bytes(room, "little")
        entries += packed.ljust(room, b"\0") if inside else place
        values += b"" if inside else packed
    mark = struct.pack("<2sHHHQ", b"II", 43, 8, 0, begin) if big else struct.pack("<2sHI", b"II", 42, begin)
    return mark + len(tags).to_bytes(8 if big else 2, "little") + entries + bytes(room) + values


def read_map(uri: str) -> np.ndarray:
    """An anomaly map (H, W), float32.

    Raises:
        StorageError: if it cannot be read.
        DataError: if it is damaged, or not a map as it is written here.
    """
    data = storage.read_bytes(uri)
    try:
        header = TiffImagePlugin.TiffImageFile(io.BytesIO(data))
        width, height = header.size
        kind = tuple(header.tag_v2.get(tag) for tag in (_BITS_PER_SAMPLE, _SAMPLE_FORMAT, _COMPRESSION))
        if kind != ((32,), (_FLOAT,), 1) or header.n_frames != 1:
            raise ValueError("it is not one page of one uncompressed float32 a pixel")
        offsets, sizes = (np.array(header.tag_v2[tag]) for tag in (_STRIP_OFFSETS, _STRIP_SIZES))
        if (offsets[1:] != (offsets + sizes)[:-1]).any():
            raise ValueError("its strips do not lie one behind the other")
        # Taken from the file as they lie there: Pillow's own reader has a limit of pixels.
        values = np.frombuffer(data, "<f4" if data[:2] == b"II" else ">f4", width * height, int(offsets[0]))
    except Exception as error:  # a damaged file can raise anything
        raise DataError(f"{uri} is not a readable anomaly map: {error}; score with maps again") from None
    return values.reshape(height, width).astype(np.float32)
