"""`--json`: what a command has found as one JSON document on standard output, for scripts."""

from __future__ import annotations

import contextlib
import functools
import sys
from collections.abc import Callable
from typing import Annotated, Any, NamedTuple

import typer
from pydantic_core import to_json

from raydiff.cli.extra_options import with_options

Json = Annotated[
    bool, typer.Option("--json", help="Print what was found as one JSON document; all else goes to standard error.")
]


class Answer(NamedTuple):
    """What a command has found."""

    document: Any  # values that JSON knows, and pydantic models
    status: int = 0  # to exit with


def answering(command: Callable[..., Answer]) -> Callable[..., None]:
    """The command, which prints for people and returns its answer, with --json.

    With --json nothing but the document comes to standard output, and only if the command came to its end.
    """

    @functools.wraps(command)
    def told(*given: Any, as_json: bool = False, **named: Any) -> None:
        with contextlib.redirect_stdout(sys.stderr) if as_json else contextlib.nullcontext():
            answer = command(*given, **named)
        if as_json:
            print(to_json(answer.document, indent=2, inf_nan_mode="null").decode())
        if answer.status:
            raise typer.Exit(answer.status)

    return with_options(command, told, as_json=(Json, False))
