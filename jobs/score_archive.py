"""Score an archive of images with a trained, calibrated model: bucket in, Parquet out.

    ray job submit --working-dir . -- python jobs/score_archive.py \\
        --model s3://plant/runs/may/models/lafite --data s3://plant/archive/2026-05 --out s3://plant/scores/2026-05

Stopped and run again with the same --out it goes on with what is missing.
"""

from typing import Annotated

import typer

from raydiff import cli, cluster, storage
from raydiff.images.index import index, print_report
from raydiff.model import describe
from raydiff.scoring.bulk import score_table
from raydiff.scoring.deployment import deployed


def main(
    model: Annotated[str, typer.Option(help="A model folder: a path or an object-storage URI.")],
    data: cli.Data,
    out: Annotated[str, typer.Option(help="Folder for the score table (and the maps).")],
    maps: cli.MapsOption = "none",
    replicas: Annotated[int | None, typer.Option(help="Model replicas; one a GPU, or one a CPU, by default.")] = None,
) -> None:
    """Score every image there is into Parquet files, one row an image, bad ones too."""
    for uri in (model, data, out):
        storage.probe(uri)
    describe(model)
    out = storage.absolute(out)
    images = storage.join(out, "images.parquet")
    if not storage.exists(images):
        print_report(index(data, images, check=False))
    cluster.connect()
    with deployed(storage.absolute(model), replicas) as handle:
        cli.print_summary(score_table(handle, storage.absolute(model), images, out, maps))


if __name__ == "__main__":
    cli.run(main)
