"""What a step's workers do, shown on the driver: how far they are, or what they wait for."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any

import ray

from raydiff.cluster import capacity
from raydiff.progress import Phase, console, phase

LOOK_SECONDS = 0.5
PENDING_SECONDS = 60.0  # without a worker, after which the job says what it waits for


class ProgressBoard:
    """Where workers write how far they are, for the driver to read."""

    def __init__(self) -> None:
        self._state: tuple[str, int, int, str] = ("", 0, 0, "")

    def write(self, title: str, done: int, total: int, note: str = "") -> None:
        """`title`: `done` of `total`."""
        self._state = (title, done, total, note)

    def read(self) -> tuple[str, int, int, str]:
        """The latest state."""
        return self._state


@contextlib.contextmanager
def shown_progress(prefix: str, unit: str) -> Iterator[Any]:
    """Show on the driver what workers write to the board that this yields; each new title is a new phase."""
    # On whatever node it is, losing it must end no worker that writes to it.
    board: Any = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(ProgressBoard).remote()
    stop, cut_short = threading.Event(), threading.Event()

    def show() -> None:
        with told_if_pending(prefix) as begun, contextlib.suppress(_CutShort), contextlib.ExitStack() as stack:
            running: Phase | None = None
            finished = False
            while not finished:
                finished = stop.wait(LOOK_SECONDS)  # one last look after the end
                title, done, total, note = ray.get(board.read.remote())
                if title:
                    begun.set()
                if title and (running is None or running.title != f"{prefix}: {title}"):
                    stack.close()
                    running = stack.enter_context(phase(f"{prefix}: {title}", total or None, unit))
                if running is not None:
                    running.update(done, note)
                if cut_short.is_set():
                    raise _CutShort

    try:
        with _beside(show, stop):
            try:
                yield board
            except BaseException:
                cut_short.set()
                raise
    finally:
        ray.kill(board)


class _CutShort(Exception):
    """Ends a phase that is not done."""


@contextlib.contextmanager
def told_if_pending(what: str) -> Iterator[threading.Event]:
    """Say once what the cluster has if `what` has not begun after a minute; the event that this yields says it has."""
    begun = threading.Event()

    def tell() -> None:
        if not begun.wait(PENDING_SECONDS):
            console.print(
                f"{what}: still waiting for a worker. The cluster has {capacity.described()}; what is not free is held "
                "by other work, or a node is on its way",
                markup=False,
            )

    with _beside(tell, begun):
        yield begun


@contextlib.contextmanager
def _beside(work: Callable[[], None], over: threading.Event) -> Iterator[None]:
    """`work` goes on in a thread beside the block, whose end sets `over` and waits for it."""
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
