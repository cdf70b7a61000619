"""The Ray cluster that a step runs on: joining or starting it, and waiting for its GPUs."""

from __future__ import annotations

import atexit
import logging
import os
import signal
import threading
import time

import ray
from ray.exceptions import AuthenticationError

from raydiff import verbosity
from raydiff.cluster import own_ray
from raydiff.cluster.capacity import gpus
from raydiff.errors import ClusterError
from raydiff.home import use_private_token
from raydiff.progress import console, phase

ADDRESS = "RAY_ADDRESS"
LOOPBACK = "127.0.0.2"  # Ray replaces 127.0.0.1 by the machine's own address, but keeps this one
POLL_SECONDS = 0.5
GPU_MINUTES = 20.0  # an autoscaler may take minutes for a node; after so many it is not coming


def connect(address: str | None = None, gpus: int | None = None) -> None:
    """Join the Ray cluster at `address` or RAY_ADDRESS (`ray job submit` sets it), or start one on this loopback.

    A cluster that merely happens to run here is never joined: it may be somebody else's.

    Args:
        gpus: to ask an autoscaling cluster for, and to wait for.

    Raises:
        ClusterError: if nothing answers at the address or the token is refused, it is a job server's, or the GPUs do
            not come; at once if none can, because the Ray is this machine's own.
    """
    here = False
    at_sigterm = signal.getsignal(signal.SIGTERM)
    if not ray.is_initialized():
        address = address or os.environ.get(ADDRESS)
        said = ray.LoggingConfig(log_level=verbosity.level())  # phases say what goes on
        if address:
            _join(address, said)
        else:
            here = True
            console.print(f"{ADDRESS} is not set: starting a Ray on this machine")
            use_private_token()
            own_ray.settle(os.environ)
            logging.getLogger("ray._private.authentication").setLevel(verbosity.level_of_needless_warnings())
            # Nobody looks at a dashboard that comes and goes with one command, and its processes are not for nothing.
            ray.init(address="local", include_dashboard=False, _node_ip_address=LOOPBACK, logging_config=said)
    if threading.current_thread() is threading.main_thread():
        # Ray's C++ core takes SIGTERM over and aborts the process, its Python part has a handler that says nothing. The
        # one of before is put back, which speaks at once; Ray's Python one where there was none.
        signal.signal(signal.SIGTERM, at_sigterm if callable(at_sigterm) else signal.getsignal(signal.SIGTERM))
    _set_up_data()
    logging.getLogger("ray.serve").setLevel(verbosity.level())
    if gpus and here:
        _check_here(gpus)
    elif gpus:
        _wait_for_gpus(gpus)


def _set_up_data() -> None:
    from ray.data import DataContext  # here, because a worker that joins nothing need not load it

    context = DataContext.get_current()
    context.enable_progress_bars = False  # phases show themselves, on the driver
    context.target_max_block_size = None  # a block is a whole part of the table, whatever its size
    # They take the memory of a worker's whole process for its task's, and remark on it every half minute.
    context.issue_detectors_config.detectors = []
    logging.getLogger("ray.data").setLevel(verbosity.level())
    logging.getLogger("ray.data._internal.progress").setLevel(logging.ERROR)  # it remarks on the missing bars


def _join(address: str, said: ray.LoggingConfig) -> None:
    from raydiff.cluster.probe import probe  # as above

    if address.startswith(("http://", "https://")):
        raise ClusterError(
            f"{address} is a job server, for `ray job submit`; {ADDRESS} and --address take the head's HOST:PORT (6379)"
        )
    try:
        probe(address)
        ray.init(address=address, logging_config=said)
    except (AuthenticationError, ConnectionError, RuntimeError, ValueError) as error:
        raise ClusterError(
            f"no Ray cluster answers at {address} ({error}); is it up, and does it take this token (RAY_AUTH_MODE, "
            "RAY_AUTH_TOKEN_PATH)?"
        ) from None


def _check_here(count: int) -> None:
    if gpus() < count:
        raise ClusterError(
            f"--gpus {count} were asked for, but this machine has {gpus()}, and the Ray started here cannot get more; "
            f"leave out --gpus, or name an autoscaling cluster with {ADDRESS} or --address"
        )


def _wait_for_gpus(count: int) -> None:
    from ray.autoscaler.sdk import request_resources  # as above

    request_resources(bundles=[{"GPU": 1}] * count)
    atexit.register(request_resources, bundles=[])  # what was asked for is kept until somebody asks for something else
    deadline = time.monotonic() + 60 * GPU_MINUTES
    with phase(f"waiting for GPUs, up to {GPU_MINUTES:g} minutes", count, "GPUs") as shown:
        while (there := gpus()) < count:
            if time.monotonic() > deadline:
                raise ClusterError(
                    f"{count} GPUs were asked for, but the cluster has {there} after {GPU_MINUTES:g} minutes; ask for "
                    "fewer with --gpus, or let its autoscaler start more (maxReplicas, max_workers)"
                )
            shown.update(there)
            time.sleep(POLL_SECONDS)
        shown.update(count)
