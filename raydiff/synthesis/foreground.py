"""Where anomalies may be made on an image: on its product, everywhere, or by the user's masks."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raydiff import storage
from raydiff.errors import DataError, ImageError, StorageError
from raydiff.images.decode import resize_mask
from raydiff.images.masks import read_mask
from raydiff.views.foreground import foreground

AUTO, FULL = "auto", "full"


def product_mask(
    image: NDArray[np.uint8], row: Mapping[str, Any], choice: str | Mapping[str, str]
) -> NDArray[np.bool_]:
    """Where an image (S, S, 3) shows the product, (S, S) bool.

    Args:
        row: the image's row of the image table.
        choice: "auto" (see `foreground`), "full" (everywhere, for textures), or the URI of a folder that has a mask
            `category/split/defect/stem.png`, or `category/stem.png`, for each image; or one of these for each
            category, "auto" where it has none.

    Raises:
        DataError: if the image has no mask in that folder, or one that cannot be read.
    """
    if not isinstance(choice, str):
        choice = choice.get(row["category"], AUTO)
    if choice == FULL:
        return np.ones(image.shape[:2], bool)
    return foreground(image) if choice == AUTO else _users_mask(choice, row, len(image))


def check_choice(choice: str | Mapping[str, str]) -> None:
    """Whether folders of foreground masks are there, see `product_mask`.

    Raises:
        DataError, StorageError: if not.
    """
    for each in {choice} if isinstance(choice, str) else set(choice.values()):
        if each not in (AUTO, FULL) and not storage.is_folder(each):
            raise DataError(f"foreground {each} is no folder that is there; give {AUTO}, {FULL} or a folder of masks")


def _users_mask(folder: str, row: Mapping[str, Any], size: int) -> NDArray[np.bool_]:
    file = posixpath.splitext(storage.name(row["uri"]))[0] + ".png"
    places = [
        storage.join(folder, row["category"], row["split"], row["defect"] or "good", file),
        storage.join(folder, row["category"], file),
    ]
    for place in places:
        if storage.exists(place):
            try:
                return resize_mask(read_mask(place), size)
            except (ImageError, StorageError) as error:
                raise DataError(f"foreground mask {place}: {error}") from None
    raise DataError(f"{row['uri']} has no foreground mask; looked for {' and '.join(places)}")
