"""What a plan says: steps with their seconds, what is stored with its bytes, facts in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple


class Step(NamedTuple):
    """A step of the work and how long it is estimated to take."""

    name: str
    seconds: float
    note: str = ""  # of what, by how many


class Stored(NamedTuple):
    """Something that is kept and how large it will be."""

    name: str
    bytes: float


@dataclass(frozen=True)
class Section:
    """What is planned for one method, or for the whole."""

    title: str
    facts: Sequence[str] = ()
    steps: Sequence[Step] = ()
    stored: Sequence[Stored] = ()


@dataclass(frozen=True)
class Plan:
    """A whole plan."""

    images: Mapping[str, Mapping[str, int]]  # by category and what becomes of them
    sections: Sequence[Section]
    starts: int  # of processes that the steps wait for, not in their seconds
    start_seconds: float  # of one, as seen
    measured_seconds: float
    notes: Sequence[str] = ()

    @property
    def seconds(self) -> float:
        """Of all steps."""
        return sum(step.seconds for section in self.sections for step in section.steps)

    @property
    def stored(self) -> float:
        """Bytes of all that is kept."""
        return sum(stored.bytes for section in self.sections for stored in section.stored)
