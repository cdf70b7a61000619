"""`raydiff demo-images`."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from raydiff.cli import options
from raydiff.cli.settings_file import configurable

app = typer.Typer()


@app.command(epilog="Example: raydiff demo-images --out demo/images")
@configurable
def demo_images(
    out: Annotated[str, typer.Option(help="A local folder, new or drawn by this command before.")],
    kind: Annotated[
        Literal["small", "large"],
        typer.Option(help="small: three products at 192 px; large: two at 3,000 x 2,000, with defects of 6 to 24 px."),
    ] = "small",
    seed: options.Seed = 0,
) -> None:
    """Draw inspection images: several products, several kinds of defect, masks."""
    if kind == "large":
        from raydiff.images.large_demo import draw as draw_large

        draw_large(out, seed=seed)
        return
    from raydiff.images.demo import draw

    draw(out, seed=seed)
