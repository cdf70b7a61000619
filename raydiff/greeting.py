"""What `raydiff` says when it is asked for nothing: what to do first."""

from __future__ import annotations

from raydiff import typed
from raydiff.progress import console


def greet() -> None:
    """Print it."""
    raydiff, python = typed.program("raydiff"), typed.program("python")
    first = (
        ("make demo", "all of it on drawn images, in minutes"),
        (f"{raydiff} index --data FOLDER --out RUN", "what is made of your images"),
        (f"{python} jobs/train_all.py --data FOLDER --out RUN", "models of them, a table, a report"),
        (f"{raydiff} serve --model RUN/models/nearest_patch", "a page to inspect others with"),
    )
    width = max(len(command) for command, _ in first)
    console.print("raydiff finds defects in inspection images, trained on normal ones alone. To begin:\n")
    for command, what in first:
        console.print(f"  {command.ljust(width)}  {what}", markup=False)
    console.print(f"\n{raydiff} --help names all commands, {raydiff} COMMAND --help their options.", markup=False)
