"""`raydiff serve`."""

from __future__ import annotations

from typing import Annotated

import typer

from raydiff.cli import options
from raydiff.cli.settings_file import configurable
from raydiff.errors import SettingsError

app = typer.Typer()


@app.command(epilog="Example: raydiff serve --model runs/may/models/lafite")
@configurable
def serve(
    model: Annotated[str, typer.Option(help="URI of a model folder, as OUT/models/lafite.")],
    host: Annotated[
        str, typer.Option(help="The address to listen on; 0.0.0.0 lets in whoever reaches this machine.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535)] = 8000,
    replicas: Annotated[int, typer.Option(min=1, help="Copies of the model, each on a GPU or a CPU of its own.")] = 1,
    limits: Annotated[
        list[str] | None,
        typer.Option("--set", help="A limit on requests: max_bytes, max_pixels, max_images or max_seconds, =NUMBER."),
    ] = None,
    engine: options.EngineOption = "torch",
    address: options.Address = None,
    verbose: options.Verbose = False,
) -> None:
    """Serve a model over HTTP: a page to inspect images with, and an API. RAYDIFF_SERVE_TOKEN guards it."""
    from raydiff.scoring.service import Arguments
    from raydiff.scoring.serving import serve_model

    given: dict[str, str] = {}
    for item in limits or []:
        name, equals, value = item.partition("=")
        if not equals or name in ("model", "engine"):
            raise SettingsError(f"--set {item!r} is no limit, as --set max_pixels=100000000 is one")
        given[name] = value
    serve_model(Arguments.parse({"model": model, "engine": engine, **given}), host, port, replicas, address)
