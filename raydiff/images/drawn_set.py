"""Writing a set of drawn images into a local folder: whole or not at all, and never over anything else."""

from __future__ import annotations

import io
import os
import shutil
import uuid
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from raydiff import storage
from raydiff.errors import DataError
from raydiff.images import names
from raydiff.progress import phase

MARKER = names.DRAWN
# The image's file, its mask's (None: no defect), and what draws both: uint8 pixels and a bool mask.
Drawn = tuple[str, str | None, Callable[[], tuple[NDArray[np.uint8], NDArray[np.bool_]]]]


def write_set(folder: str, card: dict[str, Any], todo: Sequence[Drawn]) -> None:
    """Draw all of `todo` into `folder`, with `card`, which says what decides the pixels.

    A folder that already holds exactly this set is left as it is; a killed run leaves nothing in `folder`.

    Raises:
        DataError: if the folder holds something else, or is not on this machine's disk.
    """
    if not storage.is_local(folder):
        raise DataError(f"{folder} is not a local folder; draw the demo images on disk and upload them from there")
    folder = storage.absolute(folder)
    if _holds(folder, card):
        return
    partial = f"{folder}.{uuid.uuid4().hex[:8]}.partial"
    try:
        with phase("Drawing demo images", len(todo)) as progress:
            for image_file, mask_file, draw in todo:
                image, mask = draw()
                _write(storage.join(partial, image_file), image)
                if mask_file:
                    _write(storage.join(partial, mask_file), 255 * mask.astype(np.uint8))
                progress.advance()
        storage.write_json(storage.join(partial, MARKER), card)
        os.rename(partial, folder)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def _holds(folder: str, card: dict[str, Any]) -> bool:
    """Whether the folder holds the set that `card` describes; False if there is nothing in it."""
    if not os.path.lexists(folder):
        return False
    if not os.path.isdir(folder):
        raise DataError(f"{folder} is a file, not a folder; choose another folder for the demo images")
    if not os.listdir(folder):
        return False
    marker = storage.join(folder, MARKER)
    if not storage.exists(marker):
        raise DataError(f"{folder} is not empty and holds no demo images; choose another folder for them")
    found = storage.read_json(marker)
    if found != card:
        raise DataError(f"{folder} holds other demo images ({found}, not {card}); choose another folder")
    return True


def _write(file: str, pixels: NDArray[np.uint8]) -> None:
    data = io.BytesIO()
    if file.endswith(".png"):
        Image.fromarray(pixels).save(data, "PNG", compress_level=4)
    else:
        Image.fromarray(pixels).save(data, "JPEG", quality=95)
    storage.write_bytes(file, data.getvalue())
