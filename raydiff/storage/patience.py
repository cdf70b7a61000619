"""Trying again what a store may do later."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import tenacity

from raydiff.errors import StorageUnavailable
from raydiff.progress import LINE_SECONDS, console

T = TypeVar("T")

PATIENCE_SECONDS = 120.0
FIRST_WAIT_SECONDS = 0.5
LONGEST_WAIT_SECONDS = 10.0


def patiently(call: Callable[..., T], *args: Any, seconds: float = PATIENCE_SECONDS) -> T:
    """`call(*args)`, again with growing waits as long as it raises StorageUnavailable, for up to `seconds`.

    A call under way is not cut short, however long it takes. What it has done before it failed, it will do again.

    Raises:
        StorageUnavailable: the last one, where the next wait would end later than `seconds` after the first call.
        StorageError: any other at once, as any other exception.
    """
    return tenacity.Retrying(**_how(seconds))(call, *args)


async def patiently_awaited(call: Callable[..., Awaitable[T]], *args: Any, seconds: float = PATIENCE_SECONDS) -> T:
    """As `patiently`, of a coroutine function; can be cancelled at any time."""
    return await tenacity.AsyncRetrying(**_how(seconds))(call, *args)


def _how(seconds: float) -> dict[str, Any]:
    return {
        "retry": tenacity.retry_if_exception_type(StorageUnavailable),
        # The random part keeps many workers from coming back to a struggling store in the same moment.
        "wait": tenacity.wait_exponential(FIRST_WAIT_SECONDS, max=LONGEST_WAIT_SECONDS)
        + tenacity.wait_random(0, FIRST_WAIT_SECONDS),
        "stop": tenacity.stop_before_delay(seconds),
        "before_sleep": _say,
        "reraise": True,
    }


def _say(state: tenacity.RetryCallState) -> None:
    if state.upcoming_sleep >= LINE_SECONDS and state.outcome:
        console.print(f"{state.outcome.exception()}; asking again in {state.upcoming_sleep:.0f} s", markup=False)
