"""Which of an archive's members are unpacked, and how much that may be: what is made to do harm is refused.

Links and devices are left out and counted, as files are whose names are no text: an image that is wanted twice is
better packed twice than a link followed, and a link is no reason to go without the rest. So are the marks of folders
that `raydiff ingest` unpacked before they were packed again: they would say of the folder what is not so.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection
from typing import NamedTuple

from raydiff.errors import DataError
from raydiff.images.members import Member, Members
from raydiff.images.names import INGESTED, is_text, printable

WITHOUT_RATIO = 10**8  # bytes, up to which none is asked for: a few black masks are packed a thousandfold
LONGEST = 4096  # bytes of a path
NAMES_KEPT = 5  # of what is left out
_DRIVE = re.compile(r"[A-Za-z]:")


class Limits(NamedTuple):
    """How much an archive may unpack to."""

    bytes: int = 10**12  # in all
    files: int = 10**6  # and folders
    file_bytes: int = 4 * 10**9  # of one file
    ratio: float = 100.0  # bytes for each byte of the archive, in all


class Admission:
    """Which members are unpacked, and how much that may be.

    Args:
        archive: for the messages.
        own: names of files that raydiff itself writes into the folder.
    """

    def __init__(self, archive: str, limits: Limits, members: Members, own: Collection[str]) -> None:
        self.archive = archive
        self.own = own
        self.limits = limits
        self.members = members
        self.files = self.bytes = self.left_out = 0
        self.left_out_names: list[str] = []
        self._seen: set[bytes] = set()
        self._above: set[bytes] = set()  # the folders of those
        self._folder = ""  # of the last one

    def path(self, member: Member) -> str | None:
        """Where a member goes, below the folder; None for what is no file, or whose name is no text.

        Raises:
            DataError: if that is outside of it, or another's place, or there are too many, or it is too large.
        """
        if member.kind == "folder":
            return None
        if member.kind == "other" or not is_text(member.name) or _is_mark(member.name):
            self.left_out += 1
            if len(self.left_out_names) < NAMES_KEPT:
                self.left_out_names.append(printable(member.name))
            return None
        path = _below(self.archive, member.name, self.own)
        own = digest(path)
        if own in self._seen:
            raise DataError(f"{self.archive} holds two files called {path}, and which one is meant is not clear")
        self._seen.add(own)
        if own in self._above:
            raise self._folder_too(path)
        self._note_folders(path)
        self.files += 1
        if self.files > self.limits.files:
            raise self._too_much(f"more than {self.limits.files:,} files", "--max-files")
        if member.size > self.limits.file_bytes:
            large = f"{path} of {member.size:,} bytes, more than {self.limits.file_bytes:,}"
            raise self._too_much(large, "--max-file-bytes")
        if self.bytes + member.size > self.limits.bytes:
            raise self._too_much(f"more than {self.limits.bytes:,} bytes", "--max-bytes")
        return path

    def count(self, size: int) -> None:
        """So many bytes more are unpacked.

        Raises:
            DataError: if these are far too many for what was read of the archive.
        """
        self.bytes += size
        packed = self.members.packed()
        if self.bytes > max(WITHOUT_RATIO, self.limits.ratio * packed):
            many = f"more than {self.limits.ratio:g} bytes for each of its own, {self.bytes:,} of {packed:,}"
            raise self._too_much(many, "--max-ratio")

    def _note_folders(self, path: str) -> None:
        """Keep the folders that a file lies in.

        Raises:
            DataError: if one of them is a file, or there are too many.
        """
        folder = path.rpartition("/")[0]
        if folder == self._folder:  # as of most files
            return
        self._folder = folder
        for slash in re.finditer("/", path):
            above = digest(path[: slash.start()])
            if above in self._seen:
                raise self._folder_too(path[: slash.start()])
            self._above.add(above)
        if len(self._above) > self.limits.files:
            raise self._too_much(f"more than {self.limits.files:,} folders", "--max-files")

    def _folder_too(self, path: str) -> DataError:
        return DataError(
            f"{self.archive} holds a file {path} and files below it, as if it were a folder, too; pack it anew without "
            "one of these"
        )

    def _too_much(self, what: str, option: str) -> DataError:
        return DataError(
            f"{self.archive} unpacks to {what}, as one may that is made to fill a disk; if it is what you expect, "
            f"say so with {option}"
        )


def _below(archive: str, name: str, own: Collection[str]) -> str:
    """A member's path below the folder, without what says nothing (`./a//b`).

    Raises:
        DataError: if it leads elsewhere, or would on another system.
    """
    parts = _parts(name)
    why = (
        "is an absolute path"
        if name.startswith("/")
        else "leads out of the folder"
        if ".." in parts
        else "begins as a Windows drive does"
        if _DRIVE.match(name)
        else "holds a backslash, which is a folder's mark on Windows"
        if "\\" in name
        else "holds a zero byte"
        if "\0" in name
        else f"is longer than the {LONGEST:,} bytes that a disk takes"
        if len(name.encode()) > LONGEST
        else "is no file's name"
        if not parts
        else "is a name that raydiff needs for itself"
        if parts[0].casefold() in own  # as a folder, and on a disk that does not tell upper from lower case, too
        else ""
    )
    if why:
        raise DataError(
            f"{archive} holds {name[:LONGEST]!r}, which {why}, so it is not unpacked; unpack it by hand where that "
            "does no harm, or pack it anew with paths below one folder"
        )
    return "/".join(parts)


def _is_mark(name: str) -> bool:
    """Whether a member is the mark of a folder below the archive's own, or would be where case is not told apart."""
    return any(part.casefold() == INGESTED for part in _parts(name)[1:])


def _parts(name: str) -> list[str]:
    """A member's path, without what says nothing (`./a//b`)."""
    return [part for part in name.split("/") if part not in ("", ".")]


def digest(path: str) -> bytes:
    """What stands for a path in memory, where there are a million."""
    return hashlib.blake2b(path.encode("utf-8", "surrogateescape"), digest_size=12).digest()
