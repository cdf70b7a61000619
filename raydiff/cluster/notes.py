"""What the workers of a job write down for its driver and for each other, in one process for all its steps."""

from __future__ import annotations

import contextlib
import uuid
from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple

import ray

from raydiff import verbosity

Progress = tuple[str, int, int, str]  # what is done, how much of it, of how much, and a remark

_kept: dict[str, tuple[Any, ray.ObjectRef]] = {}  # by the driver, which may join one Ray after another


class Notes:
    """The process that holds them, by topic."""

    def __init__(self, given: object = None) -> None:
        self._progress: dict[str, Progress] = {}
        self._counts: Counter[tuple[Any, ...]] = Counter()

    def write(self, topic: str, progress: Progress) -> None:
        """Take the place of what was written before."""
        self._progress[topic] = progress

    def read(self, topic: str) -> Progress:
        """What was written last; without a title, if nothing was."""
        return self._progress.get(topic, ("", 0, 0, ""))

    def count(self, topic: str, what: tuple[Any, ...]) -> int:
        """Count, and tell how often that was."""
        self._counts[topic, *what] += 1
        return self._counts[topic, *what]

    def forget(self, topic: str) -> None:
        """Let go of a topic that is over."""
        self._progress.pop(topic, None)
        for what in [what for what in self._counts if what[0] == topic]:
            del self._counts[what]


class Topic(NamedTuple):
    """The notes of one step, which can be handed to its workers. What its methods return is for `ray.get`."""

    notes: Any
    name: str

    def write(self, title: str, done: int, total: int, remark: str = "") -> Any:
        """`title`: `done` of `total`."""
        return self.notes.write.remote(self.name, (title, done, total, remark))

    def report(self, title: str, done: int, total: int) -> None:
        """As `write`, and wait until it is written."""
        ray.get(self.write(title, done, total))

    def read(self) -> Any:
        """The latest `Progress`."""
        return self.notes.read.remote(self.name)

    def count(self, *what: Any) -> Any:
        """How often this was called with the same."""
        return self.notes.count.remote(self.name, what)


@contextlib.contextmanager
def topic() -> Iterator[Topic]:
    """A new topic for the workers of one step, let go of at the end."""
    opened = Topic(keeper(), uuid.uuid4().hex)
    try:
        yield opened
    finally:
        opened.notes.forget.remote(opened.name)


def keeper() -> Any:
    """The process of this driver's notes, started if there is none.

    Whoever streams with Ray Data has it started before: an actor that may be started anew and was given an object makes
    Ray's core say once a process that this could fail. Ray Data's are all so; it is said of this one, unheard.
    """
    driver = ray.get_runtime_context().get_worker_id()
    if driver not in _kept:
        # On whatever node it is, losing it must end no worker that writes to it.
        start: Any = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(Notes).remote
        with verbosity.unheard():
            given = ray.put(None)  # kept, since an actor whose arguments are gone is not started anew
            _kept[driver] = start(given), given
    return _kept[driver][0]
