"""All files under a folder, at any depth, a list at a time."""

from __future__ import annotations

import itertools
import os
from collections import deque
from collections.abc import Iterator
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

from raydiff.errors import StorageError
from raydiff.storage import s3_listing
from raydiff.storage.errors import explained

PAGE = 1000  # files in one list


def walk(fs: fsspec.AbstractFileSystem, uri: str, path: str) -> Iterator[list[str]]:
    """What `storage.walk_files` says; `fs` and `path` are what `storage.filesystem` makes of `uri`."""
    if hasattr(fs, "call_s3"):
        yield from _s3(fs, uri, path)
        return
    with explained(uri, fs):
        if not fs.isdir(path):
            raise _no_folder(uri)
    files = _local(fs, path) if isinstance(fs, LocalFileSystem) else _walked(fs, path)
    while True:
        with explained(uri, fs):
            page = list(itertools.islice(files, PAGE))
        if not page:
            return
        yield page


def root(fs: fsspec.AbstractFileSystem, path: str) -> str:
    """What all that is listed below a folder begins with: `path` locally, a URI elsewhere."""
    return path if isinstance(fs, LocalFileSystem) else str(fs.unstrip_protocol(path))


def _s3(fs: Any, uri: str, path: str) -> Iterator[list[str]]:
    bucket, key, _ = fs.split_path(path)
    if not bucket:
        raise StorageError(f"{uri}: a bucket must be named")
    root = fs.unstrip_protocol(bucket)
    empty = True
    for keys in s3_listing.keys(fs, uri, bucket, f"{key}/" if key else ""):
        empty = False
        # An object that ends in a slash only marks a folder.
        if page := [f"{root}/{each}" for each in keys if not each.endswith("/")]:
            yield page
    if empty and key:
        raise _no_folder(uri)


def _walked(fs: fsspec.AbstractFileSystem, path: str) -> Iterator[str]:
    for folder, _, files in fs.walk(path, detail=False, on_error="raise"):
        yield from (fs.unstrip_protocol(f"{folder}/{file}") for file in files if file)
        fs.invalidate_cache()  # some remember every folder that they have listed


def _local(fs: LocalFileSystem, path: str) -> Iterator[str]:
    """Local files at any depth, links to folders followed (fsspec does not), each once: itself rather than a link."""

    def stop(error: OSError) -> None:
        if not isinstance(error, FileNotFoundError):  # which means that the folder was removed meanwhile
            with explained(error.filename, fs):
                raise error

    seen: set[str] = set()
    tops = deque([path])  # then the links to folders, which wait for all that lies there itself
    while tops:
        for folder, folders, files in os.walk(tops.popleft(), onerror=stop):  # leaves out in silence otherwise
            real = os.path.realpath(folder)
            if real in seen:
                folders.clear()
                continue
            seen.add(real)
            tops.extend(link for each in folders if os.path.islink(link := os.path.join(folder, each)))
            yield from (os.path.join(folder, file) for file in files)


def _no_folder(uri: str) -> StorageError:
    return StorageError(f"{uri} is not a folder that can be listed; check the name and your rights")
