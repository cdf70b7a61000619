"""How much of the machine's speed the bulk path keeps: images/s through Ray Data and Serve against a bare loop.

Both run here one after the other on the same images, model and decoding. Start-up is not counted on either side: the
bulk path also scores the first parts by themselves, as many as are on their way at once, and what that takes is taken
off, with their images. The bare loop has one process a CPU (or a GPU).
"""

from __future__ import annotations

import multiprocessing
import time
from typing import Any

import pyarrow as pa

from raydiff import cluster, storage
from raydiff.cluster.allocator import keep_freed_memory
from raydiff.errors import DataError
from raydiff.images import packed_archive
from raydiff.images.archive import write_shard
from raydiff.images.shards import Part, parts, read_rows, row_count, shard_name
from raydiff.images.stream import Reading, decode_rows
from raydiff.model.description import describe
from raydiff.nn.engine import Engine
from raydiff.scoring.archive_run import list_images
from raydiff.scoring.bulk import score_table
from raydiff.scoring.deployment import deployed

PARTS_UNDER_WAY = 8  # a device: decoded, waiting, scored and written at once; fewer would start in less time


def measure(model: str, data: str, out: str, engine: Engine = "torch") -> dict[str, Any]:
    """The bulk path's images/s, the bare loop's, and their ratio, also written to `benchmark.json` in `out`.

    Args:
        data: a folder of images, a table or a packed archive: the two forms' bulk rates tell what packing is worth.

    Raises:
        DataError: if there are too few images to measure with.
    """
    model, data, out = map(storage.absolute, (model, data, out))
    images = storage.join(out, "images")
    packed = list_images(describe(model), data, images)
    cluster.connect()
    workers = cluster.devices()
    few = storage.join(out, "few")
    write_first_parts(images, PARTS_UNDER_WAY * workers, few)
    if row_count(images) <= row_count(few):
        raise DataError(f"{data} has {row_count(images)} images, too few to measure with; give it 2,000 or more")
    with deployed(model, engine=engine) as handle:
        for start in ("warm", "start"):  # code loaded and memory taken, then measured
            started = score_table(handle, model, few, storage.join(out, start), engine=engine)
        bulk = score_table(handle, model, images, out, packed_uri=packed, source=data, engine=engine)
    rate = (bulk.images - started.images) / (bulk.seconds - started.seconds)
    bare = bare_loop(model, images, packed, workers, engine)
    found = {
        "engine": engine,
        "images": bulk.images,
        "workers": workers,
        "start_seconds": started.seconds,
        "bulk_images_per_second": rate,
        "bare_images_per_second": bare,
        "ratio": rate / bare,
    }
    storage.write_json(storage.join(out, "benchmark.json"), found)
    return found


def write_first_parts(images: str, count: int, few: str) -> None:
    """An image table of the first parts; in a packed archive, too, each image is read as the file that it was."""
    rows = pa.concat_tables(read_rows(part.uri, part.start, part.stop) for part in parts(images)[:count])
    write_shard(few, shard_name(1, 0, len(rows)), rows)


def bare_loop(model: str, images: str, packed: str | None, workers: int, engine: Engine = "torch") -> float:
    """Images/s of so many processes that each decode and score their share of the parts, and nothing else."""
    if len(parts(images)) < workers:
        raise DataError(f"{row_count(images)} images are too few for {workers} processes; give a part of 64 for each")
    spawn = multiprocessing.get_context("spawn")
    ready, results = spawn.Barrier(workers), spawn.Queue()
    processes = [
        spawn.Process(target=_bare_worker, args=(model, images, packed, rank, workers, engine, ready, results))
        for rank in range(workers)
    ]
    for process in processes:
        process.start()
    spans = [results.get() for _ in processes]
    for process in processes:
        process.join()
    return row_count(images) / (max(end for _, end in spans) - min(start for start, _ in spans))


def _bare_worker(
    model_uri: str,
    images: str,
    packed: str | None,
    rank: int,
    workers: int,
    engine: Engine,
    ready: Any,
    results: Any,
) -> None:
    import torch

    from raydiff.model.folder import load

    device = f"cuda:{rank}" if torch.cuda.is_available() else "cpu"
    torch.set_num_threads(1)
    keep_freed_memory()
    model = load(model_uri, device)
    model.use(engine)
    reading = Reading.of(model.method.settings, packed_uri=packed)
    mine = parts(images)[rank::workers]

    def score(part: Part) -> None:
        rows = read_rows(part.uri, part.start, part.stop)
        images = list(decode_rows(rows, reading, packed_archive.read_bytes(packed, part))["image"])
        model.score_seen(images, rows["category"].to_pylist())

    score(mine[0])  # warm: code loaded, memory taken
    ready.wait()
    start = time.time()
    for part in mine:
        score(part)
    results.put((start, time.time()))
