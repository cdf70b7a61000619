"""The Ray cluster a step runs on: joining or starting it, and what it has."""

from __future__ import annotations

import atexit
import logging
import os
import signal
import threading
import time
from typing import Any

import ray
from ray.autoscaler.sdk import request_resources
from ray.data import DataContext
from ray.exceptions import AuthenticationError

from raydiff.allocator import keep_freed_memory
from raydiff.cluster_probe import probe
from raydiff.errors import ClusterError
from raydiff.home import use_private_token
from raydiff.progress import console, phase
from raydiff.task_errors import as_ours

ADDRESS = "RAY_ADDRESS"
LOOPBACK = "127.0.0.2"  # Ray replaces 127.0.0.1 by the machine's own address, but keeps this one
POLL_SECONDS = 0.5
GPU_MINUTES = 20.0  # an autoscaler may take minutes for a node; after so many it is not coming
# Scoring shares each CPU between decoding tasks, callers and a replica, because which of them is the bottleneck depends
# on the images; the operating system finds the balance better than a fixed split.
SHARED_CPU = 0.5
# A small share: replicas of a lost node come up again on the nodes that are left, and must leave CPUs there to
# decode with, or nothing would ever go on.
REPLICA_CPU = 0.05


def connect(address: str | None = None, gpus: int | None = None) -> None:
    """Join the Ray cluster at `address` or RAY_ADDRESS (`ray job submit` sets it), or start one on this loopback.

    A cluster that merely happens to run here is never joined: it may be somebody else's.

    Args:
        gpus: to ask an autoscaling cluster for, and to wait for.

    Raises:
        ClusterError: if nothing answers at the address or the token is refused, it is a job server's, or the GPUs do
            not come.
    """
    at_sigterm = signal.getsignal(signal.SIGTERM)
    if not ray.is_initialized():
        address = address or os.environ.get(ADDRESS)
        quiet = ray.LoggingConfig(log_level="WARNING")  # phases say what goes on
        if address:
            _join(address, quiet)
        else:
            console.print(f"{ADDRESS} is not set: starting a Ray on this machine")
            use_private_token()
            # Nobody looks at a dashboard that comes and goes with one command, and its processes are not for nothing.
            ray.init(address="local", include_dashboard=False, _node_ip_address=LOOPBACK, logging_config=quiet)
    if threading.current_thread() is threading.main_thread():
        # Ray's C++ core takes SIGTERM over and aborts the process, its Python part has a handler that says nothing. The
        # one of before is put back, which speaks at once; Ray's Python one where there was none.
        signal.signal(signal.SIGTERM, at_sigterm if callable(at_sigterm) else signal.getsignal(signal.SIGTERM))
    context = DataContext.get_current()
    context.enable_progress_bars = False  # phases show themselves, on the driver
    context.target_max_block_size = None  # a block is a whole part of the table, whatever its size
    logging.getLogger("ray.data").setLevel(logging.WARNING)
    logging.getLogger("ray.data._internal.progress").setLevel(logging.ERROR)  # it remarks on the missing bars
    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    if gpus:
        _wait_for_gpus(gpus)


def _join(address: str, quiet: ray.LoggingConfig) -> None:
    if address.startswith(("http://", "https://")):
        raise ClusterError(
            f"{address} is a job server, for `ray job submit`; {ADDRESS} and --address take the head's HOST:PORT (6379)"
        )
    try:
        probe(address)
        ray.init(address=address, logging_config=quiet)
    except (AuthenticationError, ConnectionError, RuntimeError, ValueError) as error:
        raise ClusterError(
            f"no Ray cluster answers at {address} ({error}); is it up, and does it take this token (RAY_AUTH_MODE, "
            "RAY_AUTH_TOKEN_PATH)?"
        ) from None


def _wait_for_gpus(count: int) -> None:
    request_resources(bundles=[{"GPU": 1}] * count)
    atexit.register(request_resources, bundles=[])  # what was asked for is kept until somebody asks for something else
    deadline = time.monotonic() + 60 * GPU_MINUTES
    with phase("waiting for GPUs", count, "GPUs") as shown:
        while (there := gpus()) < count:
            if time.monotonic() > deadline:
                raise ClusterError(
                    f"{count} GPUs were asked for, but the cluster has {there} after {GPU_MINUTES:g} minutes; ask for "
                    "fewer with --gpus, or let its autoscaler start more (maxReplicas, max_workers)"
                )
            shown.update(there)
            time.sleep(POLL_SECONDS)
        shown.update(count)


def node_cpus() -> list[int]:
    """CPUs of each node; a head often has none."""
    return [int(node["Resources"].get("CPU", 0)) for node in ray.nodes() if node["Alive"]]


def cpus() -> int:
    """CPUs of the whole cluster.

    Raises:
        ClusterError: if no node has any, so that nothing could ever run.
    """
    found = sum(node_cpus())
    if not found:
        raise ClusterError(
            "no node of the cluster has a CPU for tasks; start workers, or ask an autoscaling cluster for GPUs (--gpus)"
        )
    return found


def cpus_for_each(workers: int) -> int:
    """The most CPUs that so many workers can have each, when a worker has to fit into one node; 0: they do not fit."""
    nodes = node_cpus()
    each = max(nodes)
    while each and sum(cpus // each for cpus in nodes) < workers:
        each -= 1
    return each


def gpus() -> int:
    """GPUs of the whole cluster."""
    return int(ray.cluster_resources().get("GPU", 0))


def devices() -> int:
    """How many workers can run a network at the same time: one a GPU, or one a CPU where there is no GPU."""
    return gpus() or cpus()


def check_room(count: int, what: str) -> None:
    """Whether so many `what`, each on a device of its own, find room.

    Raises:
        ClusterError: if they do not.
    """
    if count > devices():
        raise ClusterError(
            f"{count} {what} were asked for, but the cluster has {described()}; ask for at most {devices()}, or ask an "
            f"autoscaling cluster for GPUs first (--gpus {count})"
        )


def described() -> str:
    """What the cluster has, and what of it is free, in a few words."""
    free = ray.available_resources()
    nodes = len(node_cpus())
    return (
        f"{nodes} node{'s' * (nodes != 1)} with {gpus()} GPUs and {sum(node_cpus())} CPUs, of which "
        f"{free.get('GPU', 0):g} GPUs and {free.get('CPU', 0):g} CPUs are free"
    )


def worker_options(cpus: float = 1) -> dict[str, Any]:
    """Resources of one worker that runs a network: a GPU where the cluster has any, else `cpus` CPUs."""
    return {"num_cpus": 1, "num_gpus": 1} if gpus() else {"num_cpus": cpus}


def use_assigned_device() -> str:
    """The device Ray gave this worker; on a CPU, as many threads as CPUs (more slow each other many-fold), and memory
    that is kept.
    """
    import torch

    context = ray.get_runtime_context()
    if context.get_accelerator_ids().get("GPU"):
        return "cuda"
    assigned = context.get_assigned_resources().get("CPU", 1)
    torch.set_num_threads(max(1, int(assigned)))
    keep_freed_memory()
    return "cpu"


def result(reference: Any) -> Any:
    """What a task made; an error of ours that ended it is raised as it was there, without Ray's traceback."""
    with as_ours():
        return ray.get(reference)
