"""`raydiff suggest`."""

from __future__ import annotations

from typing import Annotated

import typer

from raydiff.cli import documents, options
from raydiff.cli.answer import Answer, answering
from raydiff.cli.settings_file import configurable

app = typer.Typer()


@app.command(epilog="Example: raydiff suggest --archive scores/2026-05 --model runs/may/models/lafite -n 50")
@configurable
@answering
def suggest(
    archive: Annotated[str, typer.Option(help="A folder of jobs/score_archive.py, scored by this model to its end.")],
    model: Annotated[str, typer.Option(help="URI of the model folder that made the scores, as OUT/models/lafite.")],
    number: Annotated[int, typer.Option("--number", "-n", help="How many images.")] = 50,
    seed: options.Seed = 0,
    address: options.Address = None,
    verbose: options.Verbose = False,
) -> Answer:
    """Choose the images of an archive whose verdict would teach most: borderline ones, unlike each other and judged."""
    from raydiff.learning.suggest import print_suggested
    from raydiff.learning.suggest import suggest as suggest_images

    found = suggest_images(archive, model, number, seed, address)
    print_suggested(found)
    return Answer(documents.suggested(found, archive))
