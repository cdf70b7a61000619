"""What a look at a folder gives: rows of the image table, and an account of all that is not in it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import pyarrow as pa

from raydiff import storage
from raydiff.errors import DataError
from raydiff.images import names, table
from raydiff.images.layouts.pairing import beside, in_words
from raydiff.images.layouts.same_name import masks_by_extension
from raydiff.storage import walking

LEFT_OUT = "files in folders of a NAS or the system, hidden ones or our maps, left out"


class Finding(NamedTuple):
    """Something that a user should know: what it is, how many, and which."""

    what: str
    names: tuple[str, ...]
    number: int  # of files, where a name stands for several


@dataclass(frozen=True)
class Found:
    """The images of a folder or table, and what else lay there (paths relative to it)."""

    images: pa.Table  # the image table
    layout: str
    ignored: tuple[str, ...] = ()  # files that are no images, or hidden
    misplaced: tuple[str, ...] = ()  # images at no place that has a meaning
    unused_masks: tuple[str, ...] = ()  # masks that fit no image
    findings: tuple[Finding, ...] = ()  # the rest: what was left out, and what was taken for what
    part_from: str | None = None  # see `Layout`
    layout_name: str | None = None  # as --layout takes it; None for a table, and for folders that the user has named
    why: str | None = None  # in a few words why it is of this layout


class Row(NamedTuple):
    """In the order of `table.SCHEMA`."""

    uri: str
    dataset: str
    category: str
    split: str
    label: int | None
    defect: str | None = None
    mask_uri: str | None = None


class Folder(NamedTuple):
    """The files of a folder."""

    uri: str
    images: dict[str, str]  # path relative to the folder -> uri
    beside: dict[str, str]  # masks beside their image: an image's path -> its mask's uri
    ignored: tuple[str, ...]
    findings: tuple[Finding, ...]

    def uri_of(self, path: str) -> str:
        """The URI of a path below the folder."""
        some, uri = next(iter(self.images.items()))
        return uri.removesuffix(some) + path


@dataclass
class Layout:
    """What a layout makes of a folder's images."""

    name: str
    rows: list[Row] = field(default_factory=list)
    misplaced: list[str] = field(default_factory=list)
    unused_masks: list[str] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    part_from: str | None = None  # a known data set's images are grouped by this, as by --part-from


def list_folder(uri: str) -> Folder:
    """All files below a folder, each told for what its name says.

    Raises:
        DataError: if an image has several masks beside it, or most seem to be there twice.
        StorageError: if it cannot be listed.
    """
    root = walking.root(*storage.filesystem(uri))
    images, ignored, unnamed = {}, [], []
    left_out: dict[str, list[str]] = {}
    for file in storage.list_files(uri):
        relative = file[len(root) :].lstrip("/")
        if folder := names.folder_left_out(relative):
            left_out.setdefault(folder, []).append(names.printable(relative))
        elif relative in (names.DRAWN, names.INGESTED):
            continue
        elif not names.is_image(relative):
            ignored.append(names.printable(relative))
        elif not names.is_text(relative):
            unnamed.append(names.printable(relative))
        else:
            images[relative] = file
    no_masks = {path: uri for path, uri in images.items() if names.MASKS not in path.lower().split("/")[:-1]}
    masks = beside(no_masks)
    masks |= masks_by_extension({path: uri for path, uri in no_masks.items() if path not in masks})
    of_image: dict[str, str] = {}
    for mask, image in masks.items():
        if image in of_image:
            raise DataError(
                f"{images[image]} has several masks beside it, {storage.name(of_image[image])} and "
                f"{storage.name(mask)}; keep the one that marks the defect, and move the other away"
            )
        of_image[image] = images[mask]
    for mask in masks:
        del images[mask]
    findings = []
    if left_out:
        shown = tuple(f"{folder}: {len(files)}, such as {files[0]}" for folder, files in left_out.items())
        count = sum(map(len, left_out.values()))
        findings.append(Finding(LEFT_OUT, shown, count))
    if unnamed:
        what = "images whose name is not UTF-8, left out; rename them"
        findings.append(Finding(what, tuple(unnamed), len(unnamed)))
    if twice := _named_alike(images):
        what = "images that only their extension tells from another, perhaps one picture twice; all are kept"
        findings.append(Finding(what, tuple(twice), len(twice)))
    return Folder(uri, images, of_image, tuple(ignored), tuple(findings))


def category_names(prefixes: Collection[tuple[str, ...]], root: str) -> dict[tuple[str, ...], tuple[str, str]]:
    """Dataset and category of each folder that stands for a category; a category's name is unique."""
    above, _, name = root.rpartition("://")[2].rpartition("/")
    found = {}
    for prefix in prefixes:
        if prefix:
            found[prefix] = ("/".join(prefix[:-1]) or name, prefix[-1])
        else:  # the root is a category itself
            found[prefix] = (storage.name(above) or name, name)
    times = Counter(category for _, category in found.values())
    return {
        prefix: (dataset, category if times[category] == 1 else f"{dataset}/{category}")
        for prefix, (dataset, category) in found.items()
    }


def refuse_misplaced(root: str, placed: Collection[str], misplaced: Sequence[str], known: str) -> None:
    """Refuse a folder of whose images, or of one of whose categories' images, more than a tenth have no place.

    Args:
        placed: paths of images that have one.
        known: the places there are, and what to do.

    Raises:
        DataError: with what was found.
    """
    homes: Counter[tuple[str, ...]] = Counter()
    for path in placed:
        folders = tuple(path.split("/")[:-1])
        homes.update(folders[:depth] for depth in range(len(folders) + 1))
    lost: dict[tuple[str, ...], list[str]] = {}
    for path in misplaced:
        folders = tuple(path.split("/")[:-1])
        for depth in range(len(folders) + 1):
            lost.setdefault(folders[:depth], []).append(path)
            if folders[:depth] not in homes:  # a tree without any placed image stands for itself, not each folder in it
                break
    for folder in sorted(lost, key=lambda folder: (-len(lost[folder]), -len(folder), folder)):
        total = len(lost[folder]) + homes[folder]
        if len(lost[folder]) * 10 > total:
            raise DataError(
                f"{storage.join(root, *folder)}: {len(lost[folder])} of {total} images lie at no place that has a "
                f"meaning, such as {names.few(sorted(lost[folder]))}; known are {known}"
            )


def in_several_ways(category: str, rules: Counter[str]) -> Finding | None:
    """What to say of masks that were paired by more than one rule."""
    if len(rules) < 2:
        return None
    ways = tuple(f"{in_words(rule)}: {count}" for rule, count in rules.most_common())
    return Finding(f"masks of {category}, called in several ways", ways, rules.total())


def as_table(rows: list[Row], where: str) -> pa.Table:
    """Rows as an image table."""
    columns = zip(*rows, strict=True)
    arrays = [pa.array(column, kind.type) for column, kind in zip(columns, table.SCHEMA, strict=True)]
    return table.validate(pa.table(arrays, schema=table.SCHEMA), where)


def _named_alike(images: Collection[str]) -> list[str]:
    times = Counter(names.stem(path) for path in images)
    return [path for path in sorted(images) if times[names.stem(path)] > 1]
