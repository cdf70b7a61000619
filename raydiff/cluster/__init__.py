"""The Ray cluster: joining it or starting one here, what it has, and how its workers run, tell and fail."""

from raydiff.cluster.capacity import check_room, cpus, cpus_for_each, described, devices, gpus, node_cpus
from raydiff.cluster.connection import ADDRESS, LOOPBACK, connect
from raydiff.cluster.workers import REPLICA_CPU, SHARED_CPU, result, use_assigned_device, worker_options

__all__ = [
    "ADDRESS",
    "LOOPBACK",
    "REPLICA_CPU",
    "SHARED_CPU",
    "check_room",
    "connect",
    "cpus",
    "cpus_for_each",
    "described",
    "devices",
    "gpus",
    "node_cpus",
    "result",
    "use_assigned_device",
    "worker_options",
]
