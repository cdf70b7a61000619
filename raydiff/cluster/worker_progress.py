"""What a step's workers do, shown on the driver: how far they are, or what they wait for."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from functools import partial

import ray

from raydiff.cluster import capacity
from raydiff.cluster.notes import Topic, topic
from raydiff.progress import Phase, console, phase

LOOK_SECONDS = 0.5
PENDING_SECONDS = 60.0  # without a worker, after which the job says what it waits for


@contextlib.contextmanager
def shown_progress(prefix: str, unit: str) -> Iterator[Topic]:
    """Show on the driver what workers write to the topic that this yields; each new title is a new phase."""
    stop, cut_short = threading.Event(), threading.Event()

    def show(board: Topic) -> None:
        with told_if_pending(prefix) as begun, contextlib.suppress(_CutShort), contextlib.ExitStack() as stack:
            running: Phase | None = None
            finished = False
            while not finished:
                finished = stop.wait(LOOK_SECONDS)  # one last look after the end
                title, done, total, note = ray.get(board.read())
                if title:
                    begun.set()
                if title and (running is None or running.title != f"{prefix}: {title}"):
                    stack.close()
                    running = stack.enter_context(phase(f"{prefix}: {title}", total or None, unit))
                if running is not None:
                    running.update(done, note)
                if cut_short.is_set():
                    raise _CutShort

    with topic() as board, _beside(partial(show, board), stop):
        try:
            yield board
        except BaseException:
            cut_short.set()
            raise


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
