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


def lose_node_with(cluster: LocalCluster, title: str) -> None:
    """kill -9 of the raylet of a node, not the head, that runs a process of this title; it takes its workers along."""
    holding = wait_for(lambda: [node.pid for node in cluster.nodes[1:] if named(title, node.pid)])
    (raylet,) = named(str(Path(RAYLET_EXECUTABLE)), holding[0])
    workers = named(title, holding[0])
    os.kill(raylet, signal.SIGKILL)
    wait_for(lambda: not any(is_named(worker, title) for worker in workers))
