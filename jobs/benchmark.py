"""How much of the machine's speed the bulk path keeps: images/s through Ray Data and Serve against a bare loop.

    python jobs/benchmark.py --model runs/may/models/lafite --data s3://plant/line4 --out bench

Both run here one after the other on the same images, model and decoding; start-up is not counted on either side. The
bare loop has one process a CPU (or a GPU). Run it on an idle machine with at least 1,000 images.
"""

import multiprocessing
import time
from typing import Annotated, Any

import typer

from raydiff import cli, cluster, storage
from raydiff.images.index import index
from raydiff.images.stream import ROWS_PER_PART, decode_rows, part_count, read_rows, row_count
from raydiff.progress import console
from raydiff.scoring.bulk import score_table
from raydiff.scoring.deployment import deployed


def main(
    model: Annotated[str, typer.Option(help="A model folder.")],
    data: cli.Data,
    out: Annotated[str, typer.Option(help="A new folder for the scores and benchmark.json.")],
) -> None:
    """Measure the bulk path and the bare loop, and print their ratio."""
    model, out = storage.absolute(model), storage.absolute(out)
    images = storage.join(out, "images.parquet")
    index(data, images, check=False)
    cluster.connect()
    workers = cluster.devices()
    with deployed(model) as handle:
        bulk = score_table(handle, model, images, storage.join(out, "scores"))
    bare = bare_loop(model, images, workers)
    found = {
        "images": row_count(images),
        "workers": workers,
        "bulk_images_per_second": bulk.rate,
        "bare_images_per_second": bare,
        "ratio": bulk.rate / bare if bulk.rate else None,
    }
    storage.write_json(storage.join(out, "benchmark.json"), found)
    console.print(found)


def bare_loop(model: str, table_uri: str, workers: int) -> float:
    """Images/s of so many processes that each decode and score their share of the parts, and nothing else."""
    spawn = multiprocessing.get_context("spawn")
    ready, results = spawn.Barrier(workers), spawn.Queue()
    processes = [
        spawn.Process(target=_bare_worker, args=(model, table_uri, rank, workers, ready, results))
        for rank in range(workers)
    ]
    for process in processes:
        process.start()
    spans = [results.get() for _ in processes]
    for process in processes:
        process.join()
    return row_count(table_uri) / (max(end for _, end in spans) - min(start for start, _ in spans))


def _bare_worker(model_uri: str, table_uri: str, rank: int, workers: int, ready: Any, results: Any) -> None:
    import torch

    from raydiff.model import load

    device = f"cuda:{rank}" if torch.cuda.is_available() else "cpu"
    torch.set_num_threads(1)
    model = load(model_uri, device)
    parts = range(rank, part_count(table_uri), workers)

    def score(part: int) -> None:
        rows = read_rows(table_uri, part * ROWS_PER_PART, (part + 1) * ROWS_PER_PART)
        model.score(list(decode_rows(rows, model.image_size)["image"]))

    score(parts[0])  # warm: code loaded, memory taken
    ready.wait()
    start = time.time()
    for part in parts:
        score(part)
    results.put((start, time.time()))


if __name__ == "__main__":
    cli.run(main)
