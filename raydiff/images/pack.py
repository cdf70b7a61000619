"""Packing: many small files become Parquet shards with the files' bytes inside, so that scoring opens few large ones.

A packed archive is a folder: `images/` holds the image table's shards, `packed/` one shard of the same name and order
for each, with the bytes. Bytes are kept as they are, so an image scores the same packed or not.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
import ray
from rich.console import Console

from raydiff import cluster, storage
from raydiff.at_work import at_work
from raydiff.errors import DataError, StorageError, StorageUnavailable
from raydiff.images import archive, packed_archive
from raydiff.images.ingested import check_whole
from raydiff.images.listing import Listing
from raydiff.images.pages import Pages, file_of
from raydiff.images.shards import ROWS_PER_PART, ROWS_PER_TILED_PART, Shard, read_rows, shards
from raydiff.progress import console, phase
from raydiff.storage.patience import patiently

ROWS_PER_PACK = 512  # half a GB of images of 1 MB
FETCHES_AT_ONCE = 16
LARGE_PART = 2**24  # bytes; beyond it a request for each eight images costs less than fetching them all for eight

SCHEMA = pa.schema([("uri", pa.string()), ("data", pa.large_binary()), ("error", pa.string())])


class Packed(NamedTuple):
    """What packing did."""

    images: int  # in the packed archive
    now: int  # of them by this run
    unreadable: int  # of those: files that could not be fetched
    bytes: int  # of those


def pack(data_uri: str, packed_uri: str, pages: Pages | None = None) -> Packed:
    """Pack the images of a folder or table; packed again it takes in what is new and goes on where it was stopped.

    Args:
        pages: which pages of a file are images, each a row with the whole file; by default a file is one image.

    Raises:
        DataError: if the folder holds another archive, or something else, or another run is at work there.
        StorageUnavailable: if a store does not answer for long. What is packed is kept.
    """
    for uri in (data_uri, packed_uri):
        storage.probe(uri)
    data_uri, packed_uri = storage.absolute(data_uri), storage.absolute(packed_uri)
    check_whole(data_uri)
    _claim(data_uri, packed_uri, pages)
    with at_work(packed_uri):
        return _packed(data_uri, packed_uri, pages)


def _packed(data_uri: str, packed_uri: str, pages: Pages | None) -> Packed:
    listing = Listing(data_uri, pages=pages)
    with phase("listing") as shown:
        growth = archive.grow(packed_archive.images_uri(packed_uri), shown.counted(listing), ROWS_PER_PACK)
    console.print(f"listing: {growth.new} new images, {growth.known} known", markup=False)
    table = shards(packed_archive.images_uri(packed_uri))
    done = {shard.name for shard in shards(packed_archive.data_uri(packed_uri))}
    missing = [shard for shard in table if shard.name not in done]
    if missing:
        cluster.connect()
    counts = {"unreadable": 0, "bytes": 0}
    with phase("packing", sum(shard.rows for shard in missing)) as shown:
        for shard, found in _on_cluster(missing, packed_archive.data_uri(packed_uri)):
            counts = {name: counts[name] + found[name] for name in counts}
            shown.advance(shard.rows, f"{counts['unreadable']} unreadable")
    return Packed(sum(shard.rows for shard in table), sum(shard.rows for shard in missing), **counts)


def print_packed(packed: Packed, uri: str, to: Console = console) -> None:
    """Print what packing did."""
    to.print(
        f"packed: {packed.images} images in {uri}, {packed.now} of them now ({packed.bytes / 1e6:.1f} MB); "
        f"{packed.unreadable} could not be fetched and will be rows with an error",
        markup=False,
    )


def _claim(data_uri: str, packed_uri: str, pages: Pages | None) -> None:
    mine = {"data": data_uri} | ({"pages": pages.claimed(data_uri)} if pages else {})
    if packed_archive.is_packed(packed_uri):
        if packed_archive.source(packed_uri) != data_uri:
            raise DataError(
                f"{packed_uri} holds {packed_archive.source(packed_uri)}; pack {data_uri} into another folder"
            )
        if storage.read_json(storage.join(packed_uri, packed_archive.ABOUT)) != mine:
            raise DataError(f"{packed_uri} was packed with other --pages; give the same, or pack into another folder")
        return
    if storage.exists(packed_uri) and storage.list_files(packed_uri):
        raise DataError(f"{packed_uri} holds something else; pack into a new folder")
    storage.write_json(storage.join(packed_uri, packed_archive.ABOUT), mine)


def _on_cluster(missing: list[Shard], packed_uri: str) -> Iterator[tuple[Shard, dict[str, int]]]:
    """Pack shards on the cluster, a few more at a time than it has CPUs; results as they come."""
    waiting = iter(missing)
    running: dict[Any, Shard] = {}
    while True:
        for shard in waiting:
            running[_pack_shard.remote(shard, packed_uri)] = shard
            if len(running) > cluster.cpus():
                break
        if not running:
            return
        (done, *_), _ = ray.wait(list(running))
        yield running.pop(done), cluster.result(done)


@ray.remote(num_cpus=1, max_retries=-1)
def _pack_shard(shard: Shard, packed_uri: str) -> dict[str, int]:
    """Fetch a shard's files and write them as one."""
    counts = {"unreadable": 0, "bytes": 0}
    with tempfile.TemporaryDirectory(prefix="raydiff-pack-") as folder, ThreadPoolExecutor(FETCHES_AT_ONCE) as pool:
        path = os.path.join(folder, "packed.parquet")
        # Images are compressed already. Each row group is what a part reads, and no more is in memory here. Large ones
        # are likely to be read in smaller parts, for their tiles.
        with pq.ParquetWriter(path, SCHEMA, compression="none") as file:
            for start in range(0, shard.rows, ROWS_PER_PART):
                stop = min(start + ROWS_PER_PART, shard.rows)
                uris = patiently(read_rows, shard.uri, start, stop, ["uri"])["uri"].to_pylist()
                fetched = list(pool.map(_fetch, uris))
                size = sum(len(data or b"") for data, _ in fetched)
                together = ROWS_PER_TILED_PART if size > LARGE_PART else ROWS_PER_PART
                rows = pa.table([uris, *map(list, zip(*fetched, strict=True))], schema=SCHEMA)
                file.write_table(rows, row_group_size=together)
                counts["unreadable"] += sum(data is None for data, _ in fetched)
                counts["bytes"] += size
        patiently(storage.write_file, storage.join(packed_uri, f"{shard.name}.parquet"), path)
    return counts


def _fetch(uri: str) -> tuple[bytes | None, str | None]:
    try:
        return patiently(storage.read_bytes, file_of(uri)), None
    except StorageUnavailable:
        raise
    except StorageError as error:
        return None, str(error)
