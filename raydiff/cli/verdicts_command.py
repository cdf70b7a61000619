"""`raydiff verdicts`."""

from __future__ import annotations

from typing import Annotated

import typer

from raydiff.cli import documents
from raydiff.cli.answer import Answer, answering
from raydiff.cli.settings_file import configurable
from raydiff.errors import SettingsError
from raydiff.verdicts.bring import Unannotated

app = typer.Typer()


@app.command(epilog="Example: raydiff verdicts --scores scores/2026-05 --add judged.csv --who anna")
@configurable
@answering
def verdicts(
    scores: Annotated[
        str, typer.Option(help="A score table's folder: jobs/score_archive.py's --out, or RUN/scores/*/test.")
    ],
    add: Annotated[
        str | None, typer.Option(help="Verdicts to add: CSV, Parquet or JSON lines with uri and verdict, or COCO JSON.")
    ] = None,
    who: Annotated[str | None, typer.Option(help="Who gave them.")] = None,
    normal: Annotated[
        list[str] | None, typer.Option(help="A word or a label's name that means normal; several with commas.")
    ] = None,
    defect: Annotated[
        list[str] | None,
        typer.Option(help="One that means a defect. If given, COCO labels that are not named mean nothing."),
    ] = None,
    unsure: Annotated[list[str] | None, typer.Option(help="One that means that it could not be told.")] = None,
    unannotated: Annotated[
        Unannotated, typer.Option(help="What images without labels are in a COCO file: left-out or normal.")
    ] = "left-out",
) -> Answer:
    """Bring what inspectors said of a score table's images, or show what they said; the newest verdict counts."""
    from raydiff.verdicts import bring, summary
    from raydiff.verdicts.words import Words

    brought = None
    if add is not None:
        if who is None:
            raise SettingsError("--add needs --who: say who gave the verdicts, as in --who anna")
        brought = bring.bring(scores, add, who, Words.parse(normal, defect, unsure), unannotated)
        summary.print_brought(brought)
    elif who or normal or defect or unsure:
        raise SettingsError("--who and words are for a file; give it with --add, or leave them out")
    found = summary.summarise(scores)
    summary.print_summary(found)
    return Answer(documents.verdicts(found, brought, scores))
