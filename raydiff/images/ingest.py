"""`raydiff ingest`: an archive as it was fetched (.tar, .tar.gz, .zip ...) becomes a folder or a bucket of files.

Each file is whole or not there, and none lies outside the folder (see `admission`). Until all are there a mark says so,
which `raydiff index` minds; the same command goes on where it was stopped.
"""

from __future__ import annotations

import re
import shlex
import unicodedata
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

from rich.console import Console

from raydiff import at_work, storage, typed
from raydiff.errors import DataError
from raydiff.images import ingested
from raydiff.images.admission import NAMES_KEPT, Admission, Limits, digest
from raydiff.images.members import Member, Members, members_of, reading
from raydiff.images.names import INGESTED, few
from raydiff.progress import Phase, console, phase
from raydiff.storage import walking
from raydiff.storage.patience import patiently
from raydiff.storage.source import source, version

OWN = (INGESTED, at_work.FILE)  # what raydiff writes into the folder itself
WRITES_AT_ONCE = 16
SMALL = 2**23  # bytes of a file that is held in memory, so that several are written at a time
PIECE = 2**20
_PARTIAL = re.compile(r"\..+\.[0-9a-f]{8}\.partial")  # what a killed writer leaves on a disk


class Ingested(NamedTuple):
    """What was unpacked."""

    archive: str
    data: str  # the folder
    files: int
    bytes: int
    now: int  # files of this run
    left_out: int  # links, devices, files whose names are no text, and marks of folders unpacked before
    left_out_names: tuple[str, ...] = ()  # the first of these


def ingest(archive: str, out: str, limits: Limits | None = None) -> Ingested:
    """Unpack an archive into a folder that is new or empty, or that this archive was being unpacked into.

    Raises:
        DataError: if the archive is none that is read, damaged, or holds what is not unpacked (see `Admission`); if
            the folder holds something else; if another run is at work there.
        StorageError, StorageUnavailable: if a store fails. What is unpacked is kept.
    """
    for uri in (archive, out):
        storage.probe(uri)
    archive, out = storage.absolute(archive), storage.absolute(out)
    if storage.exists(archive) and storage.is_folder(archive):
        raise DataError(f"{archive} is a folder; give it to `raydiff index --data` as it is")
    about = {"archive": archive, **version(archive)}
    limits = limits or Limits()
    if finished := _finished(out, about):
        console.print(f"{archive} is unpacked in {out} already", markup=False)
        return finished
    with source(archive) as file:
        members = members_of(file)
        if members.listed:  # so that nothing is written of what is not taken in the end
            trial = Admission(archive, limits, members, OWN)
            for member in members:
                if trial.path(member) is not None:
                    trial.count(member.size)
        with at_work.at_work(out):
            if finished := _finished(out, about):  # by another run, meanwhile
                return finished
            return _Unpacking(about, out, limits, members, file.size).run()


def print_ingested(found: Ingested, to: Console = console) -> None:
    """Print what was unpacked, and what to do next."""
    to.print(
        f"unpacked: {found.files:,} files ({found.bytes / 1e6:.1f} MB) in {found.data}, {found.now:,} of them now",
        markup=False,
    )
    if found.left_out:
        what = f"links, devices, files whose names are not UTF-8, and {INGESTED} of folders in it, left out"
        to.print(f"{what}: {found.left_out}", style="bold", markup=False)
        for name in found.left_out_names:
            to.print(f"    {name}", markup=False)
    data = shlex.quote(typed.place(found.data))
    to.print(f"next: {typed.program('raydiff')} index --data {data} --out RUN", markup=False)


def _finished(out: str, about: dict[str, str | int]) -> Ingested | None:
    """What was unpacked, if all of it is there; None if it is not, and may be unpacked here.

    Raises:
        DataError: if the folder holds something else.
    """
    if not storage.exists(out):
        return None
    if not storage.is_folder(out):
        raise DataError(f"{out} is a file; choose a new folder")
    found = patiently(ingested.mark, out)
    if found is None:
        others = [path for path, _ in _there(out, at_most=NAMES_KEPT + len(OWN)) if path not in OWN]
        if others:
            raise DataError(f"{out} holds something else ({few(sorted(others))}); unpack into a new or an empty folder")
        return None
    if {name: found.get(name) for name in about} != about:
        state = "unpacked" if found["finished"] else "half unpacked"
        same = found["archive"] == about["archive"]
        which = f"{found['archive']} as it was before it changed" if same else found["archive"]
        raise DataError(f"{out} holds {which}, {state}; choose another --out, or delete that folder first")
    if not found["finished"]:
        return None
    return Ingested(
        *(str(about["archive"]), out, found["files"], found["unpacked_bytes"], 0, found["left_out"]),
        tuple(found["left_out_names"]),
    )


def _there(out: str, at_most: int | None = None) -> Iterator[tuple[str, str]]:
    """Path and URI of the files that a folder holds."""
    root = walking.root(*storage.filesystem(out))
    if not storage.exists(out):
        return
    for page in storage.walk_files(out):
        for number, uri in enumerate(page):
            if at_most is not None and number >= at_most:
                return
            yield uri[len(root) :].lstrip("/"), uri


class _Unpacking:
    """One run."""

    def __init__(self, about: dict[str, str | int], out: str, limits: Limits, members: Members, size: int) -> None:
        self.about = about
        self.archive = str(about["archive"])
        self.out = out
        self.members = members
        self.size = size
        self.admission = Admission(self.archive, limits, members, OWN)
        self.now = 0
        self._marked = False
        self._folded: set[bytes] | None = set() if storage.is_local(out) else None
        self._writing: deque[Future[None]] = deque()

    def run(self) -> Ingested:
        """Unpack what is not there yet."""
        there = self._begun()
        pool = ThreadPoolExecutor(WRITES_AT_ONCE)
        try:
            with phase("unpacking", _megabytes(self.size), "MB") as shown:
                for member in self.members:
                    at_work.check(self.out)
                    path = self.admission.path(member)
                    if path is None:
                        continue
                    known = digest(path) in there
                    self._check_alike(path, known)
                    if known:
                        self._pass(member, shown)
                    else:
                        self._unpack(member, path, pool, shown)
                        self.now += 1
                self._settle(0)
                shown.update(_megabytes(self.size), self._note())
        finally:
            pool.shutdown(cancel_futures=True)
        found = self.admission
        if not found.files:
            raise DataError(f"{self.archive} holds no files; is it the right one?")
        names = tuple(found.left_out_names)
        self._mark(
            finished=True,
            files=found.files,
            unpacked_bytes=found.bytes,
            left_out=found.left_out,
            left_out_names=names,
        )
        return Ingested(self.archive, self.out, found.files, found.bytes, self.now, found.left_out, names)

    def _begun(self) -> set[bytes]:
        """Digests of the paths that an earlier run has unpacked; what it left half written is deleted."""
        if patiently(ingested.mark, self.out) is None:
            return set()
        self._marked = True
        found = set()
        for path, uri in _there(self.out):
            if _PARTIAL.fullmatch(storage.name(path)):
                storage.delete(uri)
            else:
                found.add(digest(path))
        return found

    def _pass(self, member: Member, shown: Phase) -> None:
        """Go by a member that is there already."""
        if self.members.listed:
            self.admission.count(member.size)
            return
        for _ in self._pieces(member, shown):
            pass

    def _unpack(self, member: Member, path: str, pool: ThreadPoolExecutor, shown: Phase) -> None:
        uri = storage.join(self.out, path)
        if not self._marked:
            self._mark(finished=False)
            self._marked = True
        pieces = self._pieces(member, shown)
        if member.size <= SMALL:
            self._settle(WRITES_AT_ONCE - 1)
            self._writing.append(pool.submit(patiently, storage.write_bytes, uri, b"".join(pieces)))
            return
        with storage.written(uri) as write:
            for piece in pieces:
                write(piece)

    def _pieces(self, member: Member, shown: Phase) -> Iterator[bytes]:
        """A member's content, each piece counted."""
        with reading(self.archive):
            file = member.open()
        size = 0
        while True:
            with reading(self.archive):
                piece = file.read(PIECE)
            if not piece:
                break
            size += len(piece)
            self.admission.count(len(piece))
            shown.update(_megabytes(self.members.place()), self._note())
            yield piece
        if size != member.size:
            raise DataError(f"{self.archive}: {member.name} has {size:,} bytes, not {member.size:,}; fetch it anew")

    def _check_alike(self, path: str, known: bool) -> None:
        """Refuse a file that would take another's place on a disk that does not tell upper from lower case.

        Whether it does is not asked before there are two such names. Stores of objects tell all names apart.
        """
        if self._folded is None:
            return
        folded = digest(unicodedata.normalize("NFC", path).casefold())
        if folded in self._folded and not known:
            self._settle(0)
            if storage.exists(storage.join(self.out, path)):
                raise DataError(
                    f"{self.archive} holds two files that {self.out} takes for one, {path} and another that differs in "
                    "upper and lower case; unpack into a folder on a disk that tells them apart"
                )
        self._folded.add(folded)

    def _settle(self, at_most: int) -> None:
        """Wait until at most so many files are being written."""
        while len(self._writing) > at_most:
            self._writing.popleft().result()

    def _mark(self, finished: bool, **more: object) -> None:
        patiently(storage.write_json, ingested.mark_uri(self.out), {**self.about, "finished": finished, **more})

    def _note(self) -> str:
        return f"{self.admission.files:,} files"


def _megabytes(count: int) -> int:
    return -(-count // 10**6)
