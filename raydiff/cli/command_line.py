"""The command line as a whole: all commands under `raydiff`, and a job's function as a command of its own."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from typing import Any

import typer

from raydiff.cli import (
    cluster_commands,
    demo_command,
    doctor_command,
    ingest_command,
    learn_command,
    recipe_command,
    rescore_command,
    review_command,
    run_commands,
    serve_command,
    suggest_command,
    verdicts_command,
)
from raydiff.errors import RaydiffError
from raydiff.greeting import greet
from raydiff.stopping import stop, stop_at_sigterm

app = typer.Typer(invoke_without_command=True, pretty_exceptions_enable=False, rich_markup_mode=None)
for commands in (
    run_commands,
    ingest_command,
    serve_command,
    review_command,
    verdicts_command,
    learn_command,
    suggest_command,
    rescore_command,
    demo_command,
    doctor_command,
    recipe_command,
):
    app.add_typer(commands.app)
app.add_typer(cluster_commands.app, name="cluster")


@app.callback()
def first(context: typer.Context) -> None:
    """Find defects in inspection images with diffusion models, on a Ray cluster."""
    if context.invoked_subcommand is None:
        greet()


def main() -> None:
    """Entry point of `raydiff`."""
    _explained(app)


def run(command: Callable[..., Any]) -> None:
    """Run a function by its command line; an error of ours becomes one line on standard error and exit status 1."""
    job = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
    job.command()(command)
    _explained(job)


def _explained(command: Callable[[], Any]) -> None:
    stop_at_sigterm()
    try:
        command()
    except Exception as error:
        found = _ours(error)
        if found is None:
            raise
        print(f"error: {found}", file=sys.stderr)
        sys.exit(1)
    except SystemExit as end:
        if end.code == signal.SIGTERM:  # from Ray's own handler
            stop()
        raise


def _ours(error: Exception) -> RaydiffError | None:
    if "ray" not in sys.modules:  # importing it takes seconds
        return error if isinstance(error, RaydiffError) else None
    from raydiff.cluster.task_errors import ours

    return ours(error)
