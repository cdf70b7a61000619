"""The Ray cluster a step runs on: joining or starting it, what it has, and progress from its workers."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import threading
from collections.abc import Iterator
from typing import Any

import ray
from ray.data import DataContext
from ray.exceptions import RayTaskError

from raydiff.errors import ClusterError, RaydiffError
from raydiff.progress import Phase, console, phase

LOOPBACK = "127.0.0.2"  # Ray replaces 127.0.0.1 by the machine's own address, but keeps this one
POLL_SECONDS = 0.5
# Scoring shares each CPU between a decoding task, a caller and a replica, because which of them is the bottleneck
# depends on the images; the operating system finds the balance better than a fixed split.
SHARED_CPU = 0.5


def connect() -> None:
    """Join the Ray cluster at RAY_ADDRESS (`ray job submit` sets it), or start one on this machine's loopback.

    A cluster that merely happens to run here is never joined: it may be somebody else's.

    Raises:
        ClusterError: if RAY_ADDRESS is set and nothing answers there.
    """
    if not ray.is_initialized():
        address = os.environ.get("RAY_ADDRESS")
        quiet = ray.LoggingConfig(log_level="WARNING")  # phases say what goes on
        if address:
            try:
                ray.init(address=address, logging_config=quiet)
            except (ConnectionError, ValueError) as error:
                raise ClusterError(f"no Ray cluster answers at RAY_ADDRESS={address} ({error}); is it up?") from None
        else:
            console.print("RAY_ADDRESS is not set: starting a Ray on this machine")
            ray.init(address="local", _node_ip_address=LOOPBACK, logging_config=quiet)
    if threading.current_thread() is threading.main_thread():
        # Ray's C++ core takes SIGTERM over and aborts the process; Python's handler is put back in its place.
        signal.signal(signal.SIGTERM, signal.getsignal(signal.SIGTERM))
    context = DataContext.get_current()
    context.enable_progress_bars = False  # phases show themselves, on the driver
    context.target_max_block_size = None  # a block is a whole part of the table, whatever its size
    logging.getLogger("ray.data").setLevel(logging.WARNING)
    logging.getLogger("ray.data._internal.progress").setLevel(logging.ERROR)  # it remarks on the missing bars
    logging.getLogger("ray.serve").setLevel(logging.WARNING)


def cpus() -> int:
    """CPUs of the whole cluster."""
    return max(1, int(ray.cluster_resources().get("CPU", 1)))


def gpus() -> int:
    """GPUs of the whole cluster."""
    return int(ray.cluster_resources().get("GPU", 0))


def devices() -> int:
    """How many workers can run a network at the same time: one a GPU, or one a CPU where there is no GPU."""
    return gpus() or cpus()


def worker_options(cpus: float = 1) -> dict[str, Any]:
    """Resources of one worker that runs a network: a GPU where the cluster has any, else `cpus` CPUs."""
    return {"num_cpus": 1, "num_gpus": 1} if gpus() else {"num_cpus": cpus}


def use_assigned_device() -> str:
    """The device Ray gave this worker; on a CPU, as many threads as CPUs (more slow each other many-fold)."""
    import torch

    context = ray.get_runtime_context()
    if context.get_accelerator_ids().get("GPU"):
        return "cuda"
    assigned = context.get_assigned_resources().get("CPU", 1)
    torch.set_num_threads(max(1, int(assigned)))
    return "cpu"


def result(reference: Any) -> Any:
    """What a task made; an error of ours that ended it is raised as it was there, without Ray's traceback."""
    try:
        return ray.get(reference)
    except RayTaskError as error:
        if isinstance(error.cause, RaydiffError):
            raise error.cause from None
        raise


class ProgressBoard:
    """Where workers write how far they are, for the driver to read."""

    def __init__(self) -> None:
        self._state: tuple[str, int, int, str] = ("", 0, 0, "")

    def write(self, title: str, done: int, total: int, note: str = "") -> None:
        """`title`: `done` of `total`."""
        self._state = (title, done, total, note)

    def read(self) -> tuple[str, int, int, str]:
        """The latest state."""
        return self._state


@contextlib.contextmanager
def shown_progress(prefix: str, unit: str) -> Iterator[Any]:
    """Show on the driver what workers write to the board that this yields; each new title is a new phase."""
    board: Any = ray.remote(num_cpus=0)(ProgressBoard).remote()
    stop = threading.Event()

    def show() -> None:
        with contextlib.ExitStack() as stack:
            running: Phase | None = None
            finished = False
            while not finished:
                finished = stop.wait(POLL_SECONDS)  # one last look after the end
                title, done, total, note = ray.get(board.read.remote())
                if title and (running is None or running.title != f"{prefix}: {title}"):
                    stack.close()
                    running = stack.enter_context(phase(f"{prefix}: {title}", total or None, unit))
                if running is not None:
                    running.update(done, note)

    thread = threading.Thread(target=show, daemon=True)
    thread.start()
    try:
        yield board
    finally:
        stop.set()
        thread.join()
        ray.kill(board)
