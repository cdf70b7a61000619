"""How many workers a training has, and what each of them takes of the cluster."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from ray.train import ScalingConfig

from raydiff import cluster
from raydiff.errors import SettingsError


class Workers(NamedTuple):
    """From `least` to `most`: equal, or a training that goes on with fewer when a node is lost, and with more later."""

    least: int
    most: int

    @classmethod
    def parse(cls, text: str) -> Workers:
        """`4`, or `1-4`.

        Raises:
            SettingsError: if it is neither.
        """
        match = re.fullmatch(r"(\d+)(?:-(\d+))?", text)
        found = cls(int(match[1]), int(match[2] or match[1])) if match else cls(0, 0)
        if not 1 <= found.least <= found.most:
            raise SettingsError(f"--workers {text}: give a number from 1 on, or a range such as 1-4")
        return found

    def __str__(self) -> str:
        return str(self.most) if self.least == self.most else f"{self.least}-{self.most}"


def planned(asked: Workers | None) -> Workers:
    """What was asked for, or by default one a GPU, as many of them as there are, or one where there is no GPU.

    Raises:
        ClusterError: if the cluster cannot hold the least of them.
    """
    found = asked or Workers(1, max(1, cluster.gpus()))
    cluster.check_room(found.least, "workers")
    return found


def begins_with(workers: Workers) -> int:
    """As many of them as there is room for now."""
    return min(workers.most, cluster.devices())


def scaling(workers: Workers) -> ScalingConfig:
    """Ray Train's words for it: a GPU each, or equal shares of the CPUs where the cluster has no GPU."""
    number: Any = workers.most if workers.least == workers.most else tuple(workers)  # Ray's own type leaves tuples out
    if cluster.gpus():
        return ScalingConfig(num_workers=number, use_gpu=True)
    each = cluster.cpus_for_each(begins_with(workers))
    return ScalingConfig(num_workers=number, resources_per_worker={"CPU": each})
