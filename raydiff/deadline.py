"""A call that may never return, with a deadline."""

from __future__ import annotations

import threading
from collections.abc import Callable


def answers_within(seconds: float, ask: Callable[[], object]) -> bool:
    """Whether `ask()` returned in time; what it raised is raised here.

    It is called in a thread, which is left behind if it does not return: no client's own timeout holds for all that
    it waits for (its name server, say).
    """
    outcome: list[BaseException | None] = []

    def note() -> None:
        try:
            ask()
            outcome.append(None)
        except BaseException as error:
            outcome.append(error)

    thread = threading.Thread(target=note, daemon=True)
    thread.start()
    thread.join(seconds)
    if outcome and outcome[0] is not None:
        raise outcome[0]
    return bool(outcome)
