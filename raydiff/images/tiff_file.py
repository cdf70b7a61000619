"""The structure of a TIFF file: its pages, their tags, and what they say about the pixels, in types.

Every number in a file may be a lie. Nothing here takes more memory or time than the file's own size allows for.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np

from raydiff.errors import ImageError

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

    def __init__(self, data: bytes, order: str, big: bool, place: int) -> None:
        """Raises struct.error, ValueError: if it does not lie in the file."""
        self.data, self.order = data, order
        (count,) = struct.unpack_from(order + ("Q" if big else "H"), data, place)
        if count > _MOST_TAGS:
            raise ValueError(f"a directory of {count} tags")
        pointer = order + ("u8" if big else "u4")
        entry = np.dtype([("tag", order + "u2"), ("type", order + "u2"), ("count", pointer), ("value", pointer)])
        start = place + (8 if big else 2)
        entries = np.frombuffer(data, entry, count, start)
        self._entries: dict[int, tuple[int, int, int]] = {}
        for index, (tag, kind, number, value) in enumerate(entries.tolist()):
            inside = number * _SIZES.get(kind, 0) <= entry["value"].itemsize
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


def single_page(data: bytes) -> Page:
    """The one page of a TIFF that is no reduced copy.

    Raises:
        ImageError: if there are several, or none.
        ValueError, struct.error: if the file is damaged.
    """
    order = "<" if data.startswith(b"II") else ">"
    big = data[2:4] in (b"+\0", b"\0+")
    if big and data[4:8] != struct.pack(order + "HH", 8, 0):
        raise ValueError("a BigTIFF header that is none")
    (place,) = struct.unpack_from(order + ("Q" if big else "I"), data, 8 if big else 4)
    seen: set[int] = set()
    first, count = None, 0
    while place:
        if place in seen or len(seen) == _MOST_PAGES:
            raise ValueError("its pages go round in a circle" if place in seen else f"more than {_MOST_PAGES} pages")
        seen.add(place)
        page = Page(data, order, big, place)
        if not page.reduced:
            first, count = first or page, count + 1
        place = page.following
    count = max(count, _stacked(first)) if first else 0
    if first is None or count != 1:
        raise ImageError(f"the TIFF holds {count} pages; save each page as a file of its own")
    return first


def _stacked(page: Page) -> int:
    """How many pages ImageJ has put behind one directory."""
    words = page.raw(_DESCRIPTION)[:4096].split()
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


def grid(page: Page, said: Facts) -> Grid:
    """The page's strips or tiles.

    Raises:
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
    size = np.uint64(len(page.data))
    if (offsets > size).any() or (sizes > size - offsets).any():
        raise ValueError("its pixels go on behind the file's end: it is truncated")
    if int(sizes.sum()) > len(page.data):
        raise ValueError("its strips or tiles lie over each other")
    shape = (planes, down * across)
    return Grid(width, height, across, down, tiled, *(x.astype(np.int64).reshape(shape) for x in (offsets, sizes)))
