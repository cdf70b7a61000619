"""Files that hold several images: a page of one is named `name.tif#3`, the third, wherever an image has a name.

Without `--pages` such a file is one image that is refused. With it, what is listed is looked at, each file at its
directories alone, and those of several pages become rows of their pages.
"""

from __future__ import annotations

import hashlib
import re
import struct
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import pyarrow as pa

from raydiff import storage
from raydiff.errors import SettingsError, StorageError, StorageUnavailable
from raydiff.images import dicom, table, tiff_file
from raydiff.storage.patience import patiently

OPTION = "--pages"
LOOKS_AT_ONCE = 16
FILES_HELD = 8  # of several pages, while these are read side by side
_SEVERAL = r"\.(?:tiff?|dcm|dicom)"  # endings of files that may hold several
_PAGE = re.compile(rf"(.+(?:{_SEVERAL}))#([1-9]\d{{0,6}})", re.IGNORECASE | re.DOTALL)
_MAY_HOLD_SEVERAL = re.compile(rf".+(?:{_SEVERAL})", re.IGNORECASE | re.DOTALL)


class Pages(NamedTuple):
    """Which pages of a file are images."""

    number: int | None  # from 1; None = all of them

    @classmethod
    def parse(cls, text: str | None) -> Pages | None:
        """Of `--pages first`, `all` or a number; None where it is not given.

        Raises:
            SettingsError: if it is something else.
        """
        if text is None:
            return None
        if text in ("first", "all"):
            return cls(1 if text == "first" else None)
        if not re.fullmatch(r"[1-9]\d{0,6}", text):
            raise SettingsError(f"{OPTION} {text} is none of first, all and a page's number from 1; give one of these")
        return cls(int(text))

    def of(self, uri: str, count: int) -> list[str]:
        """The names of those pages of a file that are images; a file of one page keeps its own."""
        if not _MAY_HOLD_SEVERAL.fullmatch(uri):
            return [uri]
        if self.number is None:
            return [f"{uri}#{page}" for page in range(1, count + 1)] if count > 1 else [uri]
        return [f"{uri}#{self.number}"] if max(count, self.number) > 1 else [uri]

    @classmethod
    def seen_in(cls, uris: Iterable[str]) -> Pages | None:
        """Which pages are images where images have these names; None where none is a page."""
        numbers = {page for page in (split(uri)[1] for uri in uris) if page}
        return cls(numbers.pop() if len(numbers) == 1 else None) if numbers else None

    def option(self) -> str:
        """As it is given on a command line."""
        return f"{OPTION} {self.number or 'all'}"

    def claimed(self, source: str) -> str:
        """What scores of these pages of a source are noted to be of."""
        return f"{source} ({self.option()})"


class File(NamedTuple):
    """The bytes of a file, and which of its pages is meant."""

    data: bytes
    page: int | None = None

    def digest(self) -> str:
        """SHA-256 in hexadecimal digits: of the bytes, and behind them `#3`, if a page is meant."""
        return _digest(hashlib.sha256(self.data), self.page)


def digest_of(path: str, page: int | None) -> str:
    """As `File.digest`, of a file on this machine's disk, which is not held.

    Raises:
        StorageError: if it cannot be read.
    """
    with storage.opened(path) as file:
        source: Any = file  # typed as less than it is
        return _digest(hashlib.file_digest(source, "sha256"), page)


def _digest(of_bytes: hashlib._Hash, page: int | None) -> str:
    of_bytes.update(f"#{page}".encode() if page else b"")
    return of_bytes.hexdigest()


def split(uri: str) -> tuple[str, int | None]:
    """A file and which of its pages is meant, None where none is named."""
    match = _PAGE.fullmatch(uri)
    return (match[1], int(match[2])) if match else (uri, None)


def file_of(uri: str) -> str:
    """The file that a page is in; any other name as it is."""
    return split(uri)[0]


def read(uri: str) -> File:
    """The file of an image.

    Raises:
        StorageError: if it is missing or cannot be read.
    """
    file, page = split(uri)
    return File(storage.read_bytes(file), page)


class Shared:
    """As `read`, for several threads: a file is fetched once for those of its pages that are read one after another."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held: OrderedDict[str, Future[bytes]] = OrderedDict()

    def __call__(self, uri: str) -> File:
        """The file of an image; errors as `read`."""
        name, page = split(uri)
        if page is None:
            return File(storage.read_bytes(name))
        with self._lock:
            found = self._held.get(name)
            asked = found or self._held.setdefault(name, Future())
            while len(self._held) > FILES_HELD:
                self._held.popitem(last=False)
        if found is None:
            try:
                asked.set_result(storage.read_bytes(name))
            except BaseException as error:
                with self._lock:
                    self._held.pop(name, None)  # another try asks again
                asked.set_exception(error)
        return File(asked.result(), page)


def count(uri: str) -> int:
    """How many pages a file has, by its directories; 1 for what cannot be read as such a file: its row says why.

    Raises:
        StorageUnavailable: if the store does not answer for long.
    """
    if not _MAY_HOLD_SEVERAL.fullmatch(uri):
        return 1
    try:
        return patiently(_count, uri)
    except StorageUnavailable:
        raise
    except StorageError:
        return 1


def _count(uri: str) -> int:
    with storage.opened(uri) as file:

        def part(place: int, size: int) -> bytes:
            file.seek(place)
            return bytes(file.read(size))

        try:
            if dicom.BEGINNING.match(part(0, 132)):
                return max(dicom.frame_count(file), 1)
            if tiff_file.BEGINNING.match(part(0, 4)):
                return max(tiff_file.page_count(part), 1)
        except (ValueError, struct.error):
            pass
    return 1


def expanded(
    images: pa.Table, pages: Pages | None, with_parts: bool = False, counted: Callable[[], None] = lambda: None
) -> pa.Table:
    """An image table in which files of several pages are rows of their pages, sorted by uri.

    Each row says of its page what the file's row said. A mask of as many pages has one for each, a mask of one page is
    that of all.

    Args:
        with_parts: where the table knows neither parts nor times, a column `part` says which pages are of one file:
            they are likely to show one thing, and must not be split between what trains and what is held out.
        counted: called after each row's pages were counted.

    Raises:
        StorageUnavailable: if a store does not answer for long.
    """
    if pages is None or not len(images):
        return images
    uris, masks = images["uri"].to_pylist(), images["mask_uri"].to_pylist()
    counts = _counts(uris, counted)
    of_masks = _counts([mask if number > 1 else None for mask, number in zip(masks, counts, strict=True)])
    rows: list[int] = []
    names: list[str] = []
    mask_names: list[str | None] = []
    for row, (uri, mask, number, of_mask) in enumerate(zip(uris, masks, counts, of_masks, strict=True)):
        for name in pages.of(uri, number):
            page = split(name)[1] if name != uri else None
            rows.append(row)
            names.append(name)
            mask_names.append(f"{mask}#{page}" if mask and page and of_mask == number > 1 else mask)
    if names == uris:
        return images
    found = images.take(pa.array(rows, pa.int64()))
    replaced: dict[str, list[Any]] = {"uri": names, "mask_uri": mask_names}
    for column, values in replaced.items():
        place = found.column_names.index(column)
        found = found.set_column(place, found.schema.field(column), pa.array(values, pa.string()))
    several = len(names) > len(uris)
    if with_parts and several and table.PART not in found.column_names and table.TIME not in found.column_names:
        found = found.append_column(table.PART, pa.array([file_of(name) for name in names], pa.string()))
    return found.sort_by("uri")


def _counts(uris: Iterable[str | None], counted: Callable[[], None] = lambda: None) -> list[int]:
    found = []
    with ThreadPoolExecutor(LOOKS_AT_ONCE) as pool:
        for number in pool.map(lambda uri: count(uri) if uri and split(uri)[1] is None else 1, uris):
            found.append(number)
            counted()
    return found
