"""Plain folders of normals: images in the folder itself, or one folder a category."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from raydiff import storage
from raydiff.errors import DataError
from raydiff.images.folder_names import options_for
from raydiff.images.found import Folder, Layout, Row
from raydiff.images.names import ABNORMAL, NORMAL, few


def plain_layout(folder: Folder) -> Layout:
    """All images as normals to train on.

    Raises:
        DataError: if a folder's name says that its images are none, with the options that say so.
    """
    refuse_defects(folder.uri, folder.images)
    name = storage.name(folder.uri)
    rows = [
        Row(uri, name, path.split("/")[0] if "/" in path else name, "train", 0, "good")
        for path, uri in folder.images.items()
    ]
    return Layout("folder of normals", rows)


def refuse_defects(root: str, paths: Iterable[str]) -> None:
    """Refuse images that are to be normals, but lie in folders that are called otherwise.

    Raises:
        DataError: with the options that name these folders.
    """
    siblings = defaultdict(set)
    for path in paths:
        parts = path.split("/")
        for depth, part in enumerate(parts[:-1]):
            siblings[tuple(parts[:depth])].add(part)
    told: set[str] = set()
    for names in siblings.values():
        lower = {name.lower() for name in names}
        if lower & set(ABNORMAL) or (lower & set(NORMAL) and lower - set(NORMAL)):
            told |= names
    if told:
        raise DataError(
            f"{root} was taken for a folder of normals, but it holds folders {few(sorted(told))}, which cannot all be "
            f"normal; say which are, as in {options_for(told)}, or give the folder of normals alone"
        )
