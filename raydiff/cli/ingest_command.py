"""`raydiff ingest`."""

from __future__ import annotations

from typing import Annotated

import typer

from raydiff.cli.answer import Answer, answering
from raydiff.cli.settings_file import configurable
from raydiff.images.admission import Limits

app = typer.Typer()

DEFAULT = Limits()


@app.command(epilog="Example: raydiff ingest --out s3://plant/mvtec mvtec.tar.xz")
@configurable
@answering
def ingest(
    archive: Annotated[str, typer.Argument(help="A .tar, .tar.gz, .tar.bz2, .tar.xz or .zip: a file or a URI.")],
    out: Annotated[str, typer.Option(help="The folder to unpack into, new or empty; local or an object-storage URI.")],
    max_bytes: Annotated[int, typer.Option(min=1, help="Refuse what unpacks to more, in all.")] = DEFAULT.bytes,
    max_files: Annotated[int, typer.Option(min=1, help="Refuse what holds more files, or folders.")] = DEFAULT.files,
    max_file_bytes: Annotated[int, typer.Option(min=1, help="Refuse a file of more.")] = DEFAULT.file_bytes,
    max_ratio: Annotated[
        float, typer.Option(min=1, help="Refuse what unpacks to more bytes for each byte of the archive.")
    ] = DEFAULT.ratio,
) -> Answer:
    """Unpack an archive of images into a folder or a bucket; stopped, the same command goes on."""
    from raydiff.images import ingest as ingesting

    found = ingesting.ingest(archive, out, Limits(max_bytes, max_files, max_file_bytes, max_ratio))
    ingesting.print_ingested(found)
    return Answer(found._asdict())
