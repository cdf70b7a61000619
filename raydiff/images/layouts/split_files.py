"""Data sets that say in files of their own which images train and which test: what all of them share.

Each has a file of its own beside this one: VisA, Real-IAD.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import NamedTuple

from raydiff import storage
from raydiff.errors import DataError
from raydiff.images.layouts.found import Finding, Folder, Layout, Row
from raydiff.images.names import few
from raydiff.storage.patience import patiently

GOOD = "good"


class Listed(NamedTuple):
    """An image as a split file lists it; paths are below the data set's folder."""

    image: str
    category: str
    split: str
    defect: str  # `good`, or its kind
    mask: str


class DataSet(NamedTuple):
    """A data set that comes with split files."""

    name: str
    files: re.Pattern[str]  # their paths; above the group `file` is the data set's folder
    read: Callable[[str, str, Collection[str]], Iterator[Listed]]  # a file's path and text, and the folders beside
    part_from: str | None = None  # names the part that an image shows, as --part-from does

    def why(self, folder: Folder) -> str | None:
        """By which split files a folder is this data set; None where there are none."""
        files = self._files(folder)
        more = f" and {len(files) - 1} more" if len(files) > 1 else ""
        return f"by {files[0].string}{more}" if files else None

    def layout(self, folder: Folder) -> Layout:
        """What the split files in the folder say of its images.

        Of a data set of which some categories are not there, the others are taken.

        Raises:
            DataError: if a file is not as its data set has it, or lists images or masks that are not there.
            StorageError: if it cannot be read.
        """
        return _layout(folder, self, self._files(folder))

    def _files(self, folder: Folder) -> list[re.Match[str]]:
        return [match for path in sorted(folder.ignored) if (match := self.files.fullmatch(path))]


def _layout(folder: Folder, known: DataSet, files: Sequence[re.Match[str]]) -> Layout:
    roots = {match.string[: match.start("file")] for match in files}
    if len(roots) > 1:
        raise DataError(f"{folder.uri} holds several data sets that bring their split ({few(sorted(roots))}); give one")
    (root,) = roots
    images = {path.removeprefix(root): uri for path, uri in folder.images.items() if path.startswith(root)}
    tops = {path.partition("/")[0] for path in images}
    listed = [each for match in files for each in _read(folder, known, match, tops)]
    here = {each.category for each in listed if each.image in images}
    wanted = [each for each in listed if each.category in here]
    masks = {*folder.images.values(), *folder.beside.values()}
    found = Layout(known.name, part_from=known.part_from)
    lost = []
    for each in wanted:
        mask = folder.uri_of(root + each.mask) if each.mask and each.defect != GOOD else None
        if each.image not in images or (mask and mask not in masks):
            lost.append(each.image)
            continue
        label = int(each.defect != GOOD)
        dataset = storage.name(folder.uri if not root else root.rstrip("/"))
        found.rows.append(Row(images[each.image], dataset, each.category, each.split, label, each.defect, mask))
    if lost or not wanted:
        names = lost or [each.image for each in listed]
        raise DataError(
            f"{folder.uri}: its split ({files[0].string}) lists {len(names)} images that are not there, or not with "
            f"their mask: {few(names)}; unpack the data set whole, or move the split away to go by its folders"
        )
    used = {row.uri for row in found.rows} | {row.mask_uri for row in found.rows}
    unused = sorted(path for path, uri in images.items() if uri not in used)
    absent = sorted({each.category for each in listed} - here)
    for what, shown in (("images that the split does not list, left out", unused), ("categories not there", absent)):
        if shown:
            found.findings.append(Finding(what, tuple(shown), len(shown)))
    return found


def _read(folder: Folder, known: DataSet, file: re.Match[str], folders: Collection[str]) -> list[Listed]:
    uri = folder.uri_of(file.string)
    try:
        found = list(known.read(file["file"], patiently(storage.read_bytes, uri).decode("utf-8-sig"), folders))
        if {each.split for each in found} - {"train", "test"} or not all(each.image for each in found):
            raise ValueError("a row names no image, or a split other than train and test")
    except (KeyError, TypeError, ValueError, csv.Error) as error:
        raise DataError(
            f"{uri} is not as {known.name} has it ({type(error).__name__}: {error}); fetch it anew, or move it away to "
            "go by the folders"
        ) from None
    return found
