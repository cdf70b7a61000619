"""Which anomaly maps are written, and where an image's goes."""

from __future__ import annotations

import hashlib
import posixpath
from typing import Literal

from raydiff.images.pages import split

Maps = Literal["none", "tiff", "png"]

NAME_BYTES = 200  # of one name; 255 is what file systems take, and a file has an ending and, unfinished, 18 bytes more
PLACE_BYTES = 700  # of the whole place; 1,024 is what S3 takes, and the folder of the scores stands before it
HASH_LETTERS = 16


def map_place(uri: str, category: str | None, split: str | None, defect: str | None) -> str:
    """Where an image's map goes below `anomaly_maps/`, without its ending.

    MVTec's evaluation layout `category/test/defect/stem` for images that lie so, and else the image's own path (without
    scheme and leading slash, with its ending: `1.png` and `1.jpg` are two images). What would be too long for a file
    system or an object store is cut, and a hash of the URI keeps it apart from others; the score table's `map_uri` says
    where each map is.
    """
    path = uri.split("://", 1)[-1].lstrip("/")
    layout = path.split("/")[-4:]
    if len(layout) == 4 and layout[1:3] == [split, defect] and (category or "").split("/")[-1] == layout[0]:
        path = "/".join([category or layout[0], *layout[1:3], _without_ending(layout[3])])
    *folders, name = path.split("/")
    digest = hashlib.sha256(uri.encode()).hexdigest()[:HASH_LETTERS]
    if len(path.encode()) > PLACE_BYTES or any(len(folder.encode()) > NAME_BYTES for folder in folders):
        folders = [*(_cut(folder, NAME_BYTES) for folder in folders[:1]), digest]
    if len(name.encode()) > NAME_BYTES:
        name = f"{_cut(name, NAME_BYTES - HASH_LETTERS - 1)}-{digest}"
    return "/".join([*folders, name])


def _without_ending(name: str) -> str:
    """Of `x.png` it is `x`, of the page `x.tif#3` it is `x#3`."""
    file, page = split(name)
    return posixpath.splitext(file)[0] + (f"#{page}" if page else "")


def _cut(name: str, size: int) -> str:
    """The beginning of a name in so many bytes, whole letters only."""
    return name.encode()[:size].decode(errors="ignore")
