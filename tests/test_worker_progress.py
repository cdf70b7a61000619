"""What is said of workers that do not begin."""

from __future__ import annotations

import contextlib
import threading

import pytest

from raydiff.cluster import capacity, worker_progress
from raydiff.cluster.worker_progress import shown_progress, told_if_pending


@pytest.fixture
def told(monkeypatch) -> threading.Event:
    """Set as soon as somebody asks for what the cluster has, in order to say it."""
    asked = threading.Event()

    def described() -> str:
        asked.set()
        return "1 node with 0 GPUs and 2 CPUs, of which 0 GPUs and 0 CPUs are free"

    monkeypatch.setattr(capacity, "described", described)
    return asked


def test_what_is_pending_is_told_with_what_the_cluster_has(told, monkeypatch, capsys):
    monkeypatch.setattr(worker_progress, "PENDING_SECONDS", 0.01)
    with told_if_pending("lafite"):
        assert told.wait(30)
    out = capsys.readouterr().out
    assert "lafite: still waiting for a worker. The cluster has 1 node with 0 GPUs and 2 CPUs" in out
    assert out.count("still waiting") == 1


def test_what_has_begun_is_not(told, monkeypatch, capsys):
    with told_if_pending("lafite") as begun:
        begun.set()
    with told_if_pending("glad"):
        pass  # over before it was late
    assert not told.is_set()
    assert "waiting" not in capsys.readouterr().out


def test_the_thread_ends_with_a_block_that_fails(told):
    before = threading.active_count()
    with pytest.raises(RuntimeError, match="no"), told_if_pending("lafite"):
        raise RuntimeError("no")
    assert threading.active_count() == before


@pytest.mark.ray
@pytest.mark.parametrize("fails", [False, True])
def test_a_phase_is_done_only_if_nothing_failed(local_ray, capsys, fails):
    import ray

    with contextlib.suppress(RuntimeError), shown_progress("lafite", "steps") as board:
        ray.get(board.write("training", 3, 10, "loss 0.1"))
        if fails:
            raise RuntimeError
    out = capsys.readouterr().out
    assert "lafite: training: begins, 10 steps" in out
    assert ("lafite: training: done, 3 steps" in out) == (not fails)
