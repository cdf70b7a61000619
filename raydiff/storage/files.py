"""Files behind URIs: looked for, listed, read, and written whole or not at all."""

from __future__ import annotations

import contextlib
import glob
import io
import json
import os
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

import pyarrow.parquet as pq
from fsspec.implementations.local import LocalFileSystem

from raydiff.deadline import answers_within
from raydiff.errors import StorageError, StorageUnavailable
from raydiff.storage import walking
from raydiff.storage.errors import explained, knows_no_conditions
from raydiff.storage.patience import patiently
from raydiff.storage.uris import check_lasting, filesystem, is_local, name, trimmed

PROBE_SECONDS = 30.0
PART_BYTES = 2**16  # that a store is asked for at a time, where some small parts of a file are read


def exists(uri: str) -> bool:
    """Whether a file or folder is there."""
    fs, path = filesystem(uri)
    if isinstance(fs, LocalFileSystem):
        return os.path.exists(path)
    with explained(uri, fs):
        try:
            fs.info(path)  # fsspec's own `exists` takes a refusal or a dead endpoint for "no"
        except FileNotFoundError:
            return False
    return True


def is_folder(uri: str) -> bool:
    """Whether `uri` is a folder (on object stores: a prefix with something under it)."""
    fs, path = filesystem(uri)
    with explained(uri, fs):
        return bool(fs.isdir(path))


def list_files(uri: str) -> list[str]:
    """URIs of all files under a folder, at any depth, sorted.

    Raises:
        StorageError: as `walk_files` does.
    """
    return sorted(file for page in walk_files(uri) for file in page)


def walk_files(uri: str) -> Iterator[list[str]]:
    """URIs of all files under a folder, at any depth and in any order, in lists of at most 1000.

    Nothing is asked for before the first list is wanted. No more is held at a time than a list, or on S3-like stores
    (see `s3_listing`) those of as many requests as are under way at once; elsewhere also the names in one folder and
    those of all folders.

    Raises:
        StorageError: if the folder is not there, or it or one below may not be listed.
        StorageUnavailable: if the store gives no list; an S3-like one is asked for each `patiently`.
    """
    fs, path = filesystem(uri)
    return walking.walk(fs, uri, path)


def list_folders(uri: str) -> list[str]:
    """URIs of the folders directly under a folder, sorted."""
    fs, path = filesystem(uri)
    local = isinstance(fs, LocalFileSystem)
    with explained(uri, fs):
        entries = fs.ls(path, detail=True)
    found = (entry["name"].rstrip("/") for entry in entries if entry["type"] == "directory")
    return sorted(item if local else fs.unstrip_protocol(item) for item in found)


def read_bytes(uri: str) -> bytes:
    """The whole file.

    Raises:
        StorageError: if it is missing or cannot be read.
    """
    fs, path = filesystem(uri)
    # s3fs would ask for the size first, to fetch what is large in pieces: two requests for each image, not one.
    how = {"max_concurrency": 1} if hasattr(fs, "call_s3") else {}
    with explained(uri, fs):
        data = fs.cat_file(path, **how)
    assert isinstance(data, bytes)
    return data


def write_bytes(uri: str, data: bytes) -> None:
    """Write a whole file so that a reader sees all of it or none: by rename locally, by upload elsewhere."""
    fs, path = filesystem(uri)
    with explained(uri, fs):
        if isinstance(fs, LocalFileSystem):
            _make_folder_of(path)
            with _replacing(path) as partial, open(partial, "wb") as file:
                file.write(data)
        else:
            fs.pipe_file(path, data)


def create(uri: str, data: bytes) -> bool:
    """Write a small file unless there is one; whether it was written.

    Of several at the same time one succeeds, locally and where the store knows conditional writes (S3's If-None-Match).
    """
    fs, path = filesystem(uri)
    with explained(uri, fs):
        if isinstance(fs, LocalFileSystem):
            _make_folder_of(path)
            partial = os.path.join(os.path.dirname(path), f".{name(path)}.{uuid.uuid4().hex[:8]}.partial")
            try:
                with open(partial, "xb") as file:
                    file.write(data)
                try:
                    os.link(partial, path)  # whole, or not at all
                except FileExistsError:
                    return False
                except OSError:  # a mount that knows no links
                    with open(path, "xb") as file:
                        file.write(data)
            except FileExistsError:
                return False
            finally:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(partial)
            return True
        try:
            fs.pipe_file(path, data, mode="create")
        except FileExistsError:
            return False
        except Exception as error:
            if fs.exists(path):  # 412 comes in several forms
                return False
            if not knows_no_conditions(error):
                raise
            fs.pipe_file(path, data)
    return True


def write_file(uri: str, path: str) -> None:
    """Copy the local file at `path` to `uri`, whole or not at all for a reader there."""
    fs, target = filesystem(uri)
    with explained(uri, fs):
        if isinstance(fs, LocalFileSystem):
            _make_folder_of(target)
            with _replacing(target) as partial:
                shutil.copyfile(path, partial)
        else:
            fs.put_file(path, target)


@contextlib.contextmanager
def written(uri: str) -> Iterator[Callable[[bytes], None]]:
    """Write a file in pieces, by the function that is given: a reader there sees all of it, once it is whole, or none.

    Elsewhere than on this machine's disk it is gathered in a temporary file before. Large files are written so: what a
    writer of the same one has left that was killed is deleted.

    Raises:
        StorageError: if it cannot be written. What else is raised in between is left as it is.
    """
    fs, path = filesystem(uri)
    if isinstance(fs, LocalFileSystem):
        _make_folder_of(path)
        folder, file = map(glob.escape, os.path.split(path))
        for left in glob.glob(os.path.join(folder, f".{file}.{'[0-9a-f]' * 8}.partial")):
            delete(left)
        with _replacing(path) as partial, _in_pieces(partial) as write:
            yield write
        return
    with tempfile.TemporaryDirectory(prefix="raydiff-") as folder:
        gathered = os.path.join(folder, name(uri))
        with _in_pieces(gathered) as write:
            yield write
        patiently(write_file, uri, gathered)


def delete(uri: str) -> None:
    """Delete a file or folder of our own, if it is there."""
    fs, path = filesystem(uri)
    with explained(uri, fs), contextlib.suppress(FileNotFoundError):
        fs.rm(path, recursive=True)


def read_json(uri: str) -> Any:
    """A JSON file's value.

    Raises:
        StorageError: if it is missing, cannot be read or is not JSON.
    """
    try:
        return json.loads(read_bytes(uri))
    except ValueError as error:
        raise StorageError(f"{uri} is not valid JSON ({error})") from None


def write_json(uri: str, value: Any) -> None:
    """Write a value as JSON, whole or not at all."""
    write_bytes(uri, json_bytes(value))


def json_bytes(value: Any) -> bytes:
    """A value as the JSON that `write_json` writes."""
    return (json.dumps(value, indent=2, sort_keys=True) + "\n").encode()


@contextlib.contextmanager
def local_copy(uri: str) -> Iterator[str]:
    """A local path with the file's content: the file itself, or a copy removed afterwards."""
    fs, path = filesystem(uri)
    if isinstance(fs, LocalFileSystem):
        if not os.path.exists(path):
            raise StorageError(f"{uri} is not there; check the name")
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="raydiff-") as folder:
        copy = os.path.join(folder, name(uri))
        with explained(uri, fs):
            fs.get_file(path, copy)
        yield copy


@contextlib.contextmanager
def local_folder(uri: str) -> Iterator[str]:
    """A local folder with the same files at any depth: the folder itself, or a copy removed afterwards.

    What is no URI and not there either is given back as it is: a model hub's name, for one.
    """
    if is_local(uri):
        yield os.path.abspath(filesystem(uri)[1]) if exists(uri) else uri
        return
    with tempfile.TemporaryDirectory(prefix="raydiff-") as folder:
        for file in list_files(uri):
            copy = os.path.join(folder, file.removeprefix(f"{trimmed(uri)}/"))
            os.makedirs(os.path.dirname(copy), exist_ok=True)
            fs, path = filesystem(file)
            with explained(file, fs):
                fs.get_file(path, copy)
        yield folder


@contextlib.contextmanager
def parquet(uri: str) -> Iterator[pq.ParquetFile]:
    """A Parquet file, opened to read some of it.

    Raises:
        StorageError, StorageUnavailable: of what is done with it, too.
    """
    fs, path = filesystem(uri)
    # Not through pyarrow's wrapper, which takes any failure to look the file up for its absence. Nothing is read ahead:
    # pyarrow asks for what it needs.
    with explained(uri, fs), fs.open(path, "rb", cache_type="none") as opened, pq.ParquetFile(opened) as file:
        yield file


@contextlib.contextmanager
def opened(uri: str) -> Iterator[BinaryIO]:
    """A file, opened to read some small parts of it.

    Raises:
        StorageError, StorageUnavailable: of what is done with it, too.
    """
    fs, path = filesystem(uri)
    with explained(uri, fs), fs.open(path, "rb", block_size=PART_BYTES) as file:
        yield file


def probe(uri: str, seconds: float = PROBE_SECONDS) -> None:
    """Ask once whether `uri` can be reached, with a deadline of our own, before a job is planned around it.

    Raises:
        StorageError: if the store refuses, or as `absolute` does.
        StorageUnavailable: if it does not answer within `seconds`.
    """
    check_lasting(uri)
    if not answers_within(seconds, lambda: exists(uri)):
        raise StorageUnavailable(f"{uri}: no answer within {seconds:g} s; is the endpoint right and reachable?")


@contextlib.contextmanager
def _in_pieces(path: str) -> Iterator[Callable[[bytes], None]]:
    with explained(path, LocalFileSystem()):
        # Not in one `with`: what is raised between the pieces is not the file's. No buffer, which closing would write.
        file = io.FileIO(path, "wb")

    def write(data: bytes) -> None:
        left = memoryview(data)
        with explained(path, LocalFileSystem()):
            while left:
                left = left[file.write(left) :]

    with file:
        yield write


def _make_folder_of(path: str) -> None:
    folder = os.path.dirname(path)
    try:
        os.makedirs(folder, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise StorageError(f"{path}: {folder} or one above it is a file, not a folder; choose another") from None


@contextlib.contextmanager
def _replacing(path: str) -> Iterator[str]:
    """A name to write under, hidden from readers of the folder; it takes the place of `path` in the end."""
    folder, file = os.path.split(path)
    partial = os.path.join(folder, f".{file}.{uuid.uuid4().hex[:8]}.partial")
    try:
        yield partial
        os.replace(partial, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(partial)
        raise
