"""How many requests a replica takes in hand: some, each for a time, and the others are sent away to come again."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from raydiff.scoring.refusal import Refusal

RETRY_SECONDS = 2  # after which one that was sent away may come again
RETRY = {"Retry-After": str(RETRY_SECONDS)}


class Gate:
    """Places of a replica for requests that bring images.

    Each is read as soon as it has a place, before others are answered: Serve takes from the network what arrives of a
    body whether it is read or not, and only who reads it counts it.
    """

    def __init__(self, places: int, seconds: float) -> None:
        """So many places.

        Args:
            seconds: that a request may take, its reading and its waiting for others included.
        """
        self._places = places
        self._taken = 0
        self._seconds = seconds

    @contextlib.asynccontextmanager
    async def place(self) -> AsyncIterator[None]:
        """A place, for as long as the context lasts.

        Raises:
            Refusal: if there is none, or the time is over.
        """
        if self._taken >= self._places:
            raise Refusal(503, f"{self._taken} requests are in hand here already; send this one again later", RETRY)
        self._taken += 1
        try:
            async with asyncio.timeout(self._seconds):
                yield
        except TimeoutError:
            raise Refusal(
                503, f"there was no answer within {self._seconds:g} s; send the request again later", RETRY
            ) from None
        finally:
            self._taken -= 1
