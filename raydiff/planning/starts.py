"""Processes that start and end: in a run of few images nearly all of its time."""

from __future__ import annotations

import os
import time

from raydiff import cluster
from raydiff.cluster.processes import running
from raydiff.progress import duration

# How much of it the steps do, in units of what one process was seen to take. Told from runs on two cores
# (docs/measured.md), where two that start side by side take as long as one after the other.
STARTS = {"examples": 1.4, "statistics": 1.25, "training": 3.0, "tuning": 1.9, "scoring": 1.5, "archive": 2.0}
CHECKPOINT = 0.5  # seconds until Ray Train has taken one and a worker goes on
SERVE_ENDS = 3.0  # seconds
REPORT = 1.0  # seconds
RAY_ENDS = 4.0  # seconds


def age() -> float:
    """Seconds since this process began, 0 where the system does not say."""
    process = running(os.getpid())
    return time.clock_gettime(time.CLOCK_BOOTTIME) - process.began / os.sysconf("SC_CLK_TCK") if process else 0.0


def decoders(replicas: int) -> float:
    """How many parts are decoded at the same time beside so many replicas."""
    taken = 0 if cluster.gpus() else cluster.REPLICA_CPU * replicas
    return max(1.0, (cluster.cpus() - taken) / cluster.SHARED_CPU)


def cluster_fact() -> str:
    """What the cluster has, in words."""
    gpus = cluster.gpus()
    return f"the cluster has {cluster.cpus()} CPUs and {gpus or 'no'} GPU{'s' * (gpus != 1)}"


def note(measured: float, start: float) -> str:
    """What a plan was made of, in a sentence."""
    return (
        f"Times are extrapolated from {duration(measured)} of work measured on one worker, and {duration(start)} in "
        "which it started; on a busy cluster or store it takes longer."
    )
