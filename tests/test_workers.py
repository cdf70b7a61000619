"""How many workers, and how large: what fits into the nodes, against trying all ways to place them."""

from __future__ import annotations

import pytest
from ray.train import ScalingConfig

from raydiff import cluster
from raydiff.cluster import capacity
from raydiff.errors import ClusterError, SettingsError
from raydiff.training.workers import Workers, planned, scaling


@pytest.fixture
def nodes(monkeypatch):
    """Makes the cluster look as if it had nodes of so many CPUs and GPUs."""

    def look(cpus: list[int], gpus: int = 0) -> None:
        for place in (cluster, capacity):
            monkeypatch.setattr(place, "node_cpus", lambda: cpus)
            monkeypatch.setattr(place, "gpus", lambda: gpus)
            monkeypatch.setattr(place, "described", lambda: f"{len(cpus)} nodes")

    return look


def placeable(nodes: list[int], workers: int, each: int) -> bool:
    """Whether so many workers of so many CPUs find room, one placed after the other wherever there is some."""
    left = list(nodes)
    for _ in range(workers):
        room = next((place for place, cpus in enumerate(left) if cpus >= each), None)
        if room is None:
            return False
        left[room] -= each
    return True


@pytest.mark.parametrize("cpus", [[2], [0, 1, 1], [0, 8, 3], [5, 5, 5], [16, 1, 7]])
@pytest.mark.parametrize("workers", [1, 2, 3, 5])
def test_the_most_that_each_worker_can_have(nodes, cpus, workers):
    nodes(cpus)
    found = cluster.cpus_for_each(workers)
    assert found == max((each for each in range(1, 20) if placeable(cpus, workers, each)), default=0)


@pytest.mark.parametrize(("text", "workers"), [("4", Workers(4, 4)), ("1-4", Workers(1, 4)), ("2-2", Workers(2, 2))])
def test_a_number_or_a_range(text, workers):
    assert Workers.parse(text) == workers


@pytest.mark.parametrize("text", ["0", "4-1", "-2", "many", "1-", "1-2-3", ""])
def test_anything_else_is_refused(text):
    with pytest.raises(SettingsError, match="give a number from 1 on, or a range such as 1-4"):
        Workers.parse(text)


def test_by_default_one_a_gpu_or_one_with_a_nodes_cpus(nodes):
    nodes([0, 8, 8], gpus=3)
    assert planned(None) == Workers(1, 3)
    assert scaling(planned(None)) == ScalingConfig(num_workers=(1, 3), use_gpu=True)
    nodes([0, 8, 4])
    assert planned(None) == Workers(1, 1)
    assert scaling(planned(None)) == ScalingConfig(num_workers=1, resources_per_worker={"CPU": 8})


def test_a_range_may_begin_with_fewer_than_it_ends(nodes):
    nodes([0, 1, 1])
    assert scaling(planned(Workers(1, 4))) == ScalingConfig(num_workers=(1, 4), resources_per_worker={"CPU": 1})
    with pytest.raises(ClusterError, match="3 workers were asked for, but the cluster has 3 nodes; ask for at most 2"):
        planned(Workers(3, 4))


def test_a_cluster_whose_nodes_take_no_work_is_named(nodes):
    nodes([0])
    with pytest.raises(ClusterError, match="no node of the cluster has a CPU for tasks"):
        planned(None)
