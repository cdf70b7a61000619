"""Plain folders of normals: images in the folder itself, or one folder a category."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from raydiff import storage
from raydiff.errors import DataError
from raydiff.images.layouts.folder_names import options_for
from raydiff.images.layouts.found import Folder, Layout, Row
from raydiff.images.names import (
    CHANNELS,
    MASK_FOLDERS,
    MASKS,
    RGB,
    SPLITS,
    base_of_mask,
    few,
    not_all_normal,
    said_by,
    stem,
)


def why_plain(folder: Folder) -> str | None:
    """Why all images of a folder may be normals to train on: nothing says otherwise; None where something does."""
    inside = {part.lower() for path in folder.images for part in path.split("/")[:-1]}
    others = {MASKS, *(name for name, split in SPLITS.items() if split == "test")}
    return None if folder.beside or inside & others else "as no mask, no folder of test images and no split says more"


def plain_layout(folder: Folder) -> Layout:
    """All images as normals to train on.

    Raises:
        DataError: if a folder's name says that its images are no normals, or masks or depths of others.
    """
    refuse_defects(folder.uri, folder.images)
    refuse_other_pictures(folder.uri, folder.images)
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
        if not_all_normal(names):
            told |= names
    if told:
        raise DataError(
            f"{root} was taken for a folder of normals, but it holds folders {few(sorted(told))}, which cannot all be "
            f"normal; say which are, as in {options_for(told)}, or give the folder of normals alone"
        )


def refuse_defects_below(root: str, folders: Iterable[tuple[str, Iterable[str]]]) -> None:
    """Refuse folders called as defects are that lie below a folder of normals.

    Args:
        root: the folder, for the message.
        folders: images that are to be normals, each with the folders below that of the normals.

    Raises:
        DataError: naming an image.
    """
    for path, below in folders:
        if any(said_by(part) == 1 for part in below):
            raise DataError(
                f"{root}: {path} lies in a folder of normals, in one that is called as defects are; move that folder "
                "out of the folder of normals, or rename it if it holds normals"
            )


def refuse_other_pictures(root: str, paths: Iterable[str]) -> None:
    """Refuse folders called as masks are whose files are called as the images beside them, and xyz/ beside rgb/.

    Raises:
        DataError: naming the folder.
    """
    inside: dict[tuple[str, ...], dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for path in paths:
        *folders, _ = path.split("/")
        name = stem(path).rpartition("/")[2]
        inside[tuple(folders)][""].add(name)
        if folders:
            inside[tuple(folders[:-1])][folders[-1]].add(name)
    for above, folders_there in inside.items():
        for folder, files in folders_there.items():
            if folder.lower() not in (*MASK_FOLDERS, *CHANNELS):
                continue
            others = set().union(*(names for other, names in folders_there.items() if other != folder))
            known = {name for name in files if name in others or ((of := base_of_mask(name)) and of[0] in others)}
            masks = folder.lower() in MASK_FOLDERS and len(known) * 2 >= len(files)
            channel = folder.lower() in CHANNELS and RGB in map(str.lower, folders_there)
            if masks or channel:
                raise DataError(
                    f"{root}: {'/'.join((*above, folder))}/ looks like masks or other pictures of images beside it, "
                    "not like images to train on; give the folder of images alone, or rename it if it holds a product"
                )
