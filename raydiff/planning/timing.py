"""What a piece of work costs: seconds by the clock and of processors, and the most memory a process has held."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import torch


class Timing(NamedTuple):
    """What one unit (an image, a step) takes."""

    wall: float  # seconds by the clock
    cpu: float  # seconds of processors, all threads of the process together


class Memory(NamedTuple):
    """The most that a process has held, bytes."""

    host: int
    gpu: int  # 0 without one


class Stage(NamedTuple):
    """One of several things done to each image, by so many workers at the same time."""

    timing: Timing
    workers: float


def timed(calls: Iterable[Callable[[], int]], seconds: float) -> Timing:
    """What a unit takes of calls that each do some units and say how many.

    The first warms up; the others count, until `seconds` have passed or there are no more. A first call that takes
    longer, or has none after it, is what counts.
    """
    spent: list[tuple[float, float, int]] = []
    for call in calls:
        wall, cpu = time.monotonic(), time.process_time()
        units = call()
        spent.append((time.monotonic() - wall, time.process_time() - cpu, units))
        if spent[0][0] > seconds > 0 or (len(spent) > 1 and sum(each[0] for each in spent[1:]) >= seconds):
            break
    counted = spent[1:] or spent
    wall, cpu, units = map(sum, zip(*counted, strict=True))
    return Timing(wall / units, cpu / units)


def peak_memory() -> Memory:
    """Of this process so far."""
    gpu = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0
    return Memory(1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, gpu)  # Linux tells it in KiB


def pipelined(images: int, stages: Sequence[Stage], cpus: int, part: int) -> float:
    """Seconds in which so many images pass through stages that all work at the same time.

    The first part passes alone. Then the pace is that of the slowest stage, or of all processors where these are short.
    """
    alone = min(images, part)
    pace = max(sum(stage.timing.cpu for stage in stages) / cpus, *(each.timing.wall / each.workers for each in stages))
    return alone * sum(stage.timing.wall for stage in stages) + (images - alone) * pace
