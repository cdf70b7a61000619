"""Anomaly maps on disk: one float32 TIFF an image, as MVTec's evaluation code reads them."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image, TiffImagePlugin

from raydiff import storage
from raydiff.errors import DataError

_BITS_PER_SAMPLE, _COMPRESSION, _STRIP_OFFSETS, _SAMPLE_FORMAT = 258, 259, 273, 339
_FLOAT = 3


def write_map(uri: str, anomaly_map: np.ndarray) -> None:
    """Write an anomaly map (H, W), higher = more anomalous, as a single-page, uncompressed float32 TIFF.

    Raises:
        StorageError: if it cannot be written.
    """
    assert anomaly_map.ndim == 2, f"an anomaly map is (H, W), not {anomaly_map.shape}"
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(anomaly_map, dtype=np.float32)).save(buffer, format="TIFF")
    storage.write_bytes(uri, buffer.getvalue())


def read_map(uri: str) -> np.ndarray:
    """An anomaly map (H, W), float32.

    Raises:
        StorageError: if it cannot be read.
        DataError: if it is damaged, or not a map as `write_map` writes it.
    """
    data = storage.read_bytes(uri)
    try:
        header = TiffImagePlugin.TiffImageFile(io.BytesIO(data))
        width, height = header.size
        kind = tuple(header.tag_v2.get(tag) for tag in (_BITS_PER_SAMPLE, _SAMPLE_FORMAT, _COMPRESSION))
        if kind != ((32,), (_FLOAT,), 1) or header.n_frames != 1:
            raise ValueError("it is not one page of one uncompressed float32 a pixel")
        (offset,) = header.tag_v2[_STRIP_OFFSETS]
        # Taken from the file as they lie there: Pillow's own reader has a limit of pixels.
        values = np.frombuffer(data, "<f4" if data[:2] == b"II" else ">f4", width * height, offset)
    except Exception as error:  # a damaged file can raise anything
        raise DataError(f"{uri} is not a readable anomaly map: {error}; score with maps again") from None
    return values.reshape(height, width).astype(np.float32)
