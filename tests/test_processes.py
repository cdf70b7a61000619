"""Ending what a node of Ray has started, on processes that behave as badly as Ray's; no Ray here."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from raydiff.cluster.processes import Process, end_families, running

# A leader whose child starts a session of its own, heeds no SIGTERM and has a child too. Each says who it is.
LEADER = """
import os, subprocess, sys, time
deaf, last = sys.argv[1:]
subprocess.Popen([sys.executable, "-c", deaf, last], start_new_session=True)
print(os.getpid(), flush=True)
time.sleep(600)
"""
DEAF = """
import os, signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
subprocess.Popen([sys.executable, "-c", sys.argv[1]], start_new_session=True)
print(os.getpid(), flush=True)
time.sleep(600)
"""
LAST = "import os, time; print(os.getpid(), flush=True); time.sleep(600)"


@pytest.fixture
def leader():
    process = subprocess.Popen(
        [sys.executable, "-c", LEADER, DEAF, LAST], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    with process:
        yield process
        end_families([Process(process.pid, 0) if process.poll() is not None else running(process.pid)], seconds=0)


def lives(pid: int) -> bool:
    """Whether a process runs; one that has ended, but that nobody waited for, does not."""
    status = Path(f"/proc/{pid}/stat")
    return status.exists() and status.read_text().rpartition(")")[2].split()[0] not in "ZX"


@pytest.fixture
def bystander():
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True) as process:
        yield process
        process.kill()


def test_ends_all_that_the_leader_started_and_nothing_else(leader, bystander) -> None:
    family = [int(leader.stdout.readline()) for _ in range(3)]
    assert all(lives(pid) for pid in family)
    assert len({os.getsid(pid) for pid in family}) == 3
    begin = time.monotonic()
    assert end_families([running(leader.pid)], seconds=0.5) == set()
    assert time.monotonic() - begin > 0.5  # the deaf one had its time
    assert not any(lives(pid) for pid in family)
    assert bystander.poll() is None


def test_a_leader_that_has_ended_leaves_its_session_to_be_ended() -> None:
    # The shell's child stays in the session of a leader that is gone, and belongs to nobody's descendants.
    with subprocess.Popen(
        ["sh", "-c", "sleep 600 & echo $!"], stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        orphan = int(process.stdout.readline())
        process.wait()
        assert lives(orphan)
        end_families([Process(process.pid, began=1)], seconds=5)
        assert not lives(orphan)


def test_a_number_that_has_gone_to_another_process_is_left_alone(bystander) -> None:
    now = running(bystander.pid)
    assert end_families([now._replace(began=now.began - 1)], seconds=0) == set()
    assert lives(bystander.pid)
    assert running(bystander.pid) == now
