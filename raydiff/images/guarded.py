"""Calls in a process of their own, for input that may end the process it is given to."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

In = TypeVar("In")
Out = TypeVar("Out")


def each(call: Callable[[In], Out], inputs: Iterable[In], attempts: int, killed: Out) -> list[Out]:
    """`call` of each input, one at a time; `killed` for one that ended `attempts` processes, crash or memory."""
    spawn = multiprocessing.get_context("spawn")  # a fork would inherit locks of threads that it has not
    pool: ProcessPoolExecutor | None = None
    results = []
    try:
        for given in inputs:
            result = killed
            for _ in range(attempts):
                pool = pool or ProcessPoolExecutor(1, mp_context=spawn)
                try:
                    result = pool.submit(call, given).result()
                    break
                except BrokenProcessPool:
                    pool.shutdown()
                    pool = None
            results.append(result)
    finally:
        if pool:
            pool.shutdown()
    return results
