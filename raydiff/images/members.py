"""What lies in a .tar (plain, .gz, .bz2, .xz) or .zip, one member after the other, as the standard library reads them.

Nothing is believed: a header of endless length, an end that is none and what lies behind it are told. Which kind of
archive it is, the content says.
"""

from __future__ import annotations

import bz2
import contextlib
import gzip
import lzma
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import IO, Any, Literal, NamedTuple, Protocol, cast

from raydiff.errors import DataError
from raydiff.storage.source import Source

HEADER_BYTES = 2**20  # of what tells of a member before it, long names included
LISTED_BYTES = 2**30  # of a zip's list of its files; five million of them or so
XZ_BYTES = 2**29  # of memory to unpack an .xz with, whose header may ask for 4 GB; that of `xz -9` takes 65 MB
_PIECE = 2**16
_FETCH = "fetch or make it anew"

_PACKED: dict[bytes, Callable[[Any], Any]] = {  # by what a file begins with
    b"\x1f\x8b": lambda source: gzip.GzipFile(fileobj=source, mode="rb"),
    b"BZh": bz2.BZ2File,
    b"\xfd7zXZ\x00": lambda source: _Xz(source),
}
_ZIP = (b"PK\x03\x04", b"PK\x05\x06")
_UNREAD = {b"7z\xbc\xaf\x27\x1c": "7-Zip", b"Rar!": "RAR", b"\x28\xb5\x2f\xfd": "Zstandard", b"PK\x07\x08": "split zip"}
_TAR_MAGIC = slice(257, 262)
_BEGINNING = 262


class Member(NamedTuple):
    """A member, of which nothing is read yet."""

    name: str
    kind: Literal["file", "folder", "other"]  # other: links, devices
    size: int  # as the archive says it
    open: Callable[[], IO[bytes]]


class Members(Protocol):
    """The members of an opened archive."""

    listed: bool  # whether they may be gone through before they are read

    def __iter__(self) -> Iterator[Member]:
        """Them, in the order in which they lie there."""

    def packed(self) -> int:
        """Bytes of the archive that what was read so far may have come from."""

    def place(self) -> int:
        """How far it is read, in bytes."""


@contextlib.contextmanager
def reading(uri: str) -> Iterator[None]:
    """Tell what the standard library says of a damaged archive.

    Raises:
        DataError: in one sentence.
    """
    try:
        yield
    except EOFError:
        raise DataError(f"{uri} is cut: it ends in the middle; {_FETCH}") from None
    except NotImplementedError as error:
        raise DataError(f"{uri} is packed in a way that is not read ({error}); pack it as .tar.gz or .zip") from None
    except (
        *(tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error),
        *(OSError, ValueError, OverflowError, RuntimeError),
    ) as error:
        # What begins as a zip and is none has lost its end, where its list is.
        cut = any(said in str(error) for said in ("unexpected end of data", "ended before", "not a zip file"))
        what = "is cut: it ends in the middle" if cut else f"cannot be unpacked ({' '.join(str(error).split())})"
        raise DataError(f"{uri} {what}; {_FETCH}") from None


def members_of(source: Source) -> Members:
    """The members of an archive, by what its content says that it is.

    Raises:
        DataError: if it is none that is known, or damaged at its beginning.
        StorageError: if it cannot be read.
    """
    begins = source.beginning(_BEGINNING)
    if begins.startswith(_ZIP):
        if source.once:
            raise DataError(
                f"{source.uri} is a .zip, whose list lies at its end, on a server that sends files from their "
                "beginning only; fetch it first"
            )
        return _Zip(source)
    if unpack := next((unpack for start, unpack in _PACKED.items() if begins.startswith(start)), None):
        return _Tar(source, unpack(source))
    if begins[_TAR_MAGIC] == b"ustar" or (source.uri.lower().endswith(".tar") and begins):
        return _Tar(source, source)
    other = next((f"; it is a {name} archive" for start, name in _UNREAD.items() if begins.startswith(start)), "")
    empty = "" if begins else "; it is empty"
    raise DataError(
        f"{source.uri} is no archive that is read: known are .tar, .tar.gz, .tar.bz2, .tar.xz and .zip, by their "
        f"content{other}{empty}; pack it as one of these"
    )


class _Xz:
    """What an .xz file unpacks to, as by `lzma.LZMAFile`, but within XZ_BYTES of memory."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._unpack = self._new()
        self._ended = False

    def read(self, count: int) -> bytes:
        """Some of the next bytes, at most `count`; none at the end.

        Raises:
            EOFError, lzma.LZMAError: if it is cut, or damaged.
        """
        data = b""
        while not data and not self._ended:
            if self._unpack.eof:
                data = self._next_stream(count)
                continue
            packed = self._source.read(_PIECE) if self._unpack.needs_input else b""
            if self._unpack.needs_input and not packed:
                raise EOFError
            data = self._unpack.decompress(packed, count)
        return data

    def _next_stream(self, count: int) -> bytes:
        """The first bytes of another stream behind the last and zeros, which fill up; what else is there is the end."""
        packed = self._unpack.unused_data.lstrip(b"\0")
        while not packed and (piece := self._source.read(_PIECE)):
            packed = piece.lstrip(b"\0")
        self._unpack = self._new()
        try:
            if packed:
                return self._unpack.decompress(packed, count)
        except lzma.LZMAError:
            pass
        self._ended = True
        return b""

    @staticmethod
    def _new() -> lzma.LZMADecompressor:
        return lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=XZ_BYTES)


class _Bounded:
    """What an archive unpacks to, of which so many bytes may be read and no more."""

    def __init__(self, uri: str, file: Any) -> None:
        self._uri = uri
        self._file = file
        self._read = 0
        self.allowed = HEADER_BYTES

    def read(self, count: int = -1) -> bytes:
        """The next bytes.

        Raises:
            DataError: if what is no file's content goes on and on.
        """
        data: bytes = self._file.read(count)
        self._read += len(data)
        if self._read > self.allowed + _PIECE:
            raise DataError(
                f"{self._uri} has more than {HEADER_BYTES:,} bytes before a member, or behind the last one, that are "
                "no file's; an archive of images has not, so it is not unpacked"
            )
        return data


class _Tar:
    """A tar archive, read once from its beginning to its end."""

    listed = False

    def __init__(self, source: Source, file: Any) -> None:
        self._source = source
        self._plain = _Bounded(source.uri, file)

    def packed(self) -> int:
        return self._source.tell()

    place = packed

    def __iter__(self) -> Iterator[Member]:
        uri = self._source.uri
        headers: list[bytes] = []  # the last one alone

        class Noted(tarfile.TarInfo):
            @classmethod
            def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Noted:
                headers[:] = [bytes(buf)]
                return super().frombuf(buf, encoding, errors)

        with reading(uri):
            tar = tarfile.open(fileobj=cast("IO[bytes]", self._plain), mode="r|", bufsize=_PIECE, tarinfo=Noted)  # noqa: SIM115
        while True:
            with reading(uri):
                member = tar.next()
            if member is None:
                break
            vars(tar)["members"].clear()  # which would grow with the archive
            size = member.size if member.isreg() else 0
            self._plain.allowed = member.offset_data + size + HEADER_BYTES
            kind: Literal["file", "folder", "other"] = "other"
            if member.isreg() or member.isdir():
                kind = "file" if member.isreg() else "folder"
            yield Member(member.name, kind, size, partial(_content, tar, member))
        self._check_end(tar, headers[-1])

    def _check_end(self, tar: tarfile.TarFile, last: bytes) -> None:
        """Whether the archive is whole: tarfile takes a damaged header, or none, for the end.

        Raises:
            DataError: if it is not, or if something lies behind its end.
        """
        uri = self._source.uri
        if len(last) < tarfile.BLOCKSIZE:
            raise DataError(f"{uri} is cut: it ends without an end mark; {_FETCH}")
        if any(last):
            raise DataError(f"{uri} is damaged at byte {tar.offset:,} of what it unpacks to; {_FETCH}")
        assert tar.fileobj is not None
        while True:
            with reading(uri):
                rest = tar.fileobj.read(_PIECE)
            if not rest:
                return
            if any(rest):
                raise DataError(
                    f"{uri} holds more behind its end, as two archives put together do; give them one by one, each "
                    "with an --out of its own"
                )


def _content(tar: tarfile.TarFile, member: tarfile.TarInfo) -> IO[bytes]:
    return cast("IO[bytes]", tar.extractfile(member))  # None is of what is no file


class _Zip:
    """A zip archive, whose list is read first."""

    listed = True

    def __init__(self, source: Source) -> None:
        self._source = source
        self._place = 0
        with reading(source.uri):
            self._zip = zipfile.ZipFile(cast("IO[bytes]", _Listed(source)))

    def packed(self) -> int:
        return self._source.size

    def place(self) -> int:
        return self._place

    def __iter__(self) -> Iterator[Member]:
        self._place = 0
        for info in sorted(self._zip.infolist(), key=lambda info: info.header_offset):
            self._place = info.header_offset
            if info.flag_bits & 1:
                raise DataError(
                    f"{self._source.uri} is encrypted ({info.filename}); unpack it with its password, and give the "
                    "folder to raydiff index"
                )
            if info.compress_type not in (
                zipfile.ZIP_STORED,
                zipfile.ZIP_DEFLATED,
                zipfile.ZIP_BZIP2,
                zipfile.ZIP_LZMA,
            ):
                raise DataError(
                    f"{self._source.uri} is packed in a way that is not read (method {info.compress_type} of "
                    f"{info.filename}); pack it as .tar.gz or an ordinary .zip"
                )
            mode = stat.S_IFMT(info.external_attr >> 16) if info.create_system == 3 else 0  # 3: Unix
            kind: Literal["file", "folder", "other"] = "file" if mode in (0, stat.S_IFREG) else "other"
            if info.is_dir():
                kind = "folder"
            # zipfile cuts a name at a zero byte
            yield Member(info.orig_filename, kind, info.file_size, partial(self._zip.open, info))
        self._place = self._source.size


class _Listed:
    """A zip's file, whose list may not be endless: zipfile reads it whole."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self.seek, self.tell, self.seekable = source.seek, source.tell, source.seekable

    def read(self, count: int = -1) -> bytes:
        """As `Source.read`."""
        if count > LISTED_BYTES:
            raise DataError(
                f"{self._source.uri} has a list of files of {count:,} bytes, more than the {LISTED_BYTES:,} that are "
                "read; pack the files as .tar"
            )
        return self._source.read(count)
