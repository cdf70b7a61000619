"""Folders of normals and of anomalies by names of the user's own: `line4/OK/`, `line4/NG/`, `test/NG/`.

The category is the folder above, or the root; folders that only say "images" are none. A folder of masks beside that of
the images (`Masks/`, `ground_truth/`) is paired by the names below it. A category with anomalies and no test/ gives a
fifth of its normals to the test set, or nothing could be measured.
"""

from __future__ import annotations

from collections import defaultdict
from typing import NamedTuple

from raydiff.errors import DataError
from raydiff.images.layouts.folder_names import FolderNames
from raydiff.images.layouts.found import Finding, Folder, Layout, Row, category_names, in_several_ways, refuse_misplaced
from raydiff.images.layouts.marked import refuse_marked_normals
from raydiff.images.layouts.pairing import pair
from raydiff.images.layouts.plain import refuse_defects, refuse_defects_below, refuse_other_pictures
from raydiff.images.layouts.tested_normals import drawn, told
from raydiff.images.names import MASK_FOLDERS, MASKS, NORMAL, SPLITS, few, stem
from raydiff.images.parts import PartPattern

_PICTURES = ("images", "image", "imgs", "img", "data", "pictures")


class _Place(NamedTuple):
    path: str
    prefix: tuple[str, ...]  # folders of the category
    split: str | None
    label: int
    group: str  # the folder that says so
    below: tuple[str, ...]
    key: str  # group, what is below, and the file's stem


def sorted_layout(folder: Folder, named: FolderNames, part_from: PartPattern | None = None) -> Layout:
    """What the user's names make of a folder.

    - Only normals named, below train/ and test/: every other folder there is a kind of defect.
    - Only anomalies named: all else are normals, unless its folder's name says otherwise.

    Raises:
        DataError: if a name is no folder's, an image lies in folders of both kinds, or too many lie in none.
    """
    _check_names(folder, named)
    found = Layout(_in_words(named))
    images, masks = _places(folder, named, found)
    known = "; ".join(
        f"{option} {','.join(names)}"
        for option, names in (("--normal", named.normal), ("--anomalous", named.anomalous))
        if names
    )
    placed = [place.path for place in (*images, *masks)]
    refuse_misplaced(folder.uri, placed, found.misplaced, f"{known}; name their folders too, or move them away")
    refuse_defects_below(
        folder.uri, ((place.path, place.below) for place in images if place.label == 0 and place.group)
    )
    refuse_marked_normals(folder, [place.path for place in images if place.label == 0])
    if not any(place.label == 0 for place in images):
        raise DataError(f"{folder.uri} holds no normals to train on; name their folder with --normal")
    paired = _pair(images, masks, found, folder)
    tested = _drawn_for_test(images, part_from)
    names = category_names({place.prefix for place in images}, folder.uri)
    given: dict[str, int] = defaultdict(int)
    unused = 0
    for place in images:
        split = place.split or ("test" if place.label or place.path in tested else "train")
        mask = folder.beside.get(place.path) or paired.get(place.path)
        shown = (place.group, mask) if place.label else ("good", None)
        row = Row(folder.images[place.path], *names[place.prefix], split, place.label, *shown)
        found.rows.append(row)
        given[row.category] += place.path in tested
        unused += split == "train" and place.label == 1
    if unused:
        what = "images of defects under train/, neither trained on nor tested"
        found.findings.append(Finding(what, tuple(sorted({place.group for place in images if place.label})), unused))
    found.findings += told(given)
    return found


def _check_names(folder: Folder, named: FolderNames) -> None:
    there = {part for path in folder.images for part in path.split("/")[:-1]}
    lower = {part.lower() for part in there}
    if missing := [name for name in (*named.normal, *named.anomalous) if name.lower() not in lower]:
        raise DataError(
            f"{folder.uri} holds no images in a folder called {few(missing)}; found folders {few(sorted(there))}"
        )


def _places(folder: Folder, named: FolderNames, found: Layout) -> tuple[list[_Place], list[_Place]]:
    """Images and masks; what is neither goes to `found`."""
    of_masks = _mask_folders(folder, named)
    images: list[_Place] = []
    masks: list[_Place] = []
    rest: list[str] = []
    for path in folder.images:
        *folders, file = path.split("/")
        labels = {label: at for at, part in enumerate(folders) if (label := named.label(part)) is not None}
        if len(labels) > 1:
            both = " and ".join(folders[at] for at in sorted(labels.values()))
            raise DataError(f"{folder.images[path]} lies in {both}, which are named --normal and --anomalous; name one")
        splits = [at for at, part in enumerate(folders) if part.lower() in SPLITS]
        mask = next((at for at in range(len(folders)) if tuple(folders[: at + 1]) in of_masks), None)
        split = SPLITS[folders[splits[-1]].lower()] if splits else None
        if labels:
            ((label, at),) = labels.items()
        elif splits and not named.anomalous and splits[-1] + 1 < len(folders):
            label, at = 1, splits[-1] + 1  # only normals named: another folder in test/ is a kind of defect
        elif mask is not None:
            label, at = 1, min(mask + 1, len(folders) - 1)  # ground_truth/<defect>/ has no split
        elif not named.normal and _may_be_normal(folders, splits):
            label, at = 0, len(folders)
            rest.append(path)
        else:
            found.misplaced.append(path)
            continue
        without = {*splits, at} | ({mask} if mask is not None else set())
        prefix = [part for number, part in enumerate(folders[:at]) if number not in without]
        while prefix and prefix[-1].lower() in _PICTURES:
            prefix.pop()
        if not named.normal:
            prefix = prefix[:1]  # as in a plain folder of normals
        group = folders[at] if at < len(folders) and at != mask else ""
        below = [part for number, part in enumerate(folders) if number > at and number not in without]
        key = "/".join(part for part in (group.lower(), *below, stem(file)) if part)
        place = _Place(path, tuple(prefix), split, label, group, tuple(below), key)
        (images if mask is None else masks).append(place)
    refuse_defects(folder.uri, rest)
    refuse_other_pictures(folder.uri, [place.path for place in images])
    return images, masks


def _may_be_normal(folders: list[str], splits: list[int]) -> bool:
    """Whether an image in no folder that is named is a normal, where only anomalies are named."""
    below = folders[splits[-1] + 1 :] if splits else []
    return not below or below[0].lower() in NORMAL


def _mask_folders(folder: Folder, named: FolderNames) -> set[tuple[str, ...]]:
    """Folders called as masks are, unless normals lie in them: a product may be called so."""
    called, with_normals = set(), set()
    for path in folder.images:
        folders = tuple(path.split("/")[:-1])
        for at, part in enumerate(folders):
            if part.lower() in MASK_FOLDERS and named.label(part) is None:
                called.add(folders[: at + 1])
                if part.lower() != MASKS and any(named.label(below) == 0 for below in folders[at + 1 :]):
                    with_normals.add(folders[: at + 1])
    return called - with_normals


def _pair(images: list[_Place], masks: list[_Place], found: Layout, folder: Folder) -> dict[str, str]:
    """An anomalous image's path -> the URI of its mask."""
    paired = {}
    for prefix in {mask.prefix for mask in masks}:
        wanted = {place.key: place.path for place in images if place.prefix == prefix and place.label == 1}
        offered = {mask.path: mask.key for mask in masks if mask.prefix == prefix and mask.label == 1}
        # Masks in no folder of a kind of defect go by the file's name alone, where but one image has it.
        alone: dict[str, list[str]] = defaultdict(list)
        for key, path in wanted.items():
            alone[key.rpartition("/")[2]].append(path)
        flat = {path: key for path, key in offered.items() if "/" not in key}
        single = {name: paths[0] for name, paths in alone.items() if len(paths) == 1}
        for keys, own in (
            (wanted, {path: key for path, key in offered.items() if path not in flat}),
            (single, flat),
        ):
            pairs = pair(keys, own)
            paired.update({keys[key]: folder.uri_of(path) for key, path in pairs.masks.items()})
            found.unused_masks += pairs.unused
            if finding := in_several_ways("/".join(prefix) or "the folder", pairs.rules):
                found.findings.append(finding)
    return paired


def _drawn_for_test(images: list[_Place], part_from: PartPattern | None) -> set[str]:
    """Paths of the normals that become test images, where the folders name no test set."""
    normals: dict[tuple[str, ...], list[str]] = defaultdict(list)
    anomalous, tested = set(), set()
    for place in images:
        if place.label == 0 and place.split is None:
            normals[place.prefix].append(place.path)
        if place.label == 1 and place.split != "train":
            anomalous.add(place.prefix)
        if place.label == 0 and place.split == "test":
            tested.add(place.prefix)
    return {path for prefix in anomalous - tested for path in drawn(normals[prefix], part_from)}


def _in_words(named: FolderNames) -> str:
    given = ((named.normal, "normals"), (named.anomalous, "anomalies"))
    return " and ".join(f"{', '.join(names)} for {what}" for names, what in given if names)
