"""What a plan says: steps with their seconds, what is stored with its bytes, facts in words; and its print."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from rich.console import Console
from rich.table import Column, Table

from raydiff.progress import console, duration


class Item(NamedTuple):
    """A step of the work and its seconds, or something that is kept and its bytes."""

    name: str
    amount: float
    note: str = ""  # of what, by how many


@dataclass(frozen=True)
class Section:
    """What is planned for one method, or for the whole."""

    title: str
    facts: Sequence[str] = ()
    steps: Sequence[Item] = ()
    stored: Sequence[Item] = ()


@dataclass(frozen=True)
class Plan:
    """A whole plan."""

    images: Mapping[str, Mapping[str, int]]  # by category and what becomes of them
    sections: Sequence[Section]
    notes: Sequence[str] = ()

    @property
    def seconds(self) -> float:
        """From the command to its end."""
        return sum(step.amount for section in self.sections for step in section.steps)

    @property
    def stored(self) -> float:
        """Bytes of all that is kept."""
        return sum(each.amount for section in self.sections for each in section.stored)


def print_plan(plan: Plan, to: Console = console) -> None:
    """Print the images, then each section's facts, the steps, what is stored, and the sums."""
    if plan.images:
        roles = list(next(iter(plan.images.values())))
        counts = Table("category", *(Column(role, justify="right") for role in roles))
        for category, found in plan.images.items():
            counts.add_row(category, *(f"{found[role]:,}" for role in roles))
        to.print(counts)
    for section in plan.sections:
        for fact in section.facts:
            to.print(f"{section.title}: {fact}", markup=False)
    estimated = Column("estimated", justify="right", no_wrap=True)
    steps, stored = Table("", "step", "of what", estimated), Table("", "stored", estimated.copy())
    for section in plan.sections:
        for step in section.steps:
            steps.add_row(section.title, step.name, step.note, duration(step.amount))
        for each in section.stored:
            stored.add_row(section.title, each.name, size(each.amount))
        steps.add_section()
        stored.add_section()
    steps.add_row("total", "", "from the command to its end", duration(plan.seconds), style="bold")
    stored.add_row("total", "", size(plan.stored), style="bold")
    to.print(steps)
    to.print(stored)
    for note in (*plan.notes, "This was a dry run: nothing was written."):
        to.print(note, markup=False)


def size(count: float) -> str:
    """Bytes as a person would say them."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"
