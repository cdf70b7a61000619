"""SIGTERM, wherever it meets the main thread."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import ray

from raydiff import cluster
from raydiff.cluster import connection
from raydiff.stopping import stop

ROOT = Path(__file__).parents[1]
SENTENCE = "stopped; what is finished is kept, run the same command again to go on\n"

# Each keeps nearly all of the time in a place whose exceptions Python drops.
BUSY = {
    "weak references": """
class Thing: pass
def callback(ref):
    for _ in range(20000): pass
def work():
    thing = Thing()
    ref = weakref.ref(thing, callback)
    del thing
""",
    "destructors": """
class Thing:
    def __del__(self):
        for _ in range(20000): pass
def work():
    Thing()
""",
    "nothing special": """
def work():
    sum(range(1000))
""",
}
PROGRAM = """
import os, signal, sys, threading, weakref
sys.path.insert(0, {root!r})
from raydiff.stopping import stop_at_sigterm
stop_at_sigterm()
{busy}
work()
try:
    print("begun", flush=True)
    while True: work()
finally:
    print("put away")
"""


@pytest.mark.parametrize("busy", BUSY)
@pytest.mark.parametrize("run", range(3))
def test_it_ends_with_one_line_wherever_it_is(busy, run):
    program = PROGRAM.format(root=str(ROOT), busy=BUSY[busy])
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "begun\n"
        os.kill(process.pid, signal.SIGTERM)
        try:
            out, err = process.communicate(timeout=60)
        finally:
            process.kill()
    assert err == SENTENCE
    assert out == "put away\n"
    assert process.returncode == 128 + signal.SIGTERM


def test_other_errors_in_a_destructor_are_still_printed():
    program = PROGRAM.format(root=str(ROOT), busy="class Thing:\n    def __del__(self): 1 / 0\nwork = sys.exit")
    program = program.replace("work()\ntry", "Thing()\ntry")
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert "Exception ignored in" in done.stderr
    assert "ZeroDivisionError" in done.stderr
    assert SENTENCE not in done.stderr


@pytest.mark.parametrize("ours", [True, False])
def test_a_ray_that_is_started_leaves_the_handler_that_speaks_at_once(monkeypatch, ours):
    """`ray job stop` kills after three seconds; what is said after all is put away may come too late."""

    def theirs(number, frame):
        pass

    monkeypatch.delenv(cluster.ADDRESS, raising=False)
    monkeypatch.setattr(connection, "use_private_token", lambda: None)
    monkeypatch.setattr(connection.own_ray, "settle", lambda environment: None)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", lambda **options: signal.signal(signal.SIGTERM, theirs))
    before = signal.signal(signal.SIGTERM, stop if ours else signal.SIG_DFL)
    try:
        cluster.connect()
        assert signal.getsignal(signal.SIGTERM) is (stop if ours else theirs)
    finally:
        signal.signal(signal.SIGTERM, before)
