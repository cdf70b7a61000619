"""Going on with a trained model on further normal images: some hundred gradient steps on old and new ones together."""

from __future__ import annotations

import safetensors.torch
from torch import Tensor

from raydiff import storage
from raydiff.methods.base import GradientSettings, TrainSettings
from raydiff.training import store
from raydiff.training.statistics import digest
from raydiff.training.train import fit_gradients
from raydiff.training.workers import Workers, planned

SLOWER = 0.1  # than the training's learning rate, as at its end


def refine(
    method: str,
    settings: TrainSettings,
    steps: int,
    known_uri: str,
    further_uri: str,
    state_uri: str,
    work_uri: str,
    workers: Workers | None = None,
    seed: int = 0,
) -> dict[str, Tensor]:
    """The state of a method after further steps, with its statistics as they were; the averaged weights, as of `train`.

    Args:
        settings: it was trained with; a tenth of its learning rate is used, without another decay.
        known_uri, further_uri: example stores of the images that it was trained on, and of others.
        state_uri: its state, to be gone on from.

    Raises:
        ClusterError: if the cluster cannot hold so many workers, or the training failed.
    """
    assert isinstance(settings, GradientSettings)
    both_uri = storage.join(work_uri, f"joined-{storage.name(known_uri)}-{storage.name(further_uri)}")
    if not store.is_finished(both_uri):
        store.join(both_uri, [known_uri, further_uri])
    rates = {name: value * SLOWER for name, value in settings if name.endswith("learning_rate")}
    slow = settings.changed(train_steps=steps, warmup_steps=steps // 10, decay_from=1.0, **rates)
    asked = planned(workers)
    name = f"refine-{digest(slow, both_uri, seed)}-{asked}"
    trained_uri = storage.join(work_uri, f"{name}.safetensors")
    if not storage.exists(trained_uri):
        checkpoints = storage.join(work_uri, "checkpoints")
        fit_gradients(method, slow, both_uri, state_uri, trained_uri, checkpoints, name, asked, seed)
    return dict(safetensors.torch.load(storage.read_bytes(trained_uri)))
