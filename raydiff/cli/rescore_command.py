"""`raydiff rescore`."""

from __future__ import annotations

from typing import Annotated

import typer

from raydiff.cli import documents, options
from raydiff.cli.answer import Answer, answering
from raydiff.cli.settings_file import configurable

app = typer.Typer()


@app.command(epilog="Example: raydiff rescore --archive scores/2026-05 --model runs/may/models/june")
@configurable
@answering
def rescore(
    archive: Annotated[
        str, typer.Option(help="A folder of jobs/score_archive.py, scored to its end by another model.")
    ],
    model: Annotated[str, typer.Option(help="The calibrated model folder that is asked.")],
    out: Annotated[
        str | None, typer.Option(help="Where its scores and the changes go; by default a folder in the archive's.")
    ] = None,
    before: Annotated[
        str | None, typer.Option(help="The model folder that made the archive's scores, where it lies elsewhere.")
    ] = None,
    address: options.Address = None,
    verbose: options.Verbose = False,
) -> Answer:
    """Tell which alarms of a scored archive would be gone under another model, as one that learnt, and which new."""
    from raydiff.learning.rescore import print_rescored
    from raydiff.learning.rescore import rescore as rescore_archive

    found = rescore_archive(archive, model, out, before, address)
    print_rescored(found)
    return Answer(documents.rescored(found))
