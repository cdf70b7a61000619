"""The MVTec AD layout and its relatives: MPDD, BTAD, MVTec LOCO AD, MVTec 3D-AD, MVTec AD 2, KolektorSDD2.

Images are `<category>/<split>/<folder>/...`, where the split is `train`, `validation`, `test` or `test_public` and the
folder `good` or a kind of defect; masks are `<category>/ground_truth/<folder>/...`, or lie below their split. Of
3D-AD's `rgb/`, `xyz/` and `gt/` below each folder the first are the images and the last the masks. `test_private/` has
images of unknown label. Images directly in `train/` and `test/` have a mask beside each that says what they are.
"""

from __future__ import annotations

import shlex
from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import NamedTuple

from raydiff.errors import DataError
from raydiff.images.layouts.found import Finding, Folder, Layout, Row, category_names, in_several_ways, refuse_misplaced
from raydiff.images.layouts.marked import DEFECT, labels_by_masks, refuse_marked_normals
from raydiff.images.layouts.pairing import pair
from raydiff.images.layouts.plain import refuse_defects_below
from raydiff.images.names import CHANNELS, MASK_FOLDERS, MASKS, NORMAL, RGB, SPLITS, UNLABELLED, few, said_by, stem

KNOWN = (
    "<category>/train/good/, validation/good/, test/<defect>/ (or test_public/, test_private/) and "
    "ground_truth/<defect>/; move the images there or away, or name your own folders with --normal and --anomalous"
)
_GT = "gt"  # masks, beside rgb/
_MASKS_ELSEWHERE = (_GT, "groundtruth", "mask", "masks")  # a label may be what is defective
_NO_IMAGES = (*CHANNELS, *MASK_FOLDERS)


class _Place(NamedTuple):
    """Where an image or a mask lies."""

    path: str
    prefix: tuple[str, ...]  # folders of the category
    split: str  # the folder's name, lower case; a mask's is empty below <category>/ground_truth/
    group: str  # good, or a kind of defect; empty directly in the split
    rest: tuple[str, ...]  # folders below the group
    key: str  # group, rest and the file's stem

    @property
    def is_normal(self) -> bool:
        return self.group.lower() in NORMAL


def why_mvtec(folder: Folder) -> str | None:
    """By which folders a folder is of this layout: names that it knows; None where there are none."""
    inside = {part.lower() for path in folder.images for part in path.split("/")[:-1]}
    known = sorted(inside.intersection((*SPLITS, MASKS)))
    return f"by folders called {few(known)}" if known else None


def mvtec_layout(folder: Folder) -> Layout:
    """What the folders of the layout say.

    Raises:
        DataError: if none of the images, or too few, lie at a place that has a meaning; if folders below good/ or a
            defect are of a kind not known; if a mask contradicts its image's folder; if nothing can be trained on.
    """
    found = Layout("MVTec AD layout")
    images, masks = _places(folder, found)
    if not images:
        raise DataError(
            f"{folder.uri} looks like the MVTec AD layout, but looked for <category>/train/good/<image> and "
            f"<category>/test/<defect>/<image> in vain; found {few(list(folder.images))}"
        )
    placed = [place.path for place in (*images, *masks)]
    _refuse_masks(folder.uri, images, found.misplaced)
    refuse_misplaced(folder.uri, placed, found.misplaced, KNOWN)
    images, channel_masks, channels = _rgb(images, folder.uri)
    paired = _pair(images, [*masks, *channel_masks], found)
    names = category_names({place.prefix for place in images}, folder.uri)
    # Whether it is normal is said by its folder, or by the mask beside it.
    marks = labels_by_masks(
        folder, [place.path for place in images if not place.group and place.split not in UNLABELLED]
    )
    refuse_defects_below(folder.uri, ((place.path, place.rest) for place in images if place.is_normal))
    refuse_marked_normals(folder, [place.path for place in images if place.is_normal])
    unread = [path for path, mark in marks.items() if mark is None]
    if unread:
        what = "images whose mask cannot be read, so whether they are normal is unknown: not trained on"
        found.findings.append(Finding(what, tuple(unread), len(unread)))
    for place in images:
        label: int | None = 0 if place.is_normal else 1
        defect: str | None = place.group
        if not place.group:
            label = marks.get(place.path)
            defect = DEFECT if label else None
        mask = folder.beside.get(place.path)
        if mask is None and place.path in paired:
            mask = folder.uri_of(paired[place.path])
        found.rows.append(
            Row(
                folder.images[place.path],
                *names[place.prefix],
                "test" if label is None else SPLITS[place.split],
                label,
                "good" if label == 0 else defect,
                None if label == 0 else mask,
            )
        )
    _tell(found, images, channels)
    return found


def _places(folder: Folder, found: Layout) -> tuple[list[_Place], list[_Place]]:
    """Images and masks; what is neither goes to `found`."""
    images, masks = [], []
    for path in folder.images:
        *folders, file = path.split("/")
        lower = [part.lower() for part in folders]
        if lower and (lower[-1] in UNLABELLED or (lower[-1] in SPLITS and path in folder.beside)):
            images.append(_Place(path, tuple(folders[:-1]), lower[-1], "", (), stem(file)))
            continue
        # From the right, so that a dataset may be called "test"; a folder and a file must follow.
        at = next((i for i in range(len(folders) - 2, -1, -1) if lower[i] in (*SPLITS, MASKS)), None)
        if at is None:
            found.misplaced.append(path)
            continue
        prefix, group, rest = tuple(folders[:at]), folders[at + 1], tuple(folders[at + 2 :])
        place = _Place(path, prefix, lower[at], group, rest, "/".join((group, *rest, stem(file))))
        if lower[at] == MASKS:
            masks.append(place._replace(split=""))
        else:
            images.append(place)
    categories = {place.prefix for place in images}
    for number, mask in enumerate(masks):  # MVTec AD 2: test_public/ground_truth/
        *above, last = mask.prefix or ("",)
        if last.lower() in SPLITS and mask.prefix not in categories:
            masks[number] = mask._replace(prefix=tuple(above), split=last.lower())
    return images, masks


def _refuse_masks(root: str, images: Iterable[_Place], misplaced: Iterable[str]) -> None:
    """Refuse folders called as masks are, but not ground_truth: as a kind of defect, or at no place at all.

    Raises:
        DataError: naming a file in such a folder.
    """
    places = list(images)
    trained = {place.prefix for place in places if SPLITS[place.split] == "train"}
    others = {(place.prefix, place.split) for place in places if place.group.lower() not in _MASKS_ELSEWHERE}
    lost = [path for path in misplaced if set(path.lower().split("/")[:-1]) & set(_MASKS_ELSEWHERE)]
    for place in places:
        as_defect = place.group.lower() in _MASKS_ELSEWHERE and (place.prefix, place.split) in others
        *above, last = place.prefix or ("",)
        as_category = last.lower() in _MASKS_ELSEWHERE and place.prefix not in trained and tuple(above) in trained
        if as_defect or as_category:
            lost.append(place.path)
    if lost:
        raise DataError(
            f"{root}: {lost[0]} looks like a mask, but masks lie in <category>/ground_truth/<defect>/; rename their "
            "folder to ground_truth and put it beside test/, or move it away"
        )


def _rgb(images: Iterable[_Place], root: str) -> tuple[list[_Place], list[_Place], Counter[str]]:
    """Of several folders that show the same scene only the pictures; masks; how many images other folders hold."""
    groups: dict[tuple[str, ...], list[_Place]] = defaultdict(list)
    for place in images:
        groups[(*place.prefix, place.split, place.group)].append(place)
    kept, masks, others = [], [], Counter[str]()
    for names, places in groups.items():
        below = {place.rest[0].lower() if place.rest else "" for place in places}
        if not below.intersection(_NO_IMAGES) or len(below) == 1:
            kept += places
            continue
        if RGB not in below or below - {RGB, *_NO_IMAGES}:
            found = sorted({place.rest[0] if place.rest else "images beside them" for place in places})
            raise DataError(
                f"{'/'.join((root, *names))}/ holds {few(found)}, which look like several pictures of one scene; known "
                "are rgb/ (images), gt/ (masks), xyz/ and depth/; rename the folder of the images to rgb/, or move the "
                "others away"
            )
        for place in places:
            channel, rest = place.rest[0].lower(), place.rest[1:]
            moved = place._replace(rest=rest, key="/".join((place.group, *rest, stem(place.path.rpartition("/")[2]))))
            if channel == RGB:
                kept.append(moved)
            elif channel == _GT:
                masks.append(moved)
            else:
                others[channel] += 1
    return kept, masks, others


def _pair(images: list[_Place], masks: list[_Place], found: Layout) -> dict[str, str]:
    """An image's path -> its mask's, or the folder's of its masks; what fits none goes to `found`."""
    wanted: dict[tuple[tuple[str, ...], str], dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    offered: dict[tuple[tuple[str, ...], str], dict[str, str]] = defaultdict(dict)
    for mask in masks:
        offered[mask.prefix, mask.split][mask.path] = mask.key
    for image in images:
        if not image.is_normal and SPLITS[image.split] == "test":
            own = image.split if (image.prefix, image.split) in offered else ""
            wanted[image.prefix, own][image.key].append(image.path)
    paired = {}
    normal = {mask.path for mask in masks if mask.is_normal}  # black ones, which are not missed
    for place, of_place in offered.items():
        pairs = pair(wanted[place], of_place)
        for key, path in pairs.masks.items():
            paired.update(dict.fromkeys(wanted[place][key], path))
        found.unused_masks += [path for path in pairs.unused if path not in normal]
        if finding := in_several_ways("/".join(place[0]) or "the folder", pairs.rules):
            found.findings.append(finding)
    return paired


def _tell(found: Layout, images: list[_Place], channels: Counter[str]) -> None:
    unused: Counter[str] = Counter()
    validation: Counter[str] = Counter()
    trained, of_category = set(), set()
    for place, row in zip(images, found.rows, strict=True):
        where = "/".join((*place.prefix, place.split, place.group)).rstrip("/")
        if row.split == "train" and row.label == 1:
            unused[where] += 1
            of_category.add(row.category)
        elif row.split == "train" and row.label == 0:
            trained.add(row.category)
            validation[where] += place.split not in ("train", "training")
    if lost := sorted(of_category - trained):
        folders = sorted({place.group for place in images if SPLITS[place.split] == "train" and place.group})
        likely = [name for name in folders if said_by(name) == 0] or folders
        hint = f"; if {likely[0]} holds normals, give --normal {shlex.quote(likely[0])}" if likely else ""
        if len(likely) > 1:
            hint = f"; name the folders of normals with --normal NAME, of {few(likely)}"
        raise DataError(
            f"train/ of {few(lost)} holds no normals, only {few(sorted(unused))}; normals lie in train/good/ (or ok, "
            f"normal){hint}"
        )
    for what, counts in (
        ("images of defects under train/, neither trained on nor tested", unused),
        ("images of validation/ taken as normals, to train on or hold out", +validation),
        ("images of other kinds than rgb, left out", channels),
    ):
        if counts:
            shown = tuple(f"{name}: {count}" for name, count in sorted(counts.items()))
            found.findings.append(Finding(what, shown, counts.total()))
