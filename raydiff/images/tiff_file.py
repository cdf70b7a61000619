"""The structure of a TIFF file: its pages, their tags, and what they say about the pixels, in types.

Every number in a file may be a lie. Nothing here takes more memory or time than the file's own size allows for.
"""

from __future__ import annotations

import mmap
import re
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from raydiff.errors import ImageError

BEGINNING = re.compile(rb"II[*+]\0|MM\0[*+]")
Data = bytes | mmap.mmap  # of a whole file
Part = Callable[[int, int], bytes]  # reads so many bytes of a file from a place on

_MOST_PAGES = 1000
_MOST_TAGS = 1024
_INTEGERS = {1: "u1", 3: "u2", 4: "u4", 13: "u4", 16: "u8", 18: "u8"}
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}

_NEW_SUBFILE, _SUBFILE = 254, 255
_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC, _FILL_ORDER = 256, 257, 258, 259, 262, 266
_DESCRIPTION, _ORIENTATION, _SAMPLES, _PLANAR, _PREDICTOR = 270, 274, 277, 284, 317
_EXTRA, _FORMAT = 338, 339
_ROWS, _STRIPS, _STRIP_SIZES = 278, 273, 279
_TILE_WIDTH, _TILE_HEIGHT, _TILES, _TILE_SIZES = 322, 323, 324, 325


class Page:
    """One directory of tags."""

    def __init__(self, data: Data, order: str, big: bool, place: int) -> None:
        """Raises struct.error, ValueError: if it does not lie in the file."""
        self.data, self.order = data, order
        (count,) = struct.unpack_from(order + ("Q" if big else "H"), data, place)
        if count > _MOST_TAGS:
            raise ValueError(f"a directory of {count} tags")
        pointer = order + ("u8" if big else "u4")
        entry = np.dtype([("tag", order + "u2"), ("type", order + "u2"), ("count", pointer), ("value", pointer)])
        self._room = entry["value"].itemsize
        start = place + (8 if big else 2)
        entries = np.frombuffer(data, entry, count, start)
        self._entries: dict[int, tuple[int, int, int]] = {}
        for index, (tag, kind, number, value) in enumerate(entries.tolist()):
            inside = number * _SIZES.get(kind, 0) <= self._room
            beginning = start + index * entry.itemsize + entry.fields["value"][1]  # type: ignore[index]
            self._entries.setdefault(tag, (kind, number, beginning if inside else value))
        end = start + count * entry.itemsize
        (self.following,) = struct.unpack_from(order + ("Q" if big else "I"), data, end)

    def numbers(self, tag: int) -> np.ndarray | None:
        """The whole numbers of a tag; None if the page has none of that name, or not as numbers."""
        kind, number, place = self._entries.get(tag, (0, 0, 0))
        if kind not in _INTEGERS or not number:
            return None
        return np.frombuffer(self.data, self.order + _INTEGERS[kind], number, place)

    def number(self, tag: int, otherwise: int) -> int:
        """The first number of a tag."""
        found = self.numbers(tag)
        return otherwise if found is None else int(found[0])

    def raw(self, tag: int) -> bytes:
        """A tag's bytes, whatever they mean; nothing if there is no such tag."""
        kind, number, place = self._entries.get(tag, (0, 0, 0))
        return self.data[place : place + number * _SIZES.get(kind, 0)]

    def beginning(self, tag: int, part: Part, size: int) -> bytes:
        """A tag's first bytes, where the page holds its directory alone and `part` reads the rest of the file."""
        kind, number, place = self._entries.get(tag, (0, 0, 0))
        whole = number * _SIZES.get(kind, 0)
        inside = whole <= self._room
        return self.data[place : place + whole] if inside else part(place, min(size, whole))

    @property
    def reduced(self) -> bool:
        """Whether it is a smaller copy of another page."""
        return bool(self.number(_NEW_SUBFILE, 0) & 1) or self.number(_SUBFILE, 1) == 2


@dataclass(frozen=True)
class Facts:
    """What a page says about its pixels."""

    width: int
    height: int
    bits: int
    sample_format: int
    photometric: int
    samples: int
    extra: tuple[int, ...]
    planar: bool
    compression: int
    predictor: int
    fill_order: int
    orientation: int


@dataclass(frozen=True)
class Grid:
    """Where the pixels lie: strips are tiles as wide as the image, of which the last may be shorter.

    `offsets` and `sizes` are of shape (planes, down x across), in bytes.
    """

    width: int
    height: int
    across: int
    down: int
    tiled: bool
    offsets: np.ndarray
    sizes: np.ndarray


def page_count(part: Part) -> int:
    """How many pages a TIFF has that are no reduced copies of others.

    Raises:
        ValueError, struct.error: if the file is damaged.
    """
    return _directories(part).pages


def page_of(data: Data, number: int | None = None) -> tuple[Page, int]:
    """A page of a TIFF that is no reduced copy, and how many pages before it are behind the same directory.

    Args:
        number: which one, from 1; None = the only one.

    Raises:
        ImageError: if there is no such page, or there are several and none is asked for.
        ValueError, struct.error: if the file is damaged.
    """
    found, place, before = _chosen(lambda place, size: data[place : place + size], number)
    return Page(data, found.order, found.big, place), before


def size_of(part: Part, number: int | None = None) -> tuple[int, int]:
    """Height and width of a page as the file has it, by its directory alone; `number` and errors as of `page_of`."""
    found, place, _ = _chosen(part, number)
    page = _directory(part, found.order, found.big, place)
    return page.number(_HEIGHT, 0), page.number(_WIDTH, 0)


def _chosen(part: Part, number: int | None) -> tuple[_Directories, int, int]:
    """A file's directories, where that of a page is, and how many pages before it are behind the same."""
    found = _directories(part)
    if found.pages == 0 or (number is None and found.pages != 1):
        raise ImageError(
            f"the TIFF holds {found.pages} pages; say which are images with --pages first, all or a page's number, "
            "or save each page as a file of its own"
        )
    number = number or 1
    if number > found.pages:
        raise ImageError(
            f"the TIFF has no page {number}, {found.pages} is its last; give --pages a number up to that, or all"
        )
    single = len(found.places) == 1
    return found, found.places[0 if single else number - 1], number - 1 if single else 0


class _Directories(NamedTuple):
    """Where the pages' directories are; ImageJ puts a whole stack behind one."""

    order: str
    big: bool
    places: list[int]
    stacked: int

    @property
    def pages(self) -> int:
        return max(len(self.places), self.stacked if len(self.places) == 1 else 0)


def _directories(part: Part) -> _Directories:
    """Of a file that is read in parts: a store need not be asked for its pixels."""
    head = part(0, 16)
    order = "<" if head.startswith(b"II") else ">"
    big = head[2:4] in (b"+\0", b"\0+")
    if big and head[4:8] != struct.pack(order + "HH", 8, 0):
        raise ValueError("a BigTIFF header that is none")
    (place,) = struct.unpack_from(order + ("Q" if big else "I"), head, 8 if big else 4)
    seen: set[int] = set()
    places: list[int] = []
    stacked = 0
    while place:
        if place in seen or len(seen) == _MOST_PAGES:
            raise ValueError("its pages go round in a circle" if place in seen else f"more than {_MOST_PAGES} pages")
        seen.add(place)
        directory = _directory(part, order, big, place)
        if not directory.reduced:
            stacked = stacked or _stacked(directory.beginning(_DESCRIPTION, part, 4096))
            places.append(place)
        place = directory.following
    return _Directories(order, big, places, stacked)


def _directory(part: Part, order: str, big: bool, place: int) -> Page:
    """The directory at a place alone."""
    entry, room = (20, 8) if big else (12, 4)
    (count,) = struct.unpack(order + ("Q" if big else "H"), part(place, 8 if big else 2))
    if count > _MOST_TAGS:
        raise ValueError(f"a directory of {count} tags")
    return Page(part(place, (8 if big else 2) + entry * count + room), order, big, 0)


def _stacked(description: bytes) -> int:
    """How many pages ImageJ has put behind one directory."""
    words = description.split()
    if not words or not words[0].startswith(b"ImageJ="):
        return 0
    return next((int(word[7:]) for word in words if word.startswith(b"images=") and word[7:].isdigit()), 0)


def facts(page: Page) -> Facts:
    """What the page says about its pixels, with TIFF 6.0's defaults.

    Raises:
        ImageError: if its channels are not all of one kind.
    """
    samples = page.number(_SAMPLES, 1)
    each = [page.numbers(tag) for tag in (_BITS, _FORMAT)]
    if any(found is not None and (found != found[0]).any() for found in each):
        raise ImageError("the TIFF's channels are of different depths or kinds; save it with 8 or 16 bits each")
    extra = page.numbers(_EXTRA)
    return Facts(
        page.number(_WIDTH, 0),
        page.number(_HEIGHT, 0),
        page.number(_BITS, 1),
        page.number(_FORMAT, 1),
        page.number(_PHOTOMETRIC, -1),
        samples,
        () if extra is None else tuple(extra[:samples].tolist()),
        page.number(_PLANAR, 1) == 2 and samples > 1,
        page.number(_COMPRESSION, 1),
        page.number(_PREDICTOR, 1),
        page.number(_FILL_ORDER, 1),
        page.number(_ORIENTATION, 1),
    )


def grid(page: Page, said: Facts, before: int = 0) -> Grid:
    """The page's strips or tiles.

    Args:
        before: pages that lie before its own, all behind its directory.

    Raises:
        ImageError: if such pages do not lie as ImageJ puts them, plainly one behind the other.
        ValueError: if they do not lie in the file, or would take more memory than the image.
    """
    planes = said.samples if said.planar else 1
    tiled = page.numbers(_TILE_WIDTH) is not None
    if tiled:
        width, height = page.number(_TILE_WIDTH, 0), page.number(_TILE_HEIGHT, 0)
    else:
        width, height = said.width, min(page.number(_ROWS, said.height), said.height)
    if not width or not height:
        raise ValueError("strips or tiles without pixels")
    across, down = -(-said.width // width), -(-said.height // height)
    if across * down * width * height > 4 * said.width * said.height + 2**24:
        raise ValueError(f"tiles of {width} x {height} for {said.width} x {said.height} pixels")
    count = planes * across * down
    offsets = page.numbers(_TILES if tiled else _STRIPS)
    sizes = page.numbers(_TILE_SIZES if tiled else _STRIP_SIZES)
    if offsets is None or len(offsets) < count or (sizes is not None and len(sizes) < count):
        raise ValueError(f"not all of its {count} strips or tiles are there")
    if sizes is None:
        if count > 1 or said.compression != 1:
            raise ValueError("the sizes of its strips or tiles are missing")
        sizes = np.array([max(len(page.data) - int(offsets[0]), 0)])
    offsets, sizes = (values[:count].astype(np.uint64) for values in (offsets, sizes))
    if before:
        if said.compression != 1 or tiled or planes > 1:
            raise ImageError("the TIFF's pages are packed behind one directory; save each page as a file of its own")
        offsets += np.uint64(before * said.height * (-(-said.width * said.samples * said.bits // 8)))
    size = np.uint64(len(page.data))
    if (offsets > size).any() or (sizes > size - offsets).any():
        raise ValueError("its pixels go on behind the file's end: it is truncated")
    if int(sizes.sum()) > len(page.data):
        raise ValueError("its strips or tiles lie over each other")
    shape = (planes, down * across)
    return Grid(width, height, across, down, tiled, *(x.astype(np.int64).reshape(shape) for x in (offsets, sizes)))
