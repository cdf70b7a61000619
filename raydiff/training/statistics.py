"""What a method learns without gradients, by one worker: statistics and memory bank.

In a file without Ray Train, because that worker, and whatever it does next, need not load it.
"""

from __future__ import annotations

import hashlib
from typing import Any

import ray
import safetensors.torch
import torch

from raydiff import cluster, methods, storage
from raydiff.cluster.notes import Topic
from raydiff.cluster.worker_progress import shown_progress
from raydiff.methods.base import Method, TrainSettings
from raydiff.training.store import ExampleStore

MAX_FAILURES = 3  # workers or nodes lost before a training gives up


def fit_statistics(method: str, settings: TrainSettings, examples_uri: str, run_uri: str, seed: int) -> str:
    """Statistics and memory bank, by one worker; kept, so that a second run finds them."""
    target = storage.join(run_uri, f"statistics-{digest(settings, examples_uri, seed)}.safetensors")
    if not storage.exists(target):
        with shown_progress(method, "steps") as board:
            options = cluster.worker_options(cpus=cluster.cpus_for_each(1))
            cluster.result(_statistics.options(**options).remote(method, settings, examples_uri, target, seed, board))
    return target


@ray.remote(max_retries=MAX_FAILURES)
def _statistics(method: str, settings: Any, examples_uri: str, target: str, seed: int, board: Topic) -> None:
    device = cluster.use_assigned_device()
    torch.manual_seed(seed)
    fitted = methods.get(method)(settings).to(device).eval()

    with torch.no_grad():
        fitted.fit_statistics(ExampleStore(examples_uri), seed, board.report)
    storage.write_bytes(target, safetensors.torch.save(state_of(fitted)))


def state_of(method: Method) -> dict[str, torch.Tensor]:
    """A method's tensors as they are written to files."""
    return {key: value.contiguous().cpu() for key, value in method.state_dict().items()}


def digest(settings: TrainSettings, examples_uri: str, seed: int) -> str:
    """What a training is told from others by."""
    told = f"{settings.model_dump_json()}|{storage.name(examples_uri)}|{seed}"
    return hashlib.sha256(told.encode()).hexdigest()[:12]
