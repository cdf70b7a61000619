"""A heat map laid over its image, on a scale that is the same for every image."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from matplotlib import colormaps
from numpy.typing import NDArray
from PIL import Image

from raydiff.errors import DataError

# Perceptually even and readable with every kind of colour blindness; its dark end stays invisible because
# weak heat is transparent.
_COLOURS = colormaps["plasma"]
OPACITY = 0.75  # of full heat: the defect stays visible below it
_COMPRESSION = 3  # of a layer's PNG: half the time of Pillow's own 6
_PIXELS_A_SIDE = 64  # a map is thinned to this before its quantiles are taken


def overlay(image: NDArray[np.uint8], anomaly_map: NDArray[np.float32], low: float, high: float) -> NDArray[np.uint8]:
    """Lay an anomaly map over its image: nothing at or below `low`, full heat at or above `high`.

    The ends of the scale are the caller's (a calibration's `colour_scale`, or `map_scale`), never this image's own:
    a normal image, scaled by itself, would light up somewhere. Opacity grows with the heat, so normal areas stay
    as they are. NaN gets no heat.

    Args:
        image: (H, W, 3).
        anomaly_map: (H, W), higher = more anomalous.

    Returns:
        (H, W, 3), a new array.

    Raises:
        DataError: if the map is not as large as the image.
    """
    if anomaly_map.shape != image.shape[:2]:
        raise DataError(f"the anomaly map is {anomaly_map.shape} and its image {image.shape[:2]}; resize the map first")
    heat = _heat(anomaly_map, low, high)
    colour = _COLOURS(heat)[..., :3] * 255.0
    opacity = (OPACITY * heat)[..., None]
    return np.rint((1.0 - opacity) * image + opacity * colour).astype(np.uint8)


def layer(anomaly_map: NDArray[np.float32], low: float, high: float) -> bytes:
    """An anomaly map as a PNG picture of its own, to be laid over its image: at an opacity of OPACITY it is `overlay`.

    Nothing at or below `low`, full heat, which nothing shines through, at or above `high`; 255 steps between them, so
    that a pixel takes a byte.

    Args:
        anomaly_map: (H, W), higher = more anomalous.
    """
    steps = np.linspace(0.0, 1.0, 256)
    picture = Image.fromarray(np.rint(255.0 * _heat(anomaly_map, low, high)).astype(np.uint8))
    picture.putpalette(np.rint(255.0 * _COLOURS(steps)[:, :3]).astype(np.uint8).tobytes())
    sink = io.BytesIO()
    opacity = np.rint(255.0 * steps).astype(np.uint8).tobytes()
    picture.save(sink, "PNG", transparency=opacity, compress_level=_COMPRESSION)
    return sink.getvalue()


def lifted(laid: NDArray[np.uint8], below: NDArray[np.uint8], image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The heat of an overlay as an opaque picture, to be laid over an image: at an opacity of OPACITY it is as it was.

    So it can be shown at any strength, the full one included, as a `layer` can.

    Args:
        laid: (H, W, 3), what `overlay` has made.
        below: (H, W, 3), what it was laid over: the image as the network saw it, which may be blurred.
        image: (H, W, 3), what it is to be laid over.

    Returns:
        (H, W, 3): of pixels without heat the image's.
    """
    heat = (laid.astype(np.float32) - below) / OPACITY
    return np.rint(np.clip(image + heat, 0.0, 255.0)).astype(np.uint8)


def map_scale(normal_maps: Sequence[NDArray[np.float32]]) -> tuple[float, float]:
    """Ends of a colour scale (low, high) from some maps of normal images of one category, for want of a calibration.

    `low` is the 90 % quantile of their pixels and `high` lies twice as far above it as their 99.9 % quantile:
    nine tenths of a normal image stay clear, its hottest spots reach about half heat, and full heat means a
    value that normal images do not have.

    Raises:
        DataError: if there is no map, or no number in them.
    """
    pixels = np.concatenate([_thinned(each) for each in normal_maps]) if normal_maps else np.empty(0)
    pixels = pixels[np.isfinite(pixels)]
    if not len(pixels):
        raise DataError("a colour scale needs at least one anomaly map with numbers in it")
    low, top = (float(value) for value in np.quantile(pixels, [0.9, 0.999]))
    return low, low + 2.0 * (top - low)


def _heat(anomaly_map: NDArray[np.float32], low: float, high: float) -> NDArray[np.float32]:
    """(H, W) from 0 at `low` to 1 at `high`; 0 where the map has no number."""
    width = max(high - low, float(np.finfo(np.float32).tiny))
    return np.clip((np.nan_to_num(anomaly_map.astype(np.float32), nan=low) - low) / width, 0.0, 1.0)


def _thinned(anomaly_map: NDArray[np.float32]) -> NDArray[np.float32]:
    rows, columns = (max(1, size // _PIXELS_A_SIDE) for size in anomaly_map.shape)
    return anomaly_map[::rows, ::columns].ravel()
