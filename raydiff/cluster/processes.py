"""Ending what a process has started, and nothing else: found by descent and by Unix session. Linux only (/proc)."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import NamedTuple

END_SECONDS = 3.0  # how long a process may take to end by itself; some of Ray's never do
POLL_SECONDS = 0.2
INTERRUPTS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Process(NamedTuple):
    """One process, told from a later one of the same number by when it began."""

    pid: int
    began: int  # in clock ticks since the machine's start


def running(pid: int) -> Process | None:
    """The process of this number, None if there is none; one that has ended and was not waited for counts as none."""
    found = _stat(pid)
    return Process(pid, found.began) if found else None


def end_families(leaders: Collection[Process], seconds: float = END_SECONDS) -> set[int]:
    """End the leaders of Unix sessions and all that they started, even what has left their sessions.

    Each process gets SIGTERM, and SIGKILL if it lives `seconds` later. Ctrl-C has to wait until that is done. Returns
    those that could not be ended.
    """
    with _undisturbed():
        family = _Family(leaders)
        _signal(family.alive(), signal.SIGTERM)
        deadline = time.monotonic() + seconds
        while (alive := family.alive()) and time.monotonic() < deadline + END_SECONDS:
            if time.monotonic() > deadline:
                _signal(alive, signal.SIGKILL)
            time.sleep(POLL_SECONDS)
        return alive


class _Family:
    """The processes that descend from the leaders of sessions, found again after their parents have ended."""

    def __init__(self, leaders: Collection[Process]) -> None:
        # A number that has gone to another process says that the whole session has ended.
        ours = [leader.pid for leader in leaders if running(leader.pid) in (leader, None)]
        self._pids = set(ours)
        self._sessions = set(ours)

    def alive(self) -> set[int]:
        """Those that run now. Each look also finds what those of the last look have started."""
        now = _processes()
        while True:
            new = {
                pid
                for pid, stat in now.items()
                if pid not in self._pids and (stat.parent in self._pids or stat.session in self._sessions)
            }
            if not new:
                return self._pids & now.keys()
            self._pids |= new
            self._sessions |= {now[pid].session for pid in new}


class _Stat(NamedTuple):
    parent: int
    session: int
    began: int


def _processes() -> dict[int, _Stat]:
    """All processes of this machine by number."""
    numbers = (int(folder.name) for folder in Path("/proc").iterdir() if folder.name.isdigit())
    return {pid: stat for pid in numbers if (stat := _stat(pid))}


def _stat(pid: int) -> _Stat | None:
    """What the system says of a process, None if it has ended."""
    try:
        # The command, in brackets, may hold anything; behind it: state, parent, group, session, ..., began.
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else _Stat(int(fields[1]), int(fields[3]), int(fields[19]))


def _signal(pids: set[int], number: signal.Signals) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """Let no second Ctrl-C cut off what the first one began.

    Handlers are changed because a blocked signal would still come through the threads of other libraries.
    """
    if threading.current_thread() is not threading.main_thread():  # only there do signals interrupt
        yield
        return
    before = {number: signal.signal(number, signal.SIG_IGN) for number in INTERRUPTS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
