"""The one place that turns a URI into a filesystem.

A URI is a local path, `file://...`, `s3://bucket/key` or anything else fsspec knows. Endpoint, region and
credentials come from the environment's usual names (`AWS_ENDPOINT_URL`, `AWS_ACCESS_KEY_ID`, ...) and are
never written anywhere.
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
import threading
import uuid
from collections.abc import Iterator
from typing import Any

import fsspec
import pyarrow.fs
from fsspec.implementations.local import LocalFileSystem

from raydiff.errors import StorageError

PROBE_SECONDS = 30.0

# Object stores other than Amazon's refuse the checksum trailers that botocore sends by default, and the
# libraries' default timeouts let a dead endpoint hang for minutes.
_OPTIONS: dict[str, dict[str, Any]] = {
    "s3": {
        "use_listings_cache": False,
        "config_kwargs": {
            "connect_timeout": 5,
            "read_timeout": 30,
            "retries": {"max_attempts": 4, "mode": "standard"},
            "request_checksum_calculation": "when_required",
            "response_checksum_validation": "when_required",
        },
    }
}


def filesystem(uri: str) -> tuple[fsspec.AbstractFileSystem, str]:
    """The filesystem behind `uri` and the path inside it.

    Raises:
        StorageError: if the scheme is unknown or its extra is not installed.
    """
    scheme = uri.split("://", 1)[0] if "://" in uri else "file"
    try:
        # Not fsspec's url_to_fs: it reads "a::b" as a chain of filesystems and would write to another file.
        kind = fsspec.get_filesystem_class(scheme)
        fs = kind(**{**kind._get_kwargs_from_urls(uri), **_OPTIONS.get(scheme, {})})
    except ImportError as error:
        extra = "pip install 'raydiff[s3]'" if scheme == "s3" else f"install the package it names ({error})"
        raise StorageError(f"{uri}: reading {scheme}:// needs one more package: {extra}") from None
    except ValueError as error:
        raise StorageError(f"{uri}: {error}") from None
    return fs, kind._strip_protocol(uri)


def is_local(uri: str) -> bool:
    """Whether `uri` names a place on this machine's own disk."""
    return isinstance(filesystem(uri)[0], LocalFileSystem)


def absolute(uri: str) -> str:
    """`uri` such that another process with another working directory finds the same thing.

    Local places become plain absolute paths (`file://` is taken off), others stay as they are.
    """
    fs, path = filesystem(uri)
    return path.rstrip("/") or "/" if isinstance(fs, LocalFileSystem) else _trimmed(uri)


def join(uri: str, *parts: str) -> str:
    """`uri` with path parts appended."""
    return "/".join([_trimmed(uri), *(part.strip("/") for part in parts)])


def name(uri: str) -> str:
    """The last part of `uri`."""
    return uri.rstrip("/").rsplit("/", 1)[-1]


def exists(uri: str) -> bool:
    """Whether a file or folder is there."""
    fs, path = filesystem(uri)
    if isinstance(fs, LocalFileSystem):
        return os.path.exists(path)
    with _explained(uri):
        try:
            fs.info(path)  # fsspec's own `exists` takes a refusal or a dead endpoint for "no"
        except FileNotFoundError:
            return False
    return True


def is_folder(uri: str) -> bool:
    """Whether `uri` is a folder (on object stores: a prefix with something under it)."""
    fs, path = filesystem(uri)
    with _explained(uri):
        return bool(fs.isdir(path))


def list_files(uri: str) -> list[str]:
    """URIs of all files under a folder, at any depth, sorted.

    Raises:
        StorageError: if the folder is not there or may not be listed.
    """
    fs, path = filesystem(uri)
    local = isinstance(fs, LocalFileSystem)
    with _explained(uri):
        # An object that ends in a slash only marks a folder. Asked last: `isdir` lists the whole folder once more.
        items = _files_below(path) if local else fs.find(path)
        found = [item for item in items if not item.endswith("/")]
        if found in ([], [path]) and not fs.isdir(path):
            raise StorageError(f"{uri} is not a folder that can be listed; check the name and your rights")
    return sorted(item if local else fs.unstrip_protocol(item) for item in found)


def _files_below(path: str) -> Iterator[str]:
    """Local files at any depth, links to folders followed (fsspec does not), each folder once."""
    seen: set[str] = set()
    for folder, folders, files in os.walk(path, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        yield from (os.path.join(folder, file) for file in files)


def list_folders(uri: str) -> list[str]:
    """URIs of the folders directly under a folder, sorted."""
    fs, path = filesystem(uri)
    local = isinstance(fs, LocalFileSystem)
    with _explained(uri):
        entries = fs.ls(path, detail=True)
    found = (entry["name"].rstrip("/") for entry in entries if entry["type"] == "directory")
    return sorted(item if local else fs.unstrip_protocol(item) for item in found)


def read_bytes(uri: str) -> bytes:
    """The whole file.

    Raises:
        StorageError: if it is missing or cannot be read.
    """
    fs, path = filesystem(uri)
    with _explained(uri):
        data = fs.cat_file(path)
    assert isinstance(data, bytes)
    return data


def write_bytes(uri: str, data: bytes) -> None:
    """Write a whole file so that a reader sees all of it or none: by rename locally, by upload elsewhere."""
    fs, path = filesystem(uri)
    with _explained(uri):
        if isinstance(fs, LocalFileSystem):
            os.makedirs(os.path.dirname(path), exist_ok=True)
            partial = f"{path}.{uuid.uuid4().hex[:8]}.partial"
            try:
                with open(partial, "wb") as file:
                    file.write(data)
                os.replace(partial, path)
            except BaseException:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(partial)
                raise
        else:
            fs.pipe_file(path, data)


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
    write_bytes(uri, (json.dumps(value, indent=2, sort_keys=True) + "\n").encode())


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
        with _explained(uri):
            fs.get_file(path, copy)
        yield copy


@contextlib.contextmanager
def local_folder(uri: str) -> Iterator[str]:
    """A local folder with the same files at any depth: the folder itself, or a copy removed afterwards.

    What is no URI and not there either is given back as it is: a model hub's name, for one.
    """
    if is_local(uri):
        yield absolute(uri) if exists(uri) else uri
        return
    with tempfile.TemporaryDirectory(prefix="raydiff-") as folder:
        for file in list_files(uri):
            copy = os.path.join(folder, file.removeprefix(f"{_trimmed(uri)}/"))
            os.makedirs(os.path.dirname(copy), exist_ok=True)
            fs, path = filesystem(file)
            with _explained(file):
                fs.get_file(path, copy)
        yield folder


def arrow_filesystem(uri: str) -> tuple[pyarrow.fs.FileSystem, str]:
    """The same filesystem for pyarrow and Ray, and the path inside it.

    pyarrow's own S3 client ignores AWS_ENDPOINT_URL, so fsspec's is wrapped instead.
    """
    fs, path = filesystem(uri)
    if isinstance(fs, LocalFileSystem):
        return pyarrow.fs.LocalFileSystem(), path
    return pyarrow.fs.PyFileSystem(pyarrow.fs.FSSpecHandler(fs)), path


def probe(uri: str, seconds: float = PROBE_SECONDS) -> None:
    """Ask once whether `uri` can be reached, with a deadline of our own, before a job is planned around it.

    Raises:
        StorageError: if the store refuses, or does not answer within `seconds`.
    """
    outcome: list[BaseException | None] = []

    def ask() -> None:
        try:
            exists(uri)
            outcome.append(None)
        except BaseException as error:
            outcome.append(error)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(seconds)
    if not outcome:
        raise StorageError(f"{uri}: no answer within {seconds:g} s; is the endpoint right and reachable?")
    if outcome[0] is not None:
        raise outcome[0]


@contextlib.contextmanager
def _explained(uri: str) -> Iterator[None]:
    """Turn a filesystem's many exceptions into one sentence."""
    try:
        yield
    except StorageError:
        raise
    except FileNotFoundError:
        raise StorageError(f"{uri} is not there; check the bucket, the folder and the name") from None
    except PermissionError as error:
        # S3 tells a wrong key from a wrong clock by a code, which s3fs leaves in the cause alone.
        answer = getattr(error.__cause__, "response", None)
        code = answer.get("Error", {}).get("Code") if isinstance(answer, dict) else None
        reason = code or error.strerror or error
        raise StorageError(f"{uri}: access refused ({reason}); check the credentials and their rights") from None
    except Exception as error:  # every kind of store has errors of its own
        reason = " ".join(str(error).split()) or type(error).__name__
        raise StorageError(f"{uri}: {reason}") from error


def _trimmed(uri: str) -> str:
    """`uri` without slashes at its end, except those that belong to its scheme."""
    scheme, mark, path = uri.rpartition("://")
    return scheme + mark + path.rstrip("/")
