"""Local paths, file:// and memory://; S3 is in test_storage_s3.py."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import time
import tomllib
from pathlib import Path

import aiohttp
import botocore.exceptions as boto
import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fsspec.implementations.local import LocalFileSystem
from fsspec.implementations.memory import MemoryFileSystem
from s3fs import S3FileSystem
from s3fs.errors import translate_boto_error
from yarl import URL

from raydiff import storage
from raydiff.errors import StorageError, StorageUnavailable
from raydiff.storage import patience, walking
from raydiff.storage.patience import patiently

AWKWARD = ["sub/ü b.bin", "sub/a::b.bin", "sub/c#d?e%20f.bin", "sub/[x]*.bin"]


@pytest.fixture(params=["local", "file", "memory"])
def place(request, tmp_path):
    """URI of a folder that is not there yet."""
    yield {"local": f"{tmp_path}/new", "file": f"file://{tmp_path}/new", "memory": "memory:///new"}[request.param]
    MemoryFileSystem.store.clear()
    MemoryFileSystem.pseudo_dirs[:] = [""]


def listed(place: str, *names: str) -> list[str]:
    """What list_files gives for these: local places become plain paths."""
    return sorted(storage.join(storage.absolute(place), name) for name in names)


def test_what_is_written_is_read(place):
    uri = storage.join(place, "deep/er/a.bin")
    for data in (b"first", b"", b"second, longer"):
        storage.write_bytes(uri, data)
        assert storage.read_bytes(uri) == data
    storage.write_json(storage.join(place, "a.json"), {"b": [1, 2.5, None], "a": "ü"})
    assert storage.read_json(storage.join(place, "a.json")) == {"a": "ü", "b": [1, 2.5, None]}


def test_listing(place):
    names = ["b.bin", "sub/a.bin", "sub/deep/c.bin", "other/d.bin"]
    for name in names:
        storage.write_bytes(storage.join(place, name), name.encode())
    assert storage.list_files(place) == listed(place, *names)
    assert storage.list_files(place + "/sub/") == listed(place, "sub/a.bin", "sub/deep/c.bin")
    assert storage.list_folders(place) == listed(place, "sub", "other")
    assert [storage.read_bytes(uri).decode() for uri in storage.list_files(place)] == sorted(names)


def test_walking_gives_the_same_files_in_lists(place, monkeypatch):
    monkeypatch.setattr(walking, "PAGE", 3)
    names = [
        f"{folder}/{number}.bin" for folder in ("line4", "line4/sub", "line40", "line4/sub/deep") for number in "1234"
    ]
    for name in names:
        storage.write_bytes(storage.join(place, name), b"")
    for folder in ("", "line4", "line4/sub/deep"):
        below = [name for name in names if name.startswith(f"{folder}/" if folder else "")]
        pages = list(storage.walk_files(storage.join(place, folder)))
        assert sorted(file for page in pages for file in page) == listed(place, *below)
        assert [len(page) for page in pages[:-1]] == [3] * (len(pages) - 1)
        assert 1 <= len(pages[-1]) <= 3


def test_nothing_is_walked_before_it_is_wanted(place, monkeypatch):
    monkeypatch.setattr(walking, "PAGE", 2)
    for name in ("1", "2", "3"):
        storage.write_bytes(storage.join(place, "now", name), b"")
    pages = storage.walk_files(storage.join(place, "now"))
    storage.write_bytes(storage.join(place, "now", "4"), b"")
    assert [len(page) for page in pages] == [2, 2]


@pytest.mark.parametrize("walk", [storage.list_files, lambda uri: next(storage.walk_files(uri))])
@pytest.mark.parametrize(("number", "kind"), [(errno.EACCES, StorageError), (errno.ESTALE, StorageUnavailable)])
def test_a_folder_below_that_cannot_be_listed_is_not_left_out(tmp_path, monkeypatch, walk, number, kind):
    for name in ("a", "gone/b", "sub/c"):
        storage.write_bytes(f"{tmp_path}/{name}", b"")
    scandir = os.scandir

    def fail(folder):
        wrong = {f"{tmp_path}/gone": errno.ENOENT, f"{tmp_path}/sub": number}.get(folder)
        if wrong:
            raise OSError(wrong, os.strerror(wrong), folder)
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", fail)
    with pytest.raises(StorageError, match=rf"^{tmp_path}/sub: .*{os.strerror(number)}") as raised:
        walk(str(tmp_path))
    assert type(raised.value) is kind
    monkeypatch.undo()
    assert len(walk(str(tmp_path))) == 3


def test_awkward_names_mean_themselves(place):
    for name in AWKWARD:
        storage.write_bytes(storage.join(place, name), name.encode())
    assert storage.list_files(place) == listed(place, *AWKWARD)
    assert {storage.read_bytes(uri).decode() for uri in storage.list_files(place)} == set(AWKWARD)


def test_exists_and_is_folder(place):
    uri = storage.join(place, "sub/a.bin")
    assert not storage.exists(place)
    assert not storage.exists(uri)
    storage.write_bytes(uri, b"1")
    assert [storage.exists(u) for u in (place, place + "/sub/", uri, uri + "x")] == [True, True, True, False]
    assert [storage.is_folder(u) for u in (place, place + "/sub", uri, uri + "x")] == [True, True, False, False]


def test_what_is_not_there_is_one_sentence(place):
    missing = storage.join(place, "a.bin")
    for ask in (storage.read_bytes, storage.read_json, lambda uri: storage.local_copy(uri).__enter__()):
        with pytest.raises(StorageError, match=r"a\.bin is not there; check") as raised:
            ask(missing)
        assert "\n" not in str(raised.value)
    with pytest.raises(StorageError, match="not a folder that can be listed"):
        storage.list_files(place)
    with pytest.raises(StorageError, match="not a folder that can be listed"):
        next(storage.walk_files(place))
    with pytest.raises(StorageError, match="is not there"):
        storage.list_folders(place)
    storage.write_bytes(missing, b"{")
    with pytest.raises(StorageError, match="not a folder that can be listed"):
        storage.list_files(missing)
    with pytest.raises(StorageError, match=r"a\.bin is not valid JSON"):
        storage.read_json(missing)


def test_local_copy(place):
    uri = storage.join(place, "a.bin")
    storage.write_bytes(uri, b"content")
    with storage.local_copy(uri) as path:
        assert Path(path).read_bytes() == b"content"
        assert Path(path).name == "a.bin"
    assert os.path.exists(path) == storage.is_local(uri)


def test_arrow_reads_what_was_written(place):
    table = pa.table({"x": [1, 2, 3]})
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    storage.write_bytes(storage.join(place, "x.parquet"), sink.getvalue().to_pybytes())
    fs, path = storage.arrow_filesystem(storage.join(place, "x.parquet"))
    assert pq.read_table(path, filesystem=fs).equals(table)


def test_relative_paths(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    storage.write_bytes("a.bin", b"1")
    storage.write_bytes("sub/b.bin", b"2")
    assert storage.list_files(".") == [f"{tmp_path}/a.bin", f"{tmp_path}/sub/b.bin"]
    absolute = storage.absolute("sub/b.bin")
    monkeypatch.chdir("/")
    assert storage.read_bytes(absolute) == b"2"


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("/data/x/", "/data/x"),
        ("/", "/"),
        ("file:///data/x/", "/data/x"),
        ("memory://x/", "memory://x"),
        ("s3://bucket/", "s3://bucket"),
        ("s3://bucket/a/b", "s3://bucket/a/b"),
    ],
)
def test_absolute(uri, expected):
    assert storage.absolute(uri) == expected


@pytest.mark.parametrize(
    ("uri", "parts", "expected"),
    [
        ("/data/", ["a", "/b/"], "/data/a/b"),
        ("/", ["a"], "/a"),
        ("data", ["a/b"], "data/a/b"),
        ("file:///", ["a"], "file:///a"),
        ("memory://", ["a"], "memory:///a"),
        ("s3://bucket", ["a", "b"], "s3://bucket/a/b"),
        ("s3://bucket/", ["a"], "s3://bucket/a"),
    ],
)
def test_join(uri, parts, expected):
    assert storage.join(uri, *parts) == expected
    assert storage.name(expected) == parts[-1].strip("/").split("/")[-1]


@pytest.mark.parametrize(
    ("failure", "raised"),
    [(OSError(28, "No space left on device"), StorageError), (KeyboardInterrupt("stop"), KeyboardInterrupt)],
)
def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, failure, raised):
    uri = f"{tmp_path}/a.bin"
    storage.write_bytes(uri, b"old")

    def fail(source, target):
        assert Path(source).read_bytes() == b"new"  # it is all there before it takes the name
        raise failure

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(raised, match=failure.args[-1]):
        storage.write_bytes(uri, b"new")
    assert storage.list_files(str(tmp_path)) == [uri]
    assert storage.read_bytes(uri) == b"old"


def test_a_file_where_a_folder_is_needed(tmp_path):
    storage.write_bytes(f"{tmp_path}/a", b"1")
    with pytest.raises(StorageError, match="a/b"):
        storage.write_bytes(f"{tmp_path}/a/b", b"2")
    with pytest.raises(StorageError, match="Is a directory"):
        storage.write_bytes(str(tmp_path), b"2")
    assert not storage.exists(f"{tmp_path}/a/b")
    assert storage.list_files(str(tmp_path)) == [f"{tmp_path}/a"]


def test_unknown_scheme():
    with pytest.raises(StorageError, match=r"^nonsense://x/y: .*nonsense") as raised:
        storage.read_bytes("nonsense://x/y")
    assert "\n" not in str(raised.value)


def test_a_missing_extra_is_named(monkeypatch):
    def lacking(scheme):
        raise ImportError("Install adlfs to access Azure")

    monkeypatch.setattr(fsspec, "get_filesystem_class", lacking)
    known = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text())["project"]
    assert storage.EXTRAS == ("s3", "gs")
    for scheme in ("s3", "gs"):
        assert scheme in known["optional-dependencies"]
        with pytest.raises(StorageError, match=rf"pip install 'raydiff\[{scheme}\]'"):
            storage.exists(f"{scheme}://bucket/x")
    with pytest.raises(StorageError, match="Install adlfs"):
        storage.exists("abfs://bucket/x")


def test_a_refusal(monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(LocalFileSystem, "cat_file", refuse)
    with pytest.raises(StorageError, match=r"^/x: access refused \(Permission denied\); check the credentials"):
        storage.read_bytes("/x")
    monkeypatch.setattr(MemoryFileSystem, "info", refuse)
    for ask in (storage.exists, storage.probe):  # a refusal is no "no"
        with pytest.raises(StorageError, match="access refused"):
            ask("memory://x")


def test_an_error_of_a_store_s_own_kind_becomes_one_line(monkeypatch):
    def fail(*_, **__):
        raise RuntimeError("quota\n  exceeded")

    monkeypatch.setattr(MemoryFileSystem, "cat_file", fail)
    with pytest.raises(StorageError, match=r"^memory://x: quota exceeded$"):
        storage.read_bytes("memory://x")


def answered(status: int, code: str) -> Exception:
    """What s3fs makes of S3's answer."""
    response = {"Error": {"Code": code, "Message": "a message"}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return translate_boto_error(boto.ClientError(response, "GetObject"))


def http_error(status: int) -> Exception:
    request = aiohttp.RequestInfo(URL("http://x"), "GET", {}, URL("http://x"))
    return aiohttp.ClientResponseError(request, (), status=status)


PASSING = [
    answered(503, "SlowDown"),
    answered(503, "503"),  # to HEAD, which has no body to hold a code
    answered(500, "InternalError"),
    answered(502, "Bad Gateway"),
    answered(429, "TooManyRequests"),
    answered(400, "RequestTimeout"),
    answered(409, "OperationAborted"),
    boto.EndpointConnectionError(endpoint_url="http://x"),
    boto.ConnectTimeoutError(endpoint_url="http://x"),
    boto.ReadTimeoutError(endpoint_url="http://x"),
    boto.ConnectionClosedError(endpoint_url="http://x"),
    boto.ResponseStreamingError(error="cut"),
    aiohttp.ClientPayloadError("cut"),
    aiohttp.ServerDisconnectedError(),
    http_error(503),
    fsspec.exceptions.FSTimeoutError(),
    asyncio.IncompleteReadError(b"", 9),
    ConnectionResetError(errno.ECONNRESET, "Connection reset by peer"),
    OSError(errno.ENETUNREACH, "Network is unreachable"),
]
LASTING = [
    answered(400, "InvalidBucketName"),
    answered(400, "400"),
    answered(403, "AccessDenied"),
    answered(403, "SignatureDoesNotMatch"),
    answered(403, "QuotaExceeded"),  # s3fs does not know it and calls it EIO
    answered(404, "NoSuchKey"),
    answered(405, "MethodNotAllowed"),
    answered(301, "PermanentRedirect"),
    answered(501, "NotImplemented"),
    http_error(403),
    boto.NoCredentialsError(),
    boto.PartialCredentialsError(provider="env", cred_var="x"),
    boto.ProfileNotFound(profile="x"),
    boto.ParamValidationError(report="Invalid bucket name"),
    FileNotFoundError("none"),
    PermissionError(errno.EACCES, "Permission denied"),
    ValueError("Invalid endpoint"),
    OSError(errno.ENOSPC, "No space left on device"),
]


@pytest.mark.parametrize("error", [*PASSING, *LASTING], ids=repr)
def test_which_errors_of_a_store_pass(monkeypatch, error):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(MemoryFileSystem, "cat_file", fail)
    with pytest.raises(StorageError, match=r"^memory://x") as raised:
        storage.read_bytes("memory://x")
    assert isinstance(raised.value, StorageUnavailable) == (error in PASSING)


@pytest.mark.parametrize(
    ("number", "passes"),
    [(number, True) for number in (errno.EIO, errno.ESTALE, errno.EAGAIN, errno.ETIMEDOUT)]
    + [(number, False) for number in (errno.ENOENT, errno.EACCES, errno.ENOSPC, errno.EISDIR, errno.ENOTDIR)],
)
def test_which_errors_of_a_local_disk_pass(monkeypatch, number, passes):
    def fail(*_, **__):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(LocalFileSystem, "cat_file", fail)
    for uri in ("/x", "file:///x"):
        with pytest.raises(StorageError) as raised:
            storage.read_bytes(uri)
        assert isinstance(raised.value, StorageUnavailable) == passes


def failing(*errors: Exception):
    """A call that raises these, one at a time, and then adds its arguments."""
    left = list(errors)

    def call(*numbers: int) -> int:
        if left:
            raise left.pop(0)
        return sum(numbers)

    return call


def test_patience_waits_longer_and_longer(waits, capsys):
    assert patiently(failing(), 1, 2) == 3
    assert waits == []
    assert patiently(failing(*[StorageUnavailable("s3://b/x: [slow] down")] * 9), 1, 2) == 3
    assert len(waits) == 9
    first, longest = patience.FIRST_WAIT_SECONDS, patience.LONGEST_WAIT_SECONDS
    for number, wait in enumerate(waits):
        assert 0 <= wait - min(first * 2**number, longest) <= first
    assert len(set(waits)) == 9
    told = capsys.readouterr().out.splitlines()  # only of waits that one would wonder about
    assert len(told) == sum(wait >= 5 for wait in waits)
    assert told[-1].startswith("s3://b/x: [slow] down; asking again in 1")


def test_patience_ends(waits):
    errors = [StorageUnavailable(str(number)) for number in range(9)]
    with pytest.raises(StorageUnavailable, match="3"):  # waits of some 0.5, 1 and 2 s; the next is over 4 s
        patiently(failing(*errors), seconds=3.9)
    assert len(waits) == 3
    with pytest.raises(StorageUnavailable, match="0"):
        patiently(failing(*errors), seconds=0)
    assert len(waits) == 3


@pytest.mark.parametrize("error", [StorageError("no"), ValueError("no"), KeyboardInterrupt("no")])
def test_no_patience_with_what_does_not_pass(waits, error):
    with pytest.raises(type(error), match="no"):
        patiently(failing(error))
    assert waits == []


def test_probe_of_what_answers(tmp_path):
    storage.probe(str(tmp_path))
    storage.probe(f"{tmp_path}/to/be/made")


def test_probe_does_not_wait_for_an_endpoint_that_accepts_and_says_nothing(monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{silent.getsockname()[1]}")
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "someone")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "a-secret")
        S3FileSystem.clear_instance_cache()
        began = time.monotonic()
        with pytest.raises(StorageError, match=r"^s3://bucket/x: no answer within 0\.5 s"):
            storage.probe("s3://bucket/x", seconds=0.5)
        assert time.monotonic() - began < 5
        silent.settimeout(5)
        silent.accept()[0].close()  # it was asked
    S3FileSystem.clear_instance_cache()


def test_links_to_folders_are_followed_and_circles_end(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.png").write_bytes(b"a")
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "linked").symlink_to(tmp_path / "images")
    (tmp_path / "set" / "circle").symlink_to(tmp_path / "set")
    assert storage.list_files(str(tmp_path / "set")) == [str(tmp_path / "set" / "linked" / "a.png")]
