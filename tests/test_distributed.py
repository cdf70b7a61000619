"""Every method that trains by gradients, in two processes that share each batch (torch's own DDP, no Ray)."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.distributed
import torch.multiprocessing
from conftest import TRAINED, fitted, made_images, tiny_settings
from torch.nn.parallel import DistributedDataParallel

from raydiff.training.loop import TrainingLoop
from raydiff.training.train import LEAVE_BUFFERS

WORLD = 2


def started(name: str, rank: int, wrapped: bool) -> TrainingLoop:
    """The training of one of two workers, on 5 images of a batch of 9 or on the other 4, in two parts."""
    method, examples = fitted(name, made_images(8))
    method.settings = tiny_settings(name, batch_size=9, accumulation=2)
    module = DistributedDataParallel(method, **LEAVE_BUFFERS) if wrapped else None
    return TrainingLoop(method, examples, seed=0, rank=rank, world=WORLD, module=module)


def gradients(running: TrainingLoop) -> list[np.ndarray]:
    """Of one step; none is clipped."""
    running.method.clip_norm = float("inf")
    running.advance()
    assert running.method.trained is not None
    return [p.grad.numpy().copy() for p in running.method.trained.parameters() if p.grad is not None]


def work(rank: int, folder: str) -> None:
    """One of the two processes: leaves each method's gradients after a step, and its weights after another."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", f"file://{folder}/meeting", rank=rank, world_size=WORLD)
    for name in TRAINED:
        running = started(name, rank, wrapped=True)
        found = gradients(running)
        running.advance()
        weights = [value.detach().numpy() for value in running.method.trained.parameters()]
        np.savez(f"{folder}/{name}-{rank}-gradients.npz", *found)
        np.savez(f"{folder}/{name}-{rank}-weights.npz", *weights)
    torch.distributed.destroy_process_group()


@pytest.fixture(scope="module")
def together(tmp_path_factory):
    """Gives what a process left of a method: its "gradients" or its "weights"."""
    folder = tmp_path_factory.mktemp("together")
    torch.multiprocessing.spawn(work, (str(folder),), nprocs=WORLD)

    def left(name: str, rank: int, what: str) -> list[np.ndarray]:
        with np.load(folder / f"{name}-{rank}-{what}.npz") as arrays:
            return [arrays[key] for key in arrays.files]

    return left


@pytest.mark.parametrize("name", TRAINED)
def test_two_workers_step_by_the_mean_of_their_gradients(together, name):
    alone = [gradients(started(name, rank, wrapped=False)) for rank in range(WORLD)]
    for rank in range(WORLD):
        for mine, expected in zip(together(name, rank, "gradients"), map(np.add, *alone), strict=True):
            np.testing.assert_allclose(mine, expected / WORLD, rtol=1e-3, atol=1e-6)
        for mine, theirs in zip(together(name, rank, "weights"), together(name, 0, "weights"), strict=True):
            np.testing.assert_array_equal(mine, theirs)
