"""Score an archive of images with a trained, calibrated model: bucket in, Parquet out.

    ray job submit --working-dir . -- python jobs/score_archive.py \\
        --model s3://plant/runs/may/models/lafite --data s3://plant/archive/2026-05 --out s3://plant/scores/2026-05

However it ended, run again with the same --out it goes on with what is missing, and takes in what is new.
"""

from typing import Annotated, Any

import typer

from raydiff import cli
from raydiff.cli import documents, options
from raydiff.cli.answer import Answer, answering
from raydiff.cli.settings_file import configurable
from raydiff.cli.shown import print_scored
from raydiff.images.decode import MAX_PIXELS
from raydiff.images.pages import Pages
from raydiff.images.parts import PartPattern
from raydiff.progress import console


@configurable
@answering
def main(
    model: Annotated[str, typer.Option(help="A model folder: a path or an object-storage URI.")],
    data: Annotated[str, typer.Option(help="A folder of images, a table, or a packed archive (raydiff index --pack).")],
    out: Annotated[str, typer.Option(help="Folder for the score table, the summary, the maps and the report.")],
    maps: options.MapsOption = "none",
    replicas: Annotated[int | None, typer.Option(help="Model replicas; one a GPU, or one a CPU, by default.")] = None,
    address: options.Address = None,
    gpus: options.Gpus = None,
    max_pixels: Annotated[
        int, typer.Option(min=1, help="Larger images are read in bands (TIFF, seen in tiles), or rows with an error.")
    ] = MAX_PIXELS,
    pages: options.PagesOption = None,
    part_from: Annotated[
        str | None,
        typer.Option(
            help="Which part an image shows: a regular expression, searched for in its path; OUT/parts has a row each."
        ),
    ] = None,
    engine: options.EngineOption = "torch",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what it would take; write nothing.")] = False,
    verbose: options.Verbose = False,
) -> Answer:
    """Score every image there is into Parquet files, one row an image, bad ones too."""
    how: dict[str, Any] = {"pages": Pages.parse(pages), "part_from": PartPattern.parse(part_from), "engine": engine}
    if dry_run:  # imported here, because planning loads all that a run may need
        from raydiff.planning.archive import plan_archive
        from raydiff.planning.plan import print_plan

        plan = plan_archive(model, data, out, maps, replicas, max_pixels, address, **how)
        print_plan(plan)
        return Answer(documents.planned(plan))
    from raydiff.scoring.archive_run import score_archive  # here, because what Ray says is settled before it is loaded
    from raydiff.scoring.summary import print_summary

    done, summary = score_archive(model, data, out, maps, replicas, max_pixels, address, gpus, **how)
    print_scored(done)
    print_summary(summary)
    from raydiff.report.archive import write_archive_report  # matplotlib, which scoring does without

    report = write_archive_report(out)
    console.print(f"report: {report}", markup=False)
    return Answer({**documents.scored(done, out), "summary": summary, "report": report})


if __name__ == "__main__":
    cli.run(main)
