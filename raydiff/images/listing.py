"""What images an archive holds, found a page at a time, so that millions need no more memory than thousands."""

from __future__ import annotations

import datetime
import re
from collections import Counter
from collections.abc import Collection, Iterator

import pyarrow as pa

from raydiff import storage
from raydiff.images.archive import SCHEMA
from raydiff.images.ingested import check_mark
from raydiff.images.names import (
    IMAGE_EXTENSIONS,
    INGESTED,
    MASKS,
    base_of_mask,
    category_of,
    folder_left_out,
    is_image,
    is_text,
    printable,
    stem,
)
from raydiff.images.pages import Pages, expanded
from raydiff.images.parts import PartPattern, with_column
from raydiff.images.tables import own_table
from raydiff.storage import walking
from raydiff.storage.patience import patiently

NAMES_KEPT = 5  # of files that are left out
FOLDERS_KEPT = 20  # names of folders that are left out; the rest are counted together
# So many names that end as a mask's does, of which none has its image beside it: an archive whose images are called so.
ASKED_IN_VAIN = 64

# 2026-05-07, 20260507T101500, 2026/05/07, year=2026/month=05/day=07
_DAY = re.compile(
    r"(?<!\d)(20\d\d)(?:([-_./])(?:month=)?(0[1-9]|1[0-2])\2(?:day=)?([0-2]\d|3[01])"
    r"|(0[1-9]|1[0-2])([0-2]\d|3[01])(?:\d{4}|\d{6})?)(?!\d)"
)

_UPPER = tuple(extension.upper() for extension in IMAGE_EXTENSIONS)


class Listing:
    """The images of a folder or table, as tables in `archive.SCHEMA` when iterated over.

    A folder's images are unlabelled; a folder of a category's name says what they show, and the last date in a path
    when they were taken. Files that are no images, hidden ones, masks (in ground_truth/, or `x_mask.png` beside
    `x.png`), raydiff's own maps and the folders of a NAS or the system are left out. A table is as in `own_table`; its
    rows say themselves what they are.

    Args:
        uri: the folder or table.
        categories: those that the model knows. Images in no folder of such a name are counted as `unknown`, and the
            first folder's name is their category.
        pages: which pages of a file are images, each with a row of its own; by default a file is one image.
        part_from: names the part that an image shows, in a column `part`, by its path below the folder, or below the
            table's.

    Raises:
        DataError: while it is iterated over, if a table does not fit, or says itself which part an image shows; if an
            archive is not unpacked to its end in the folder.
        StorageError: if the folder cannot be listed.
    """

    def __init__(
        self,
        uri: str,
        categories: Collection[str] = (),
        pages: Pages | None = None,
        part_from: PartPattern | None = None,
    ) -> None:
        self.uri = storage.absolute(uri)
        self.pages = pages
        self.part_from = part_from
        self.categories = categories
        self._root = walking.root(*storage.filesystem(self.uri))
        self.unknown = 0
        self.left_out = 0
        self.left_out_names: list[str] = []
        self.left_out_folders: Counter[str] = Counter()  # files in folders of a NAS, the system, ...; by its name
        self._in_vain = 0

    def __iter__(self) -> Iterator[pa.Table]:
        found = own_table.read_batches(self.uri) if own_table.is_table(self.uri) else self._folder()
        listed = (expanded(rows, self.pages) for rows in found)
        pattern = self.part_from
        if pattern is None:
            return listed
        folder = folder_of(self.uri)
        return (with_column(rows, pattern, [folder]) for rows in listed)

    def category(self, uri: str) -> str:
        """What an image of the folder shows."""
        return self._category(self._path(uri))

    def _path(self, uri: str) -> str:
        """An image's path below the folder."""
        return uri[len(self._root) :].lstrip("/")

    def _folder(self) -> Iterator[pa.Table]:
        dataset = storage.name(self.uri)
        for page in storage.walk_files(self.uri):
            rows = []
            there = {stem(uri) for uri in page if is_image(self._path(uri))}
            for uri in page:
                path = self._path(uri)
                if self._is_shown(path) and not self._is_mask(uri, there):
                    row = {"uri": uri, "dataset": dataset, "category": self._category(path), "day": day_of(path)}
                    rows.append({**row, "split": "test"})
                elif path == INGESTED:
                    check_mark(self.uri)
                else:
                    self._leave_out(path)
            yield pa.Table.from_pylist(rows, SCHEMA)

    def _category(self, path: str) -> str:
        found = category_of(path, self.categories)
        if found is None and self.categories:
            self.unknown += 1
        return found or (path.split("/")[0] if "/" in path else storage.name(self.uri))

    def _is_shown(self, path: str) -> bool:
        return is_image(path) and is_text(path) and MASKS not in path.lower().split("/")[:-1]

    def _is_mask(self, uri: str, there: Collection[str]) -> bool:
        """Whether a file called as a mask is (`x_GT.png`) has its image beside it, in this page or as the store says.

        An archive may have millions of files: no names are held, and after some in vain it is not asked again.
        """
        folder, slash, name = stem(uri).rpartition("/")
        called = base_of_mask(name)
        if not called:
            return False
        image = folder + slash + called[0]
        if image in there:
            return True
        if self._in_vain >= ASKED_IN_VAIN:
            return False
        found = any(patiently(storage.exists, image + extension) for extension in (*IMAGE_EXTENSIONS, *_UPPER))
        self._in_vain = 0 if found else self._in_vain + 1
        return found

    def _leave_out(self, path: str) -> None:
        self.left_out += 1
        if folder := folder_left_out(path):
            few = folder in self.left_out_folders or len(self.left_out_folders) < FOLDERS_KEPT
            self.left_out_folders[printable(folder) if few else "others"] += 1
        elif len(self.left_out_names) < NAMES_KEPT:
            self.left_out_names.append(printable(path))


def folder_of(uri: str) -> str:
    """What the paths of a source's images are below: the folder itself, or the folder of a table."""
    return uri.rpartition("/")[0] if own_table.is_table(uri) else walking.root(*storage.filesystem(uri))


def day_of(path: str) -> datetime.date | None:
    """The last date in a path, if there is one."""
    for match in reversed(list(_DAY.finditer(path))):
        try:
            return datetime.date(int(match[1]), int(match[3] or match[5]), int(match[4] or match[6]))
        except ValueError:  # 30 February
            continue
    return None
