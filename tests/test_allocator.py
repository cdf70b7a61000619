"""Memory that a worker keeps instead of giving it back to the system at each call."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

ROUNDS, BLOCKS, SIZE = 10, 6, 24 * 2**20
PAGES = BLOCKS * SIZE // 4096
# Page faults of a thread that takes and frees the same blocks again and again, its first round not counted.
FAULTS = f"""
import resource, sys, threading
from raydiff.cluster.allocator import keep_freed_memory

def use():
    for _ in range({ROUNDS}):
        blocks = [b"x" * ({SIZE} + number) for number in range({BLOCKS})]
        del blocks
        faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)

faults = []
if sys.argv[1] == "kept":
    keep_freed_memory()
thread = threading.Thread(target=use)
thread.start()
thread.join()
print(faults[-1] - faults[0])
"""


def faults(how: str) -> int:
    done = subprocess.run([sys.executable, "-c", FAULTS, how], capture_output=True, text=True, check=True)
    return int(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has these options")
def test_freed_memory_is_used_again():
    assert faults("given back") > (ROUNDS - 1) * PAGES / 2
    assert faults("kept") < PAGES / 10
