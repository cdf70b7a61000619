"""What the joined cluster has: nodes, CPUs, GPUs, and whether they suffice."""

from __future__ import annotations

import ray

from raydiff.errors import ClusterError


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
