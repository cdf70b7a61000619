"""What images an archive holds, found a page at a time, so that millions need no more memory than thousands."""

from __future__ import annotations

import datetime
import re
from collections.abc import Collection, Iterator

import pyarrow as pa

from raydiff import storage
from raydiff.images import own_table
from raydiff.images.archive import SCHEMA
from raydiff.images.layouts import MASKS, category_of, is_image

NAMES_KEPT = 5  # of files that are left out

# 2026-05-07, 20260507T101500, 2026/05/07, year=2026/month=05/day=07
_DAY = re.compile(
    r"(?<!\d)(20\d\d)(?:([-_./])(?:month=)?(0[1-9]|1[0-2])\2(?:day=)?([0-2]\d|3[01])"
    r"|(0[1-9]|1[0-2])([0-2]\d|3[01])(?:\d{4}|\d{6})?)(?!\d)"
)


class Listing:
    """The images of a folder or table, as tables in `archive.SCHEMA` when iterated over.

    A folder's images are unlabelled; a folder of a category's name says what they show, and the last date in a path
    when they were taken. Files that are no images, hidden ones, masks (ground_truth/) and raydiff's own maps are left
    out. A table is as in `own_table`; its rows say themselves what they are.

    Args:
        uri: the folder or table.
        categories: those that the model knows. Images in no folder of such a name are counted as `unknown`, and the
            first folder's name is their category.

    Raises:
        DataError: while it is iterated over, if a table does not fit.
        StorageError: if the folder cannot be listed.
    """

    def __init__(self, uri: str, categories: Collection[str] = ()) -> None:
        self.uri = storage.absolute(uri)
        self.categories = categories
        fs, inside = storage.filesystem(self.uri)
        self._root = inside if storage.is_local(self.uri) else fs.unstrip_protocol(inside)
        self.unknown = 0
        self.left_out = 0
        self.left_out_names: list[str] = []

    def __iter__(self) -> Iterator[pa.Table]:
        return own_table.read_batches(self.uri) if own_table.is_table(self.uri) else self._folder()

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
            for uri in page:
                path = self._path(uri)
                if is_image(path) and MASKS not in path.split("/"):
                    row = {"uri": uri, "dataset": dataset, "category": self._category(path), "day": day_of(path)}
                    rows.append({**row, "split": "test"})
                else:
                    self._leave_out(path)
            yield pa.Table.from_pylist(rows, SCHEMA)

    def _category(self, path: str) -> str:
        found = category_of(path, self.categories)
        if found is None and self.categories:
            self.unknown += 1
        return found or (path.split("/")[0] if "/" in path else storage.name(self.uri))

    def _leave_out(self, path: str) -> None:
        self.left_out += 1
        if len(self.left_out_names) < NAMES_KEPT:
            self.left_out_names.append(path)


def day_of(path: str) -> datetime.date | None:
    """The last date in a path, if there is one."""
    for match in reversed(list(_DAY.finditer(path))):
        try:
            return datetime.date(int(match[1]), int(match[3] or match[5]), int(match[4] or match[6]))
        except ValueError:  # 30 February
            continue
    return None
