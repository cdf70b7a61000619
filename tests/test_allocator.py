"""Memory that is kept is kept once, however many threads took it."""

import subprocess
import sys

import pytest

PROGRAM = """
import threading
import numpy as np
from raydiff.cluster.allocator import keep_freed_memory

keep_freed_memory()
over = threading.Event()


def work(done):
    blocks = [np.ones(1 << 17) for _ in range(100)]  # 1 MB each
    del blocks
    done.set()
    over.wait()


for _ in range(8):
    done = threading.Event()
    threading.Thread(target=work, args=(done,)).start()
    done.wait()
held = next(line for line in open("/proc/self/status") if line.startswith("RssAnon"))
over.set()
print(held.split()[1])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="it is told by /proc, and an option of glibc's")
def test_threads_one_after_the_other_keep_no_more_than_one():
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    assert 100_000 < int(done.stdout) < 500_000  # KiB; each would keep 100 MB, and one arena takes 256 MB ahead
