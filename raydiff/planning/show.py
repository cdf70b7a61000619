"""A plan, printed: in a terminal and in a job's log alike."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from raydiff.planning.plan import Plan
from raydiff.planning.timing import Memory
from raydiff.progress import console, duration


def print_plan(plan: Plan, to: Console = console) -> None:
    """Print the images, then each section's facts, the steps, what is stored, and the sums."""
    if plan.images:
        to.print(_images(plan))
    for section in plan.sections:
        for fact in section.facts:
            to.print(f"{section.title}: {fact}", markup=False)
    steps = Table("", "step", "of what")
    steps.add_column("estimated", justify="right", no_wrap=True)
    stored = Table("", "stored")
    stored.add_column("estimated", justify="right", no_wrap=True)
    for section in plan.sections:
        for step in section.steps:
            steps.add_row(section.title, step.name, step.note, duration(step.seconds))
        for each in section.stored:
            stored.add_row(section.title, each.name, size(each.bytes))
        steps.add_section()
        stored.add_section()
    starting = plan.starts * plan.start_seconds
    steps.add_row("total", "", "start of processes not counted", duration(plan.seconds), style="bold")
    stored.add_row("total", "", size(plan.stored), style="bold")
    to.print(steps)
    to.print(stored)
    to.print(
        f"Starting processes comes on top: about {plan.starts} times {duration(plan.start_seconds)}, so about "
        f"{duration(plan.seconds + starting)} in all.",
        markup=False,
    )
    to.print(
        f"Times are extrapolated from {duration(plan.measured_seconds)} of work measured on one worker at a time; on a "
        "busy cluster or store it takes longer.",
        markup=False,
    )
    for note in plan.notes:
        to.print(note, markup=False)
    to.print("This was a dry run: nothing was written.", markup=False)


def size(count: float) -> str:
    """Bytes as a person would say them."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"


def held(memory: Memory) -> str:
    """Peak memory in words."""
    return size(memory.host) + (f", and {size(memory.gpu)} of its GPU" if memory.gpu else "")


def _images(plan: Plan) -> Table:
    roles = list(dict.fromkeys(role for counts in plan.images.values() for role in counts))
    counts = Table("category")
    for role in roles:
        counts.add_column(role, justify="right")
    for category, found in plan.images.items():
        counts.add_row(category, *(f"{found.get(role, 0):,}" for role in roles))
    if len(plan.images) > 1:
        total = (sum(found.get(role, 0) for found in plan.images.values()) for role in roles)
        counts.add_section()
        counts.add_row("all", *(f"{number:,}" for number in total), style="bold")
    return counts
