"""How the threads that share a network's work wait for each other."""

from __future__ import annotations

import os


def sleep_while_waiting() -> None:
    """Have OpenMP's threads sleep, not spin, while they wait; what the environment says counts more.

    On a worker's machine there are always more processes than processors (decoders, Ray's own): a thread that spins
    keeps the processor from the very thread that it waits for. Heard of only before torch is loaded, and by all
    processes that this one starts.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
