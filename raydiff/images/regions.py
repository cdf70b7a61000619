"""Regions of interest as users give them: a mask (white: look here) for all images, a category's, or an image's own."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa

from raydiff import storage
from raydiff.errors import DataError, ImageError, SettingsError, StorageError, StorageUnavailable
from raydiff.images import table
from raydiff.images.masks import read_mask
from raydiff.images.names import is_image
from raydiff.storage.patience import patiently
from raydiff.views import View, roi

KEPT = 16  # masks of single images in memory; many rows may name one


def regions(given: str) -> str | dict[str, str]:
    """What a view keeps (`View.roi`) of --roi: `auto`, a mask for all categories, or a folder of CATEGORY.png.

    Raises:
        SettingsError: if there is no mask, or one that cannot be read or marks nothing.
        StorageError: if its store does not answer.
    """
    if given == roi.AUTO:
        return given
    if not storage.is_folder(given):
        return {roi.ANY: roi.as_text(_marked(given))}
    masks = [uri for uri in storage.list_files(given) if is_image(storage.name(uri))]
    if not masks:
        raise SettingsError(f"--roi {given}: the folder holds no masks; name one CATEGORY.png for each category")
    return {os.path.splitext(storage.name(uri))[0]: roi.as_text(_marked(uri)) for uri in masks}


def check_regions(view: View, images: pa.Table) -> None:
    """Whether each category of an image table, whose images have none of their own, has a region in the view.

    Raises:
        DataError: naming those without one.
    """
    if not isinstance(view.roi, dict) or roi.ANY in view.roi:
        return
    own = images[table.ROI].to_pylist() if table.ROI in images.column_names else [None] * len(images)
    pairs = zip(images["category"].to_pylist(), own, strict=True)
    missing = sorted({category for category, mask in pairs if mask is None and category not in view.roi})
    if missing:
        raise DataError(
            f"no region of interest for {', '.join(missing)}; --roi named {', '.join(sorted(view.roi))}: add a mask "
            f"{missing[0]}.png, or give one mask for all"
        )


def own_region(row: Mapping[str, Any]) -> np.ndarray | None:
    """An image's own region (H, W) of bool, which its row of the image table names; None where it names none.

    Raises:
        ImageError: if it cannot be read, or marks nothing.
        StorageUnavailable: if the store does not answer for long.
    """
    uri = row.get(table.ROI)
    if uri is None:
        return None
    try:
        return _read(uri)
    except StorageUnavailable:
        raise
    except (ImageError, StorageError) as error:
        raise ImageError(f"its region of interest, {uri}: {error}") from None


@lru_cache(maxsize=KEPT)
def _read(uri: str) -> np.ndarray:
    found = patiently(read_mask, uri)
    if not found.any():
        raise ImageError("no pixel is white, and white is where to look")
    return found


def _marked(uri: str) -> np.ndarray:
    try:
        return _read(uri)
    except ImageError as error:
        raise SettingsError(f"--roi {uri}: {error}") from None
