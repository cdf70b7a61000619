"""Masks that only their extension tells from their image (`x.jpg`, `x.png`), as magnetic tile and Real-IAD have them.

Their names do not say that they are masks, so some of them are read. A mask holds black and at most one more value,
which no picture does.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from raydiff import storage
from raydiff.errors import DataError, ImageError
from raydiff.images.decode import decode
from raydiff.images.masks import DECODES_AT_ONCE
from raydiff.images.names import stem
from raydiff.storage.patience import patiently

LOOKED_AT = 8  # masks that are read, evenly out of all
_PICTURES = (".jpg", ".jpeg")  # a mask would not be kept in a format that blurs it


def masks_by_extension(images: Mapping[str, str]) -> dict[str, str]:
    """Masks among images of one stem, one of which is a JPEG.

    Args:
        images: path -> uri.

    Returns:
        A mask's path -> its image's; empty where those that were looked at are no masks.

    Raises:
        DataError: if most of the images are such pairs and no masks: a normal that is held out must not be trained on
            under its other name.
        StorageError: if one cannot be read.
    """
    pairs = _pairs(images)
    if not pairs:
        return {}
    paths = sorted(pairs)
    at = sorted({round(place) for place in np.linspace(0, len(paths) - 1, LOOKED_AT)})
    with ThreadPoolExecutor(DECODES_AT_ONCE) as pool:
        looks = list(pool.map(_looks_like_a_mask, [images[paths[place]] for place in at]))
    said = [look for look in looks if look is not None]
    if said and all(said):
        return pairs
    if len(pairs) * 4 > len(images):
        raise DataError(
            f"{images[pairs[paths[0]]]} and {storage.name(paths[0])} are one of {len(pairs)} pairs that only their "
            "extension tells apart; if they are one picture twice, keep one of each; if the second are masks, make "
            "them black with one other value, or put them into ground_truth/"
        )
    return {}


def _pairs(paths: Iterable[str]) -> dict[str, str]:
    """Path of what may be a mask -> that of the JPEG of its name."""
    alike: dict[str, list[str]] = defaultdict(list)
    for path in paths:
        alike[stem(path)].append(path)
    found: dict[str, str] = {}
    for group in alike.values():
        pictures = [path for path in group if path.lower().endswith(_PICTURES)]
        if len(pictures) == 1:
            found |= {path: pictures[0] for path in group if path != pictures[0]}
    return found


def _looks_like_a_mask(uri: str) -> bool | None:
    """None for a file that cannot be read as an image."""
    try:
        pixels = decode(patiently(storage.read_bytes, uri))
    except ImageError:
        return None
    values = np.unique(pixels.astype(np.uint32) @ np.array([1 << 16, 1 << 8, 1], np.uint32))
    return len(values) <= 2 and values[0] == 0
