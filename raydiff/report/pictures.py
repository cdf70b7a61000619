"""Small pictures for a page: an image, and the same with its heat map and the true defect's outline."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from raydiff import storage
from raydiff.errors import RaydiffError
from raydiff.images import pages
from raydiff.images.decode import MAX_PIXELS, decode
from raydiff.images.encoded import jpeg
from raydiff.images.levels import Levels
from raydiff.images.masks import read_mask
from raydiff.images.overlay import overlay
from raydiff.images.pages import File
from raydiff.images.small import small
from raydiff.scoring.maps import read_map

THUMBNAIL = 256  # longest side, pixels
_JPEG_QUALITY = 82


class Pictures(NamedTuple):
    """JPEG bytes; None where there is nothing to show."""

    image: bytes | None
    heat: bytes | None  # the image with its heat map and the true mask's outline, as far as they exist
    problem: str | None  # why a picture is missing


def pictures(
    row: Mapping[str, Any],
    scale: tuple[float, float] | None,
    levels: Levels | None = None,
    max_pixels: int = MAX_PIXELS,
    side: int = THUMBNAIL,
    fetch: Callable[[str], File] = pages.read,
) -> Pictures:
    """The pictures of one image. What cannot be read is no error: it is said why.

    Args:
        row: of a score table: `uri`, `map_uri` (its anomaly map, or the picture of its heat map), `mask_uri`, and what
            it says of how the image is read.
        scale: ends of the map's colours; None where there is none, and so no heat.
        levels: the model's, which stored values are black and white.
        side: the longest of a picture, pixels.
        fetch: what fetches an image's file by its URI.
    """
    try:
        shown = np.asarray(small(row, side, levels, max_pixels, fetch).picture)
    except RaydiffError as error:
        return Pictures(None, None, str(error))
    height, width = shown.shape[:2]
    map_uri, mask_uri = row.get("map_uri"), row.get("mask_uri")
    heat, problem = shown, None
    try:
        if map_uri and map_uri.endswith(".png"):  # laid over its image already
            laid = Image.fromarray(decode(storage.read_bytes(map_uri)))
            heat = np.asarray(laid.resize((width, height), Image.Resampling.BOX))
        elif map_uri and scale:
            heat = overlay(heat, resize_map(read_map(map_uri), width, height), *scale)
        if mask_uri:
            heat = outline(heat, read_mask(mask_uri))
    except RaydiffError as error:
        problem = str(error)
    return Pictures(_jpeg(shown), _jpeg(heat) if heat is not shown else None, problem)


def outline(image: NDArray[np.uint8], mask: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """The image (H, W, 3) with a white line, black outside, around the true defect.

    The mask may have another size; a defect smaller than a pixel of the image still gets its line.
    """
    height, width = image.shape[:2]
    share = Image.fromarray(mask.astype(np.float32)).resize((width, height), Image.Resampling.BOX)
    inside = ndimage.binary_dilation(np.asarray(share) > 0)
    drawn = image.copy()
    drawn[ndimage.binary_dilation(inside, iterations=2) & ~inside] = 0
    drawn[ndimage.binary_dilation(inside) & ~inside] = 255
    return drawn


def resize_map(anomaly_map: NDArray[np.float32], width: int, height: int) -> NDArray[np.float32]:
    """An anomaly map at another size."""
    resized = Image.fromarray(anomaly_map).resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(resized, dtype=np.float32)


def _jpeg(image: NDArray[np.uint8]) -> bytes:
    return jpeg(Image.fromarray(image), _JPEG_QUALITY)
