"""What pieces of work take, and many of them, from what time allows to look at. No Ray here."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from raydiff.cluster.processes import running
from raydiff.images.shards import ROWS_PER_PART
from raydiff.methods.base import Method

# What steps take beside their work: seconds, and starts of a process as one was seen beside another. Told from runs on
# two cores under light and heavy load (docs/speed.md): what is waiting stays, what is computing grows with the load.
STARTS = {
    "examples": (5.0, 0.8),
    "statistics": (5.0, 0.6),
    "training": (5.0, 1.8),
    "tuning": (8.0, 1.1),
    "calibrating and scoring": (10.0, 0.75),
    "archive": (4.0, 2.6),
    "end": (6.0, 0.4),  # of a run's report and of Ray, of Serve and of Ray
}
CHECKPOINT = 0.5  # seconds until Ray Train has taken one and a worker goes on
TRIALS = 1.3  # seconds from some trials that run at the same time to the next


class Timing(NamedTuple):
    """What one unit (an image, a step) takes."""

    wall: float  # seconds by the clock
    cpu: float  # seconds of processors, all threads of the process together


def starting(step: str, start: float) -> float:
    """Seconds of a step beside its work, where a process takes `start` seconds."""
    seconds, starts = STARTS[step]
    return seconds + starts * start


def age() -> float:
    """Seconds since this process began, 0 where the system does not say."""
    process = running(os.getpid())
    return time.clock_gettime(time.CLOCK_BOOTTIME) - process.began / os.sysconf("SC_CLK_TCK") if process else 0.0


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
    wall, cpu, units = map(sum, zip(*(spent[1:] or spent), strict=True))
    return Timing(wall / units, cpu / units)


def pipelined(
    images: float, stages: Sequence[tuple[Timing, float]], cpus: int, rows_per_part: int = ROWS_PER_PART
) -> float:
    """Seconds in which so many images pass through stages that work at the same time, each with so many workers.

    The first part passes alone. Then the pace is that of the slowest stage, or of all processors where these are short.
    """
    alone = min(images, rows_per_part)
    pace = max(sum(each.cpu for each, _ in stages) / cpus, *(each.wall / workers for each, workers in stages))
    return alone * sum(each.wall for each, _ in stages) + (images - alone) * pace


class Sample:
    """A few examples, repeated until they are as many as `images`; they take the place of a `training.store`.

    Args:
        images: of each category.
        seconds: a pass over them, and what a fit does after the last one, ends after so long, whatever is left.
    """

    def __init__(self, examples: Tensor, images: Sequence[int], seconds: float = 0.0) -> None:
        self._examples, self._images, self._seconds = examples, sum(images), seconds
        self.categories = [str(place) for place, count in enumerate(images) for _ in range(count)]
        self._spent = self._whole = 0.0  # seconds of the passes, as they were and as whole ones would have been
        self._share = 1.0  # of the images that the last pass came to
        self._passing = False

    def __len__(self) -> int:
        return self._images

    def take(self, indices: list[int]) -> Tensor:
        """The examples of these positions."""
        return self._examples[torch.tensor(indices) % len(self._examples)]

    def batches(self) -> Iterator[Tensor]:
        """All of them, or as many as time allows, as many at a time as a part holds."""
        began, done, self._passing = time.monotonic(), 0, True
        while done < self._images and (not done or time.monotonic() - began < self._seconds):
            stop = min(done + ROWS_PER_PART, self._images)
            yield self.take(list(range(done, stop)))
            done = stop
        spent, self._share, self._passing = time.monotonic() - began, done / self._images, False
        self._spent += spent
        self._whole += spent / self._share

    def fit_seconds(self, method: Method) -> float:
        """How long the method's `fit_statistics` would take of all of them.

        What comes beside the passes is told by the progress that the method reports, where it is cut off, and taken to
        grow with the examples that the last pass came to.
        """
        began, progress = time.monotonic(), 1.0

        def report(what: str, done: int, total: int) -> None:
            nonlocal progress
            beside = time.monotonic() - began - self._spent
            if self._spent and not self._passing and done < total and beside > self._seconds:
                progress = done / total
                raise _Enough

        with contextlib.suppress(_Enough), torch.no_grad():
            method.fit_statistics(self, 0, report)
        return self._whole + (time.monotonic() - began - self._spent) / progress / self._share


class _Enough(Exception):
    """Long enough looked at to tell the rest."""
