"""The tile of a training that leaves it to be chosen: settings become numbers before they become part of a model."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import pyarrow as pa

from raydiff.errors import DataError, ImageError, StorageError, StorageUnavailable
from raydiff.images import pages
from raydiff.images.decode import decode_noted
from raydiff.images.levels import Levels
from raydiff.images.masks import DECODES_AT_ONCE
from raydiff.methods.base import TrainSettings
from raydiff.progress import console, phase
from raydiff.storage.patience import patiently
from raydiff.views.auto import chosen
from raydiff.views.reduced import FACTORS
from raydiff.views.view import AUTO

IMAGES = 32  # looked at

Given = TypeVar("Given", bound=TrainSettings)


def with_tile(settings: Given, rows: pa.Table) -> Given:
    """Train settings with `tile=auto` become those with the tile that some of the images to train on ask for.

    What is chosen, and why, is printed. The same images give the same tile.

    Args:
        rows: of an image table, to be trained on.

    Raises:
        DataError: if none of the images looked at can be read.
        StorageUnavailable: if the store does not answer for long.
    """
    view = settings.view
    if view.tile != AUTO:
        return settings
    drawn = random.Random(0).sample(range(len(rows)), min(IMAGES, len(rows)))
    sample = rows.sort_by("uri").take(drawn).to_pylist()
    found: list[tuple[int, int]] = []
    reasons: list[str] = []

    def look(row: dict[str, Any]) -> tuple[int, int] | str:
        try:
            file = patiently(pages.read, row["uri"])
            levels = Levels.of_row(row, settings.levels)
            size = decode_noted(file.data, levels=levels, page=file.page, reduction=_least).size
            view.cropped(*size)
        except StorageUnavailable:
            raise
        except (ImageError, StorageError) as error:
            return f"{row['uri']}: {error}"
        return size

    with phase("tile=auto", len(sample)) as shown, ThreadPoolExecutor(DECODES_AT_ONCE) as pool:
        for size in pool.map(look, sample):
            if isinstance(size, str):
                reasons.append(size)
            else:
                found.append(size)
            shown.advance()
    if not found:
        raise DataError(
            f"tile=auto: none of {len(sample)} images to train on can be read ({reasons[0]}); give tile in pixels"
        )
    choice = chosen(view, found, settings.image_size)
    console.print(choice.why, markup=False)
    changes: dict[str, Any] = {"view": choice.view.model_dump()}
    return settings.changed(**changes)


def _least(height: int, width: int) -> int:
    """Of a file nothing but its size is wanted."""
    return FACTORS[0]
