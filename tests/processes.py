"""Finding and awaiting the processes that a test starts, among others on the machine."""

from __future__ import annotations

import os
import time
from pathlib import Path

DEADLINE = 200.0  # of waiting for something that happens within seconds


def wait_for(condition, still=lambda: True):
    """What `condition` gives as soon as that is true; an error if `still` is true no more."""
    deadline = time.monotonic() + DEADLINE
    while not (found := condition()):
        assert still(), "it has ended too early"
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)
    return found


def named(title: str, of: int | None = None) -> list[int]:
    """Living processes whose command begins with `title` and that descend from a process (this one)."""
    of = of or os.getpid()
    parents, found = {}, []
    for folder in Path("/proc").iterdir():
        try:
            pid = int(folder.name)
            parents[pid] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            if is_named(pid, title):
                found.append(pid)
        except (ValueError, OSError):  # no process, or it has just ended
            continue

    def descends(pid: int) -> bool:
        while pid > 1 and pid != of:
            pid = parents.get(pid, 0)
        return pid == of

    return sorted(pid for pid in found if descends(pid))


def is_named(pid: int, title: str) -> bool:
    """Whether a process lives and is called so; a dead one that nobody has waited for has no command."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().startswith(title)
    except OSError:
        return False
