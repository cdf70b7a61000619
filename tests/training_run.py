"""A tiny training in a folder of its own, for tests that disturb it."""

from __future__ import annotations

from pathlib import Path

import safetensors.torch
import torch
from conftest import LAFITES_UNET, tiny_settings

import raydiff
from raydiff.model.description import WEIGHTS
from raydiff.training.train import CHECKPOINT_FILE, train
from raydiff.training.workers import Workers

WORKER = "ray::RayTrainWorker"


def settings(steps: int):
    """Train settings of all these trainings; the examples do not depend on the steps.

    With the network whose steps take longer, so that a training can be caught in the middle.
    """
    return tiny_settings("lafite", train_steps=steps, **LAFITES_UNET)


class Run:
    """One training, on the images that all share."""

    def __init__(self, folder: Path, images: str, steps: int, workers: str) -> None:
        self.folder, self.images, self.workers = folder, images, Workers.parse(workers)
        self.settings = settings(steps)
        self.work = folder / "work"

    def train(self) -> raydiff.Model:
        """Train, or go on; on the Ray that this process has joined."""
        return train("lafite", self.settings, self.images, str(self.folder / "model"), str(self.work), self.workers)

    def checkpoints(self) -> list[Path]:
        """The finished checkpoints, the newest last."""
        return sorted(file.parent for file in self.work.glob(f"lafite/checkpoints/*/checkpoint_*/{CHECKPOINT_FILE}"))

    def is_finished(self) -> bool:
        """Whether what a training writes last is there."""
        return any(self.work.glob("lafite/trained-*.safetensors"))

    def weights(self) -> dict[str, torch.Tensor]:
        """Of the model folder."""
        return safetensors.torch.load_file(self.folder / "model" / WEIGHTS)


def assert_same(run: Run, other: Run) -> None:
    """Their models are the same to the bit."""
    ours, theirs = run.weights(), other.weights()
    assert ours.keys() == theirs.keys()
    for name in ours:
        torch.testing.assert_close(ours[name], theirs[name], rtol=0, atol=0, msg=name)
