"""What scoring an archive will cost: hours, requests and dollars, and what bounds the run, for some numbers of GPUs.

    python jobs/archive_plan.py --images 100000000 --gpus 1,8,64 --gpu-rate 100,400

Nothing is started and nothing asked of a store. The costs of each step are options; the defaults were measured on a
small machine without a GPU, or are assumptions: cluster/README.md says which.
"""

from typing import Annotated

import typer
from rich.table import Table

from raydiff import cli
from raydiff.progress import console
from raydiff.scoring.archive_plan import Costs, Plan, packing, plan


def main(
    images: Annotated[int, typer.Option(min=1, help="In the archive.")] = 100_000_000,
    gpus: Annotated[str, typer.Option(help="GPUs, each with a worker; several numbers, with commas.")] = "1,8,64",
    gpu_rate: Annotated[str, typer.Option(help="Images/s of a GPU; several, with commas. Assumed.")] = "100,400",
    packed: Annotated[bool, typer.Option(help="The archive is packed.")] = False,
    cpus: Annotated[int, typer.Option(min=1, help="CPUs of a GPU's worker.")] = 8,
    megabytes: Annotated[float, typer.Option(help="Of an image.")] = 1.0,
    read_cpu: Annotated[float, typer.Option(help="CPU seconds to fetch, decode and resize an image.")] = 0.085,
    beside_cpu: Annotated[float, typer.Option(help="CPU seconds of replica and caller, an image. Assumed.")] = 0.002,
    driver: Annotated[float, typer.Option(help="The driver's seconds, a part of 64.")] = 0.015,
    wave: Annotated[float, typer.Option(help="Seconds a wave of 4,096 parts takes to begin and to end.")] = 14.0,
    write: Annotated[float, typer.Option(help="Seconds to make the file of a part's rows.")] = 0.02,
    list_cpu: Annotated[float, typer.Option(help="CPU seconds to list an image.")] = 3e-5,
    table_cpu: Annotated[float, typer.Option(help="CPU seconds to sort an image into the image table.")] = 5e-6,
    summary_cpu: Annotated[float, typer.Option(help="CPU seconds to sum an image up.")] = 6.4e-6,
    hash_cpu: Annotated[float, typer.Option(help="CPU seconds to read an image's hash once more.")] = 3.3e-7,
    latency: Annotated[float, typer.Option(help="Seconds until the store begins to answer. Assumed.")] = 0.05,
    request_mb: Annotated[float, typer.Option(help="MB/s of one request. Assumed.")] = 50.0,
    node_gbit: Annotated[float, typer.Option(help="Gbit/s of a worker's network. Assumed.")] = 10.0,
    put_price: Annotated[float, typer.Option(help="Dollars for 1,000 PUT or LIST.")] = 0.005,
    get_price: Annotated[float, typer.Option(help="Dollars for 1,000 GET or HEAD.")] = 0.0004,
) -> None:
    """Work out what scoring an archive takes."""
    shown = Table(
        "GPUs", "images/s a GPU", "listing", "scoring", "summary", "all, hours", "images/s", "bound by", "then"
    )
    found: Plan | None = None
    for rate in map(float, gpu_rate.split(",")):
        for count in map(int, gpus.split(",")):
            costs = Costs(
                gpu_rate=rate,
                cpus=cpus,
                image_bytes=megabytes * 1e6,
                read_cpu=read_cpu,
                beside_cpu=beside_cpu,
                driver=driver,
                wave=wave,
                write=write,
                list_cpu=list_cpu,
                table_cpu=table_cpu,
                summary_cpu=summary_cpu,
                hash_cpu=hash_cpu,
                latency=latency,
                request_rate=request_mb * 1e6,
                node_rate=node_gbit * 1e9 / 8,
            )
            found = plan(costs, images, count, packed)
            took = (found.list_hours, found.score_hours, found.summary_hours)
            limits = [f"{name} ({limit:,.0f})" for name, limit in found.limits.items()]
            shown.add_row(
                *(str(count), f"{rate:g}", *(f"{each:.1f}" for each in took), f"{sum(took):.0f}"),
                *(f"{found.rate:,.0f}", *limits[:2]),
            )
    console.print(shown)
    assert found is not None
    asked = found.requests
    console.print(
        f"{found.files:,} files of scores; {asked.list:,} LIST, {asked.get:,} GET and HEAD, {asked.put:,} PUT, "
        f"{asked.delete:,} DELETE: ${asked.dollars(put_price, get_price):,.2f}; {images * megabytes / 1e6:,.1f} TB read"
    )
    once = packing(images, megabytes * 1e6)
    console.print(
        f"packing would take {once.get:,} GET and {once.put:,} PUT, once: ${once.dollars(put_price, get_price):,.2f}"
    )


if __name__ == "__main__":
    cli.run(main)
