"""Ending what a Ray head has started, on processes that behave as badly as Ray's; no Ray here."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from raydiff.local_head import LocalHead, end_family

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
    yield process
    end_family(process, seconds=0)
    process.stdout.close()


def running(pid: int) -> bool:
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
    assert all(running(pid) for pid in family)
    assert len({os.getsid(pid) for pid in family}) == 3
    begin = time.monotonic()
    end_family(leader, seconds=0.5)
    assert time.monotonic() - begin > 0.5  # the deaf one had its time
    assert not any(running(pid) for pid in family)
    assert leader.returncode is not None
    assert bystander.poll() is None


def test_a_leader_that_has_ended_leaves_its_session_to_be_ended() -> None:
    # The shell's child stays in the session of a leader that is gone, and belongs to nobody's descendants.
    with subprocess.Popen(
        ["sh", "-c", "sleep 600 & echo $!"], stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        orphan = int(process.stdout.readline())
        process.wait()
        assert running(orphan)
        end_family(process, seconds=5)
        assert not running(orphan)


def test_the_exit_status_of_a_submission_is_handed_back(tmp_path, monkeypatch) -> None:
    ray = tmp_path / "ray"
    ray.write_text('#!/bin/sh\necho "$RAY_ADDRESS" "$@" > "$0.called"\nexit 3\n')
    ray.chmod(0o700)
    monkeypatch.setattr("raydiff.local_head._ray", lambda: str(ray))
    head = LocalHead("http://127.0.0.1:1", {"RAY_ADDRESS": "http://127.0.0.1:1"})
    assert head.submit(["python", "job.py", "--help"], "here") == 3
    called = (tmp_path / "ray.called").read_text()
    assert called == "http://127.0.0.1:1 job submit --working-dir here -- python job.py --help\n"
