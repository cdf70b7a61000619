"""`raydiff doctor`."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.text import Text

from raydiff.cli import options
from raydiff.cli.answer import Answer, answering
from raydiff.cli.settings_file import configurable
from raydiff.progress import console

app = typer.Typer()

STYLES = {"ok": "green", "but": "yellow", "wrong": "bold red"}


@app.command(epilog="Example: raydiff doctor --data s3://plant/line4 --out s3://plant/runs/may")
@configurable
@answering
def doctor(
    data: Annotated[str | None, typer.Option(help="Look whether these images can be read, too.")] = None,
    out: Annotated[str | None, typer.Option(help="Look whether this folder can be written to, too.")] = None,
    address: options.Address = None,
) -> Answer:
    """Look whether this machine has what a run needs, and say what to do where it has not."""
    from raydiff.doctor import examine

    found = []
    for finding in examine(data, out, address):
        found.append(finding)
        status = Text(f"{finding.status:6}", STYLES[finding.status])
        console.print(Text.assemble(status, f"{finding.check:10}{finding.says}"))
    wrong = sum(finding.status == "wrong" for finding in found)
    if wrong:
        console.print(f"{wrong} of these stop{'s' * (wrong == 1)} work", style="bold")
    return Answer([finding._asdict() for finding in found], 1 if wrong else 0)
