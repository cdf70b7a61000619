"""How many requests a replica takes in hand: some at a time, some waiting, the others sent away to come again."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from raydiff.scoring.refusal import Refusal

RETRY_SECONDS = 2  # after which one that was sent away may come again
RETRY = {"Retry-After": str(RETRY_SECONDS)}


class Gate:
    """Places of a replica for requests that bring images.

    A request that waits has not been read yet: its body is in the memory of no replica.
    """

    def __init__(self, at_once: int, waiting: int, seconds: float) -> None:
        """Places for `at_once` requests to be read and answered side by side, and for `waiting` to wait for one.

        Args:
            seconds: that a request may take, its waiting and its reading included.
        """
        self._free = asyncio.Semaphore(at_once)
        self._places = at_once + waiting
        self._taken = 0
        self._seconds = seconds

    @contextlib.asynccontextmanager
    async def place(self) -> AsyncIterator[None]:
        """A place, for as long as the context lasts.

        Raises:
            Refusal: if there is none, or the time is over.
        """
        if self._taken >= self._places:
            raise Refusal(503, f"{self._taken} requests are waiting here already; send this one again later", RETRY)
        self._taken += 1
        try:
            async with asyncio.timeout(self._seconds), self._free:
                yield
        except TimeoutError:
            raise Refusal(
                503, f"there was no answer within {self._seconds:g} s; send the request again later", RETRY
            ) from None
        finally:
            self._taken -= 1
