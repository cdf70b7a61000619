"""The mark of a folder that `raydiff ingest` unpacks an archive into: whether it is whole, and what it was made of."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator
from typing import Any

from raydiff import storage
from raydiff.errors import DataError, StorageError, StorageUnavailable
from raydiff.images.names import INGESTED


def mark_uri(folder: str) -> str:
    """Where the mark lies."""
    return storage.join(folder, INGESTED)


def mark(folder: str) -> dict[str, Any] | None:
    """What the mark in a folder says; None where there is none.

    Raises:
        DataError: if it is no mark.
        StorageError: if it cannot be read.
    """
    uri = mark_uri(folder)
    if not storage.exists(uri):
        return None
    found = storage.read_json(uri)
    if not isinstance(found, dict) or not isinstance(found.get("archive"), str) or "finished" not in found:
        raise DataError(f"{uri} is not as `raydiff ingest` writes it; unpack the archive into another folder")
    return found


def check_mark(folder: str) -> None:
    """Whether what was unpacked into this very folder is whole.

    Raises:
        DataError: if unpacking has not come to its end.
        StorageError: if its mark cannot be read.
    """
    found = mark(folder)
    if found is not None and not found["finished"]:
        raise DataError(
            f"{folder} is not whole: {found['archive']} is not unpacked to its end; run "
            f"`raydiff ingest {shlex.quote(found['archive'])} --out {shlex.quote(folder)}` again, which goes on"
        )


def check_whole(folder: str) -> None:
    """Whether a folder of images is whole, as far as an archive was unpacked into it, or into one above it.

    A store is asked two or three times for each of these: once before a job, not once a listing.

    Raises:
        DataError: if unpacking has not come to its end.
        StorageUnavailable: if the store does not answer.
    """
    for each in _and_above(storage.absolute(folder)):
        try:
            check_mark(each)
        except StorageUnavailable:
            raise
        except StorageError:  # a folder above may be another's, and a store may refuse to tell what is not there
            continue


def _and_above(uri: str) -> Iterator[str]:
    """A folder, and those above it: up to the bucket, or on this machine to the root."""
    if storage.is_local(uri):
        while True:
            yield uri
            above = os.path.dirname(uri)
            if above == uri:
                return
            uri = above
    scheme, _, path = uri.rpartition("://")
    parts = path.split("/")
    for count in range(len(parts), 0, -1):
        yield f"{scheme}://{'/'.join(parts[:count])}"
