"""Progress on the driver: what a phase does, how far it is, how long it will take.

A terminal gets a bar; a job's log gets plain lines, at most one every few seconds. Nothing here knows of Ray.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Iterator, Sized
from typing import TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

LINE_SECONDS = 5.0

B = TypeVar("B", bound=Sized)

console = Console(soft_wrap=True, highlight=False)


class Phase:
    """One running phase. Use `phase(...)` to make one."""

    def __init__(self, title: str, total: int | None, unit: str, bar: Progress | None) -> None:
        self.title = title
        self.unit = unit
        self.done = 0
        self.note = ""
        self._total = total
        self._start = self._last_line = time.monotonic()
        self._bar = bar
        self._task = bar.add_task(title, total=total) if bar else None

    def advance(self, count: int = 1, note: str = "") -> None:
        """`count` more units are done; `note` is shown behind the figures (a loss, say)."""
        self.update(self.done + count, note)

    def update(self, done: int, note: str = "", total: int | None = None) -> None:
        """`done` units are done in all; of `total`, if that has changed."""
        self.done = done
        self.note = note
        self._total = total or self._total
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=done, total=self._total, description=f"{self.title} {note}".strip())
        elif time.monotonic() - self._last_line >= LINE_SECONDS:
            self._last_line = time.monotonic()
            console.print(self.line(), markup=False)

    def counted(self, batches: Iterable[B]) -> Iterator[B]:
        """The batches as they come, their lengths added."""
        for batch in batches:
            self.advance(len(batch))
            yield batch

    def seconds(self) -> float:
        """Seconds since the phase began."""
        return time.monotonic() - self._start

    def line(self) -> str:
        """The phase in one line of plain text."""
        seconds = self.seconds()
        rate = self.done / seconds if seconds > 0 else 0.0
        parts = [f"{self.done} {self.unit}"]
        if self._total:
            parts = [f"{self.done}/{self._total} {self.unit} ({100 * self.done // self._total} %)"]
            if self.done < self._total and rate > 0:
                parts.append(f"about {duration((self._total - self.done) / rate)} left")
        if self.done:
            parts.append(f"{rate:.3g} {self.unit}/s")
        if self.note:
            parts.append(self.note)
        return f"{self.title}: {', '.join(parts)}"


@contextlib.contextmanager
def phase(title: str, total: int | None = None, unit: str = "images") -> Iterator[Phase]:
    """Show a phase of `total` units from its beginning to its end."""
    if console.is_terminal:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=console) as bar:
            yield Phase(title, total, unit, bar)
        return
    console.print(f"{title}: begins" + (f", {total} {unit}" if total else ""), markup=False)
    running = Phase(title, total, unit, None)
    yield running
    note = f", {running.note}" if running.note else ""
    console.print(
        f"{title}: done, {running.done} {unit} in {duration(running.seconds())}{note}",
        markup=False,
    )


def duration(seconds: float) -> str:
    """Seconds as a person would say them."""
    if seconds < 90:
        return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
