"""What dies on the way of a training: it ends as an undisturbed one, or with fewer workers from the last checkpoint."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from nodes import joining, lose_node_with
from processes import is_named, named, wait_for
from training_run import WORKER, Run, assert_same

import raydiff
from raydiff.cluster.local import local_cluster
from raydiff.training.train import CHECKPOINT_FILE

pytestmark = [pytest.mark.ray, pytest.mark.faults]

STEPS = 300  # enough to be caught in the middle on a fast machine
# In a process of its own: on the Ray at RAY_ADDRESS, or without it on one of its own.
TRAIN = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from raydiff import cluster
from training_run import Run

cluster.connect()
Run(Path(sys.argv[2]), sys.argv[3], int(sys.argv[4]), sys.argv[5]).train()
"""


def command(run: Run) -> list[str]:
    arguments = [str(run.folder), run.images, str(STEPS), str(run.workers)]
    return [sys.executable, "-c", TRAIN, str(Path(__file__).parent), *arguments]


def loss_curve(run: Run) -> list[tuple[int, float]]:
    return raydiff.load(str(run.folder / "model"), "cpu").card["loss_curve"]


def in_the_middle(run: Run) -> bool:
    """Ray Train has taken note of a checkpoint, and more are to come."""
    return len(run.checkpoints()) == 2 and not run.is_finished()


def test_a_killed_worker_changes_nothing(new_run):
    """That the end is the same to the bit also says that one seed gives one curve, with two workers too."""
    undisturbed, run = new_run(STEPS, "2"), new_run(STEPS, "2")
    undisturbed.train()

    def kill_one() -> None:
        first = wait_for(lambda: len(found := named(WORKER)) == 2 and found)
        wait_for(lambda: in_the_middle(run))
        os.kill(first[1], signal.SIGKILL)
        assert not run.is_finished()
        wait_for(lambda: len(found := named(WORKER)) == 2 and not set(found) & set(first))  # others in their place

    with ThreadPoolExecutor(1) as pool:
        killed = pool.submit(kill_one)
        run.train()
        killed.result(timeout=0)
    assert loss_curve(run) == loss_curve(undisturbed)
    assert_same(run, undisturbed)


def test_a_killed_driver_goes_on_from_its_checkpoint(new_run, job_environment):
    undisturbed, run = new_run(STEPS, "1"), new_run(STEPS, "1")
    undisturbed.train()
    with subprocess.Popen(command(run), env=job_environment) as driver:
        try:
            wait_for(lambda: in_the_middle(run), still=lambda: driver.poll() is None)
            workers = named(WORKER, driver.pid)
        finally:
            driver.kill()
    assert len(workers) == 1
    wait_for(lambda: not is_named(workers[0], WORKER))  # Ray's processes follow their driver
    assert not run.is_finished()
    marked = 0
    for checkpoint in run.checkpoints():  # a mark in its past shows whether a training went on from it
        try:
            state = torch.load(checkpoint / CHECKPOINT_FILE, weights_only=True)
        except (RuntimeError, EOFError):  # cut off while it was written, so Ray Train does not know of it
            continue
        marked = state["loop"]["step"]
        state["curve"][0][1] = -1.0
        torch.save(state, checkpoint / CHECKPOINT_FILE)
    assert 0 < marked < STEPS
    run.train()
    assert loss_curve(run) == [[loss_curve(undisturbed)[0][0], -1.0], *loss_curve(undisturbed)[1:]]
    assert_same(run, undisturbed)


def train_on(cluster, run: Run, environment, disturb=lambda: None) -> None:
    with subprocess.Popen(command(run), env=joining(cluster, environment)) as driver:
        try:
            disturb()
            assert driver.wait(timeout=400) == 0
        finally:
            driver.kill()


def test_a_lost_node_costs_at_most_a_checkpoint(new_run, job_environment):
    """One worker goes on as if nothing had been; of one or two, one goes on alone from the last checkpoint."""
    undisturbed, alone, both = (new_run(STEPS, workers) for workers in ("1", "1", "1-2"))
    with local_cluster(nodes=3) as cluster:
        train_on(cluster, undisturbed, job_environment)

        def lose_one_of_two() -> None:
            wait_for(lambda: in_the_middle(both))
            lose_node_with(cluster, WORKER)
            assert not both.is_finished()

        train_on(cluster, both, job_environment, lose_one_of_two)
    with local_cluster(nodes=3) as cluster:

        def lose_it() -> None:
            wait_for(lambda: in_the_middle(alone))
            lose_node_with(cluster, WORKER)
            assert not alone.is_finished()

        train_on(cluster, alone, job_environment, lose_it)
    assert_same(alone, undisturbed)

    card = raydiff.load(str(both.folder / "model"), "cpu").card
    assert card["workers"] == 1
    curve = card["loss_curve"]
    assert [step for step, _ in curve] == [step for step, _ in loss_curve(undisturbed)]
    # The seeds go by worker, so two workers take another way down than one, to losses that differ like two seeds.
    ends = [sum(loss for _, loss in losses[-20:]) / 20 for losses in (curve, loss_curve(undisturbed))]
    assert ends[0] == pytest.approx(ends[1], rel=0.1)
