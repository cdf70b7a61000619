"""The device: what it is, how fast it multiplies, and how long a call takes on it."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import torch
from torch.utils.flop_counter import FlopCounterMode

from raydiff.errors import SettingsError
from raydiff.gpu_check.parts import Job
from raydiff.gpu_check.results import Row

PEAK_SIDE = 8192  # of the matrices whose product is the measure of the device
GIB = 2**30


class Best(NamedTuple):
    """The fastest batch."""

    batch: int
    rate: float  # images/s
    memory: float  # GiB that torch held at most; 0 on a CPU


def machine(job: Job) -> Iterator[Row]:
    """What the check runs on.

    Raises:
        SettingsError: if a GPU is asked for and there is none.
    """
    if job.device == "cuda" and not torch.cuda.is_available():
        raise SettingsError(
            "torch sees no GPU on this machine; run the check where there is one, or try the command itself with "
            "--device cpu --tiny"
        )
    found: dict[str, object] = {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "processors": os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
    }
    if job.device == "cuda":
        properties = torch.cuda.get_device_properties(0)
        found |= {
            "device": properties.name,
            "memory_gib": round(properties.total_memory / GIB, 1),
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),
        }
    yield Row("versions", found)
    yield Row("bf16 matrix product", {"tflops": peak(job) / 1e12})


def peak(job: Job) -> float:
    """Floating-point operations a second of a large product of random bf16 matrices: what shares of peak are of."""
    side = 256 if job.tiny else PEAK_SIDE
    generator = torch.Generator().manual_seed(0)
    left, right = (torch.randn(side, side, generator=generator).to(job.device, torch.bfloat16) for _ in range(2))
    return 2 * side**3 / seconds_a_call(lambda: left @ right, job)


def synchronise(device: str) -> None:
    """Wait until the device has done what it was given."""
    if device == "cuda":
        torch.cuda.synchronize()


def seconds_a_call(call: Callable[[], object], job: Job) -> float:
    """Seconds of one call in a row of many, after two that do not count."""
    least = 0.05 if job.tiny else 0.5
    for _ in range(2):
        call()
    synchronise(job.device)
    count = 1
    while True:
        begun = time.perf_counter()
        for _ in range(count):
            call()
        synchronise(job.device)
        taken = time.perf_counter() - begun
        if taken >= least:
            return taken / count
        count = max(count + 1, int(1.2 * count * least / max(taken, 1e-9)))


def best_batch(of_batch: Callable[[int], Callable[[], object]], batches: Iterable[int], job: Job) -> Best:
    """The fastest of ascending batches; ends where a larger one is no faster, or memory does not hold it.

    Args:
        of_batch: a batch size to the call that is timed.
    """
    best = Best(0, 0.0, 0.0)
    for batch in batches:
        if job.device == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        try:
            rate = batch / seconds_a_call(of_batch(batch), job)
        except torch.OutOfMemoryError:
            break
        held = torch.cuda.max_memory_allocated() / GIB if job.device == "cuda" else 0.0
        if rate > best.rate:
            best = Best(batch, rate, held)
        if rate < 1.03 * best.rate and batch > best.batch:
            break
    return best


def operations(call: Callable[[], object]) -> int:
    """Floating-point operations of a call: products of matrices, convolutions and attention, a multiply-add as two."""
    with FlopCounterMode(display=False) as counter:
        call()
    return int(counter.get_total_flops())
