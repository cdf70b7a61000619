"""A file that is read bit by bit: an archive of any size, of which no more is held than is read."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import BinaryIO

import fsspec

from raydiff.storage.errors import explained
from raydiff.storage.uris import filesystem

AHEAD_BYTES = 2**22  # that a store is asked for at a time


class Source:
    """An opened file, as far as tarfile, zipfile and what unpacks for them want it.

    A read that fails is told as the storage tells it, so that it is not taken for a damaged archive.

    Attributes:
        once: whether it can be read from its beginning to its end alone, as of a web server that sends no ranges; known
            after `beginning`.
    """

    def __init__(self, uri: str, fs: fsspec.AbstractFileSystem, file: BinaryIO, size: int) -> None:
        self.uri = uri
        self.size = size
        self._fs = fs
        self._file = file
        self._again = b""  # what is read before the file goes on
        self.once = False

    def read(self, count: int = -1) -> bytes:
        """At most `count` bytes; none at the end.

        Raises:
            StorageError, StorageUnavailable: if they cannot be had.
        """
        if self._again:
            end = len(self._again) if count < 0 else count
            data, self._again = self._again[:end], self._again[end:]
            return data if count >= 0 else data + self.read()
        with explained(self.uri, self._fs):
            return self._file.read(count)

    def beginning(self, count: int) -> bytes:
        """The first `count` bytes, which are read again after; to be asked for before anything is read.

        Raises:
            StorageError, StorageUnavailable: if they cannot be had.
        """
        data = b""
        while len(data) < count and (piece := self.read(count - len(data))):
            data += piece
        try:
            self._file.seek(0)
        except ValueError:
            self.once, self._again = True, data
        return data

    def seek(self, place: int, whence: int = os.SEEK_SET) -> int:
        """Go to a place."""
        return self._file.seek(place, whence)

    def tell(self) -> int:
        """The place that is read next."""
        return self._file.tell() - len(self._again)

    def seekable(self) -> bool:
        """For zipfile."""
        return not self.once


@contextlib.contextmanager
def source(uri: str) -> Iterator[Source]:
    """A file, opened to be read bit by bit.

    Raises:
        StorageError, StorageUnavailable: if it is not there, or cannot be opened.
    """
    fs, path = filesystem(uri)
    with contextlib.ExitStack() as stack:
        with explained(uri, fs):
            file = stack.enter_context(fs.open(path, "rb", block_size=AHEAD_BYTES))
            size = int(fs.info(path)["size"] or 0)  # which a web server may keep to itself
        yield Source(uri, fs, file, size)


def version(uri: str) -> dict[str, str | int]:
    """What changes when a file is written anew, as far as its store says it.

    Raises:
        StorageError, StorageUnavailable: if it is not there, or the store does not answer.
    """
    fs, path = filesystem(uri)
    with explained(uri, fs):
        found = fs.info(path)
    when = next((found[key] for key in ("ETag", "etag", "mtime", "LastModified") if found.get(key)), "")
    return {"bytes": int(found["size"] or 0), "version": str(when)}
