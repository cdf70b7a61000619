"""Randomness of torch's own layers, which take no generator, from one."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch


@contextlib.contextmanager
def seeded(generator: torch.Generator, device: torch.device) -> Iterator[None]:
    """What is drawn inside (dropout) follows a number that the CPU generator draws; afterwards all is as it was.

    The device draws itself, and a GPU draws others than a CPU. To draw some hundred million numbers a step on the CPU
    and to bring them over would take seconds.
    """
    seed = int(torch.randint(2**62, (1,), generator=generator))
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield
