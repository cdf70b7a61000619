"""One run at a time in a folder, on stores that have no locks, without a lock that a killed run would leave behind.

A run writes a small file into its folder and writes it anew every few seconds. Who finds one there looks whether its
process lives, where that can be known from here, and otherwise whether the file still changes: no clock of one machine
is compared with another's. A file that does not change any more is a killed run's, and is taken over.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from raydiff import storage
from raydiff.cluster.processes import running
from raydiff.errors import DataError, Stopped, StorageError, StorageUnavailable
from raydiff.progress import console

FILE = "at_work.json"
BEAT_SECONDS = 10.0  # a read and a write each time
DEAD_SECONDS = 45.0  # without a change: several beats, for a store or a network that is away for a moment
LOOK_SECONDS = 3.0
SETTLE_SECONDS = 1.0  # of two that take over at the same time, the one that wrote last goes on

_held: dict[str, Held] = {}  # of this process, by the folder
_guard = threading.Lock()


class Held:
    """This process's hold on a folder."""

    def __init__(self, uri: str) -> None:
        self.uri, self.id = uri, uuid.uuid4().hex
        self.threads = {threading.get_ident()}
        self.lost = threading.Event()
        self._over = threading.Event()
        self._beats = 0
        self._about = {"id": self.id, "since": _now(), "host": socket.gethostname(), "job": _job(), **_process()}
        self._thread = threading.Thread(target=self._beat, daemon=True)

    def take(self) -> None:
        """Write the file, or find out that another run is at work.

        Raises:
            DataError: if one is.
        """
        place = storage.join(self.uri, FILE)
        if not storage.create(place, self._text()):
            there = _read(place)
            if there is not None:
                _await_death(self.uri, place, there)
            storage.write_bytes(place, self._text())
            time.sleep(SETTLE_SECONDS)
            now = _read(place)
            if now is not None and now["id"] != self.id:
                raise _busy(self.uri, now)
        self._thread.start()

    def release(self) -> None:
        """Take the file away, if it is still this run's; a store that is away keeps it, which does no harm."""
        self._over.set()
        if self._thread.is_alive():
            self._thread.join()
        with contextlib.suppress(StorageError):
            place = storage.join(self.uri, FILE)
            there = _read(place)
            if there is not None and there["id"] == self.id:
                storage.delete(place)

    def _beat(self) -> None:
        place = storage.join(self.uri, FILE)
        while not self._over.wait(BEAT_SECONDS):
            with contextlib.suppress(StorageError):  # away for a moment
                there = _read(place)
                if there is not None and there["id"] != self.id:
                    self.lost.set()
                    return
                self._beats += 1
                storage.write_bytes(place, self._text())

    def _text(self) -> bytes:
        return storage.json_bytes({**self._about, "beats": self._beats})


@contextlib.contextmanager
def at_work(uri: str) -> Iterator[None]:
    """Be the only run in the folder `uri` for the block; steps of one run may be nested in one another.

    Raises:
        DataError: if another run is at work there.
        StorageError: if the folder cannot be written to.
    """
    with _guard:
        held = _held.get(uri)
        nested = held is not None and threading.get_ident() in held.threads
        mine = held if held is not None else _held.setdefault(uri, Held(uri))
    if nested:
        check(uri)
        yield
        return
    if held is not None:
        raise DataError(f"this process is at work in {uri} already; wait until that is done")
    try:
        mine.take()
        try:
            yield
        finally:
            mine.release()
    finally:
        with _guard:
            del _held[uri]


def check(uri: str) -> None:
    """Whether the folder that `uri` is, or lies in, is still this run's, if it ever was; asks no store.

    Raises:
        Stopped: if another run took it over, as it may while this process, or its network, stands still.
    """
    with _guard:
        lost = [held.uri for held in _held.values() if f"{uri}/".startswith(f"{held.uri}/") and held.lost.is_set()]
    if lost:
        raise Stopped(f"another run has gone on in {lost[0]}, because this one showed no sign of life for too long")


def _await_death(uri: str, place: str, there: dict[str, Any]) -> None:
    """Return as soon as the run that wrote the file is known to have ended.

    Raises:
        DataError: as soon as it is known to live.
    """
    if _is_here(there):
        process = running(int(there["pid"]))
        another = (there["pid"], there["began"]) != (os.getpid(), _process()["began"])
        if process is not None and process.began == there["began"] and another:
            raise _busy(uri, there)
        return
    console.print(
        f"{uri}: a run on {there['host']} was at work here; looking for up to {DEAD_SECONDS:g} s whether it still is",
        markup=False,
    )
    deadline = time.monotonic() + DEAD_SECONDS
    while time.monotonic() < deadline:
        time.sleep(LOOK_SECONDS)
        now = _read(place)
        if now is None:
            return
        if now != there:
            raise _busy(uri, now)


def _busy(uri: str, there: dict[str, Any]) -> DataError:
    job = f", Ray job {there['job']}" if there.get("job") else ""
    return DataError(
        f"a run is at work in {uri} since {there['since']} (process {there['pid']} on {there['host']}{job}); wait "
        "until it has ended or stop it, and run the same command again for what is missing, or choose another --out"
    )


def _read(place: str) -> dict[str, Any] | None:
    """What stands in a file; None if it is not there (any more), or is no run's.

    Raises:
        StorageError: if it is there and may not be read.
    """
    try:
        found = json.loads(storage.read_bytes(place))
    except ValueError:
        return None
    except StorageUnavailable:
        raise
    except StorageError:
        if storage.exists(place):
            raise
        return None
    wanted = {"id", "since", "host", "pid", "began", "boot", "space"}
    return found if isinstance(found, dict) and wanted <= found.keys() else None


def _process() -> dict[str, Any]:
    """What tells this process from others: its number, which counts in one boot of one machine and one number space."""
    own = running(os.getpid())
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        space = os.readlink("/proc/self/ns/pid")
    except OSError:
        boot = space = ""
    return {"pid": os.getpid(), "began": own.began if own else None, "boot": boot, "space": space}


def _is_here(there: dict[str, Any]) -> bool:
    """Whether the file's process, if it lives, can be seen from here."""
    own = _process()
    return bool(own["boot"]) and all(own[name] == there[name] for name in ("boot", "space"))


def _job() -> str | None:
    return os.environ.get("RAY_JOB_SUBMISSION_ID") or None


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
