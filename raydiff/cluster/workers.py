"""What a worker is given, what it makes of that, and how its result is taken."""

from __future__ import annotations

import sys
from typing import Any

import ray

from raydiff.cluster.allocator import keep_freed_memory
from raydiff.cluster.capacity import gpus
from raydiff.cluster.task_errors import as_ours

# Scoring shares each CPU between decoding tasks, callers and a replica, because which of them is the bottleneck depends
# on the images; the operating system finds the balance better than a fixed split.
SHARED_CPU = 0.5
# A small share: replicas of a lost node come up again on the nodes that are left, and must leave CPUs there to
# decode with, or nothing would ever go on.
REPLICA_CPU = 0.05


def worker_options(cpus: float = 1) -> dict[str, Any]:
    """Resources of one worker that runs a network: a GPU where the cluster has any, else `cpus` CPUs."""
    return {"num_cpus": 1, "num_gpus": 1} if gpus() else {"num_cpus": cpus}


def use_assigned_device() -> str:
    """The device Ray gave this worker; on a CPU, as many threads as CPUs (more slow each other many-fold), and memory
    that is kept.
    """
    import torch

    _end_in_silence()
    context = ray.get_runtime_context()
    if context.get_accelerator_ids().get("GPU"):
        return "cuda"
    assigned = context.get_assigned_resources().get("CPU", 1)
    torch.set_num_threads(max(1, int(assigned)))
    keep_freed_memory()
    return "cpu"


def _end_in_silence() -> None:
    """Ray ends a worker by SIGTERM, which raises SystemExit; Python prints that where it comes in a callback."""
    before = sys.unraisablehook
    sys.unraisablehook = lambda told: None if isinstance(told.exc_value, SystemExit) else before(told)


def result(reference: Any) -> Any:
    """What a task made; an error of ours that ended it is raised as it was there, without Ray's traceback."""
    with as_ours():
        return ray.get(reference)
