"""From a URI to a filesystem: a local path, `file://...`, `s3://bucket/key` or anything else that fsspec knows.

Endpoint, region and credentials come from the environment's usual names (`AWS_ENDPOINT_URL`, `AWS_ACCESS_KEY_ID`, ...)
and are never written anywhere.
"""

from __future__ import annotations

import contextlib
import os
from typing import Any

import fsspec
import pyarrow.fs
from fsspec.implementations.local import LocalFileSystem

from raydiff.errors import StorageError
from raydiff.storage.s3_listing import REQUESTS_AT_ONCE

COPIES = {"runtime_resources", "working_dir_files"}  # folders in which Ray unpacks jobs' working directories
EXTRAS = ("s3", "gs")  # of pyproject.toml, each by the scheme that it is for

# Object stores other than Amazon's refuse the checksum trailers that botocore sends by default, and the
# libraries' default timeouts let a dead endpoint hang for minutes.
_OPTIONS: dict[str, dict[str, Any]] = {
    "s3": {
        "use_listings_cache": False,
        "config_kwargs": {
            "connect_timeout": 5,
            "read_timeout": 15,
            "max_pool_connections": REQUESTS_AT_ONCE,  # botocore's own 10 would have others wait in silence
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
        fs = kind(**{**kind._get_kwargs_from_urls(uri), **_options(scheme)})
    except ImportError as error:
        extra = f"pip install 'raydiff[{scheme}]'" if scheme in EXTRAS else f"install the package it names ({error})"
        raise StorageError(f"{uri}: reading {scheme}:// needs one more package: {extra}") from None
    except ValueError as error:
        raise StorageError(f"{uri}: {error}; give a local path, or a URI such as s3://bucket/folder") from None
    if scheme == "s3" and fs.session is None:  # not an option, or each would be another filesystem to fsspec
        from raydiff.storage.s3_session import session

        fs.session = session()
    return fs, kind._strip_protocol(uri)


def _options(scheme: str) -> dict[str, Any]:
    options = _OPTIONS.get(scheme, {})
    if scheme != "s3":
        return options
    from raydiff.storage.s3_session import Session

    return {**options, "config_kwargs": {**options["config_kwargs"], "http_session_cls": Session}}


def is_local(uri: str) -> bool:
    """Whether `uri` names a place on this machine's own disk."""
    return isinstance(filesystem(uri)[0], LocalFileSystem)


def absolute(uri: str) -> str:
    """`uri` such that another process with another working directory finds the same thing.

    Local places become plain absolute paths (`file://` is taken off), others stay as they are.

    Raises:
        StorageError: if it is a relative path in a Ray job's copy of its working directory.
    """
    check_lasting(uri)
    fs, path = filesystem(uri)
    return os.path.normpath(path) if isinstance(fs, LocalFileSystem) else trimmed(uri)


def join(uri: str, *parts: str) -> str:
    """`uri` with path parts appended."""
    return "/".join([trimmed(uri), *(part.strip("/") for part in parts)])


def name(uri: str) -> str:
    """The last part of `uri`."""
    return uri.rstrip("/").rsplit("/", 1)[-1]


def arrow_filesystem(uri: str) -> tuple[pyarrow.fs.FileSystem, str]:
    """The same filesystem for pyarrow and Ray, and the path inside it.

    pyarrow's own S3 client ignores AWS_ENDPOINT_URL, so fsspec's is wrapped instead.
    """
    fs, path = filesystem(uri)
    if isinstance(fs, LocalFileSystem):
        return pyarrow.fs.LocalFileSystem(), path
    return pyarrow.fs.PyFileSystem(pyarrow.fs.FSSpecHandler(fs)), path


def check_lasting(uri: str) -> None:
    """Refuse a relative path where it leads into Ray's copy of a job's working directory: Ray removes that later.

    What is shipped with the code (weights, search spaces) may be read there, and does not come this way.
    """
    if "://" in uri or os.path.isabs(uri):
        return
    with contextlib.suppress(FileNotFoundError):  # of a working directory that is gone
        if set(os.getcwd().split(os.sep)) >= COPIES:
            raise StorageError(
                f"{uri} is a relative path, and inside a Ray job that is a place in Ray's copy of the working "
                f"directory, which Ray removes later; give an absolute path that every node sees (as in "
                f"/data/{name(uri) or 'images'}) or a URI (as in s3://bucket/{name(uri) or 'images'})"
            )


def trimmed(uri: str) -> str:
    """`uri` without slashes at its end, except those that belong to its scheme."""
    scheme, mark, path = uri.rpartition("://")
    return scheme + mark + path.rstrip("/")
