"""Image files that are too large to be held, as bands of their rows: which there are, and their pixels."""

from __future__ import annotations

import contextlib
import mmap
import re
import struct
from collections.abc import Iterator

import numpy as np

from raydiff import storage
from raydiff.errors import ImageError, StorageError, StorageUnavailable
from raydiff.images import tiff_file
from raydiff.images.decode import told_as_damage
from raydiff.images.levels import Levels
from raydiff.images.pages import split
from raydiff.images.samples import rgb
from raydiff.images.tiff_bands import Banded

MAX_PIXELS = 2**32  # of an image that is read in bands
MAX_WIDTH = 2**16  # what is held of it grows with its width

_NAMED = re.compile(r".+\.tiff?", re.IGNORECASE | re.DOTALL)
_KIND = "TIFF"


def size_if_large(uri: str, max_pixels: int) -> tuple[int, int] | None:
    """Height and width of an image that has more pixels than that and may be read in bands, by its header alone.

    None of all others, and of what cannot be looked at: reading it says why.

    Args:
        uri: of a file, or of a page of one.

    Raises:
        StorageUnavailable: if the store does not answer.
    """
    file, number = split(uri)
    if not _NAMED.fullmatch(file):
        return None
    try:
        with storage.opened(file) as opened:

            def part(place: int, size: int) -> bytes:
                opened.seek(place)
                return bytes(opened.read(size))

            if not tiff_file.BEGINNING.match(part(0, 4)):
                return None
            height, width = tiff_file.size_of(part, number)
    except StorageUnavailable:
        raise
    except (StorageError, ImageError, ValueError, struct.error):
        return None
    return (height, width) if height * width > max_pixels else None


class Bands:
    """An image file on this machine's disk, of which some rows are in memory at a time."""

    def __init__(self, path: str, page: int | None = None, levels: Levels | None = None) -> None:
        """Nothing is unpacked yet.

        Args:
            page, levels: as of `decode`.

        Raises:
            ImageError: if it is damaged, or not read in bands.
        """
        self._path, self._page, self._levels = path, page, levels
        with self._opened() as (_, image):
            self.height, self.width = image.size
        if self.height * self.width > MAX_PIXELS or self.width > MAX_WIDTH:
            raise ImageError(
                f"the image is {self.width} x {self.height} pixels; in bands of its rows up to {MAX_PIXELS:,} pixels "
                f"are read, and {MAX_WIDTH:,} in a row; cut it"
            )

    def rows(self) -> Iterator[np.ndarray]:
        """Its upright rows from the top on, uint8 RGB (h, W, 3), as `decode` has them.

        Raises:
            ImageError: as `decode`; when the rows in question are read.
        """
        with self._opened() as (data, image):
            for samples in image.bands():
                yield rgb(samples, self._levels)
                data.madvise(mmap.MADV_DONTNEED)  # else all of the file would count as this process's memory

    @contextlib.contextmanager
    def _opened(self) -> Iterator[tuple[mmap.mmap, Banded]]:
        with storage.opened(self._path) as file, told_as_damage(_KIND):
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)  # closed with the last rows that lie in it
            yield data, Banded(data, self._page)
