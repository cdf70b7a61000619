"""What `raydiff` says when it is asked for nothing: what to do first."""

from __future__ import annotations

from raydiff import typed
from raydiff.progress import console


def greet() -> None:
    """Print it."""
    raydiff, python = typed.program("raydiff"), typed.program("python")
    first = (
        ("make demo", "in five minutes, what comes out: on images that it draws"),
        (f"{raydiff} index --data FOLDER --out RUN", "what raydiff makes of your images; trains nothing"),
        (f"{python} jobs/train_all.py --data FOLDER --out RUN", "models, a table of results and a report"),
        (f"{raydiff} serve --model RUN/models/nearest_patch", "a page to inspect images with such a model"),
    )
    width = max(len(command) for command, _ in first)
    console.print("raydiff finds defects in inspection images; normal ones are all that it is trained on. To begin:\n")
    for command, what in first:
        console.print(f"  {command.ljust(width)}  {what}", markup=False)
    console.print(f"\n{raydiff} --help names all commands, {raydiff} COMMAND --help their options.", markup=False)
