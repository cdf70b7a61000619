"""Images that are told normal or anomalous by a mask beside each, as KolektorSDD's are."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Sequence

from raydiff import storage
from raydiff.errors import DataError
from raydiff.images.layouts.folder_names import options
from raydiff.images.layouts.found import Finding, Folder, Layout, Row
from raydiff.images.layouts.tested_normals import drawn, told
from raydiff.images.masks import marks
from raydiff.images.names import few

DEFECT = "defect"  # the kind of all that a mask marks where no folder says more
FOLDERS_SHOWN = 20  # in a sentence
_NUMBERED = re.compile(r"(.*?)[-_ ]?\d+")


def labels_by_masks(folder: Folder, paths: Sequence[str]) -> dict[str, int | None]:
    """The labels of images by the masks beside them: 0 for a black one, 1 for another, None for one that is unreadable.

    Every mask is read.

    Raises:
        DataError: if some of the images have no mask.
    """
    if not paths:
        return {}
    masked = [path for path in paths if path in folder.beside]
    found = dict(zip(masked, marks([folder.beside[path] for path in masked]), strict=True))
    if without := [path for path in paths if path not in folder.beside]:
        defects = sum(bool(mark) for mark in found.values())
        example = masked[0]
        raise DataError(
            f"{folder.uri}: {len(masked)} images have a mask beside them (as {storage.name(folder.beside[example])} "
            f"beside {storage.name(example)}), {defects} of which mark something, and {len(without)} have none "
            f"({few(without)}), so which images are normal is not clear; "
            f"{_named_by(masked, without)}give every image a mask, all black for normals, or a table with the columns "
            "uri, label and mask_uri, or move the masks away if all are normal"
        )
    return {path: None if mark is None else int(mark) for path, mark in found.items()}


def _named_by(masked: Sequence[str], without: Sequence[str]) -> str:
    """The options that tell images with masks from those without, if a few folders do; empty if not."""
    for depth in range(max((path.count("/") for path in (*masked, *without)), default=0)):
        defects, normals = (
            {path.split("/")[depth] for path in paths if path.count("/") > depth} for paths in (masked, without)
        )
        if defects and normals and not defects & normals and len(defects | normals) <= FOLDERS_SHOWN:
            return f"say which are with {options(normals, defects)}, or "
    return ""


def refuse_marked_normals(folder: Folder, paths: Sequence[str]) -> None:
    """Refuse images that lie among normals, but have a mask beside them that marks something.

    Raises:
        DataError: naming them.
    """
    masked = [path for path in paths if path in folder.beside]
    if not masked:
        return
    found = zip(masked, marks([folder.beside[path] for path in masked]), strict=True)
    if bad := [path for path, mark in found if mark is not False]:
        raise DataError(
            f"{folder.uri}: {len(bad)} images in folders of normals have a mask beside them that is not all black "
            f"({few(bad)}); move them to a folder of defects, or take the masks away"
        )


def why_marked(folder: Folder) -> str | None:
    """By which masks a folder is so: any that lie beside their image; None where there are none."""
    masks = folder.beside.values()
    return f"by {len(masks)} masks beside their images, such as {storage.name(min(masks))}" if masks else None


def marked_layout(folder: Folder) -> Layout:
    """Plain folders where every image has a mask beside it; folders that differ by a number alone are one category.

    A category with defects gives some of its normals to the test set.

    Raises:
        DataError: if some images have none, no mask is black, or each folder has only black masks or none.
    """
    labels = labels_by_masks(folder, list(folder.images))
    found = Layout("folder of images with a mask beside each")
    name = storage.name(folder.uri)
    tops = sorted({path.split("/")[0] for path in folder.images if "/" in path})
    stems = {match[1].lower() if (match := _NUMBERED.fullmatch(top)) else top for top in tops}
    parts = len(tops) > 1 and len(stems) == 1
    categories = {path: path.split("/")[0] if "/" in path and not parts else name for path in labels}
    normals: dict[str, list[str]] = defaultdict(list)
    for path, label in labels.items():
        if label == 0:
            normals[categories[path]].append(path)
    with_defects = {categories[path] for path, label in labels.items() if label == 1}
    if normals and with_defects and not with_defects & set(normals):
        raise DataError(
            f"{folder.uri}: by their masks, all images of {few(sorted(with_defects))} are defective and all of "
            f"{few(sorted(normals))} are normal, as kinds of defects of one product would be; say so with "
            f"{options(normals, with_defects)}, or give a table with the columns uri, category, label and mask_uri"
        )
    tested = {path for category in with_defects for path in drawn(normals[category])}
    for path, label in labels.items():
        mask = None if label == 0 else folder.beside[path]
        defect = {0: "good", 1: DEFECT, None: None}[label]
        split = "train" if label == 0 and path not in tested else "test"
        found.rows.append(Row(folder.images[path], name, categories[path], split, label, defect, mask))
    found.findings += told(Counter(categories[path] for path in tested))
    if not any(row.label == 0 for row in found.rows):
        raise DataError(
            f"{folder.uri}: each of the {len(found.rows)} images has a mask beside it, and none is all black, so there "
            "are no normals to train on; add normals with black masks, or move the masks away if they are none"
        )
    if parts:
        found.findings.append(Finding(f"folders taken for parts of one category, {name}", tuple(tops), len(tops)))
    return found
