"""Losing a node of a cluster on this machine, as a machine is lost."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from processes import is_named, named, wait_for
from ray._private.services import RAYLET_EXECUTABLE

from raydiff.cluster.local import LocalCluster


def joining(cluster: LocalCluster, environment: dict[str, str]) -> dict[str, str]:
    """The environment of a driver that joins the cluster itself, made from another one."""
    return environment | cluster.environment | {"RAY_ADDRESS": cluster.gcs}


def lose_node_with(cluster: LocalCluster, *titles: str) -> None:
    """kill -9 of the raylet of a node, not the head, that runs most processes of these titles; they go with it.

    A process that claims no CPU may lie on the head, all of its kind even, so name one that claims some as well.
    """

    def most() -> tuple[int, list[int]]:
        found = [(node.pid, [pid for title in titles for pid in named(title, node.pid)]) for node in cluster.nodes[1:]]
        return max(found, key=lambda each: len(each[1]))

    wait_for(lambda: most()[1])
    node, workers = most()
    (raylet,) = named(str(Path(RAYLET_EXECUTABLE)), node)
    os.kill(raylet, signal.SIGKILL)
    wait_for(lambda: not any(is_named(worker, title) for worker in workers for title in titles))
