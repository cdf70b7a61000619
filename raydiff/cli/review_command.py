"""`raydiff review`."""

from __future__ import annotations

from typing import Annotated

import typer

from raydiff.cli.settings_file import configurable

app = typer.Typer()


@app.command(epilog="Example: raydiff review --out scores/2026-05")
@configurable
def review(
    out: Annotated[
        str, typer.Option(help="A score table's folder: jobs/score_archive.py's --out, or RUN/scores/*/test.")
    ],
    model: Annotated[
        str | None, typer.Option(help="The model folder that made the scores, for its levels and colours.")
    ] = None,
    who: Annotated[
        str | None, typer.Option(help="Who gives verdicts on the page; by default nobody does, and nothing is written.")
    ] = None,
    host: Annotated[
        str, typer.Option(help="The address to listen on; 0.0.0.0 lets in whoever reaches this machine.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535)] = 8001,
) -> None:
    """Look through a score table in a browser, however large, and judge its images. RAYDIFF_SERVE_TOKEN guards it."""
    from raydiff.review.serving import review as serve_review

    serve_review(out, host, port, model, who)
