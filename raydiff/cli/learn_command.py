"""`raydiff learn`."""

from __future__ import annotations

from typing import Annotated

import typer

from raydiff.cli import documents, options
from raydiff.cli.answer import Answer, answering
from raydiff.cli.settings_file import configurable
from raydiff.learning.steps import STEPS

app = typer.Typer()


@app.command(
    epilog="Example: raydiff learn --model runs/may/models/lafite --verdicts scores/2026-05 --out runs/may/models/june"
)
@configurable
@answering
def learn(
    model: Annotated[str, typer.Option(help="The calibrated model folder that learns; it stays as it is.")],
    verdicts: Annotated[
        list[str],
        typer.Option(help="A score table's folder with verdicts beside it (`raydiff verdicts`); several with commas."),
    ],
    out: Annotated[str, typer.Option(help="Where the new model folder goes.")],
    run: Annotated[
        str | None, typer.Option(help="The run that the model was trained in, where its folder lies elsewhere.")
    ] = None,
    steps: Annotated[
        int, typer.Option(min=1, help="Further steps of a method that is trained by gradients, on old and new images.")
    ] = STEPS,
    workers: options.WorkersOption = None,
    seed: options.Seed = 0,
    force: Annotated[
        bool, typer.Option(help="Write the model even if it finds fewer of the images judged defective.")
    ] = False,
    verbose: options.Verbose = False,
) -> Answer:
    """Make a new model of what inspectors said: normal images teach and calibrate it, defective ones test it."""
    from raydiff.learning.learn import learn as learn_model
    from raydiff.training.workers import Workers

    archives = [uri for given in verdicts for uri in given.split(",")]
    found = learn_model(model, archives, out, run, steps, seed, Workers.parse(workers) if workers else None, force)
    return Answer(documents.learnt(found, out))
