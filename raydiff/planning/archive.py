"""The plan of an archive: what jobs/score_archive.py would score, for how long, and what it would keep."""

from __future__ import annotations

import heapq
import math
import random
from typing import Any

import pyarrow as pa

from raydiff import cluster, storage
from raydiff.images import archive, packed_archive
from raydiff.images.decode import MAX_PIXELS
from raydiff.images.listing import Listing
from raydiff.images.pages import Pages
from raydiff.images.parts import PartPattern
from raydiff.images.shards import ROWS_PER_SHARD, Shard, parts_of, read_rows, shards
from raydiff.images.stream import Reading
from raydiff.model.description import describe
from raydiff.nn.engine import Engine
from raydiff.planning import measure, timing
from raydiff.planning.plan import Item, Plan, Section
from raydiff.planning.timing import pipelined
from raydiff.progress import Phase, phase
from raydiff.scoring import archive_plan, table
from raydiff.scoring.archive_run import categories_of, check_part_from, packed_shards, places, source_of, tell
from raydiff.scoring.bulk import check_claim
from raydiff.scoring.map_place import Maps
from raydiff.scoring.unfinished import Unfinished, begun_parts


def plan_archive(
    model_uri: str,
    data_uri: str,
    out_uri: str,
    maps: Maps = "none",
    replicas: int | None = None,
    max_pixels: int = MAX_PIXELS,
    address: str | None = None,
    seconds: float = measure.SECONDS,
    pages: Pages | None = None,
    part_from: PartPattern | None = None,
    engine: Engine = "torch",
) -> Plan:
    """What the job would do; nothing is written. Arguments as of `archive_run.score_archive`.

    Args:
        seconds: of each piece that is measured.

    Raises:
        RaydiffError: what the job would raise, as far as it can be known before.
    """
    model_uri, data_uri, out_uri = places(model_uri, data_uri, out_uri)
    model = describe(model_uri)
    there = shards(storage.join(out_uri, "images"))
    source = source_of(data_uri, pages, part_from)
    if part_from and not there:
        check_part_from(data_uri, part_from, pages)
    check_claim(out_uri, model, storage.join(out_uri, "images"), maps, max_pixels, source, engine)
    packed = packed_archive.is_packed(data_uri)
    packed_uri = data_uri if packed else None
    reading = Reading.described(model["settings"]["train"], max_pixels=max_pixels, packed_uri=packed_uri)
    with phase("listing") as shown:
        listed, new, rows, some = _packed(data_uri, there) if packed else _listed(data_uri, there, model, pages, shown)
    finished, begun = set(table.part_names(out_uri)), begun_parts(out_uri)
    missing = [
        Unfinished(shard, frozenset(begun[shard.name]), reading.rows_per_part)
        for shard in there
        if shard.name not in finished
    ]
    unfinished = sum(each.rows for each in missing)
    images, scored = new + unfinished, sum(shard.rows for shard in there) - unfinished
    facts = [f"{images + scored:,} images, {scored:,} scored already, {images:,} to be scored"]
    listed_for = Item("listing", shown.seconds(), f"{listed:,} files, measured as a whole")
    if not images:
        return Plan({}, [Section(model["method"], facts, [listed_for])])
    part = next(parts_of(some or [missing[0].shard])) if packed or not len(rows) else None
    if part:
        rows = read_rows(part.uri, part.start, part.stop)

    cluster.connect(address)
    begun_in = timing.age() - listed_for.amount
    replicas = replicas or cluster.devices()
    given = model_uri, rows, reading, part if packed else None, maps, seconds, engine
    found, worked, start = measure.measured(measure.of_model, cluster.worker_options(), *given)
    stages = (found.decode, cluster.cpus() / cluster.SHARED_CPU), (found.score, replicas), (found.write, replicas)
    scoring = pipelined(images, stages, cluster.cpus(), reading.rows_per_part)
    facts += [
        f"{replicas} replica{'s' * (replicas != 1)}, {measure.cluster_fact()}",
        f"memory of a replica: {found.memory} at its peak",
    ]
    if not (storage.is_local(data_uri) and storage.is_local(out_uri)):
        asked = archive_plan.requests(images, packed)
        put = asked.put + images * (maps != "none")
        facts.append(f"about {asked.list:,} requests to list, {asked.get:,} to read and {put:,} to write")
    steps = [
        listed_for,
        Item("start", begun_in + timing.starting("archive", start), "until the first image is there"),
        Item("scoring", scoring, f"{images:,} images, {images / scoring:.1f} images/s"),
        Item("end", timing.starting("end", start)),
    ]
    stored = [
        Item("image table", new * measure.table_bytes(rows)[1]),
        Item("score table", math.ceil(images / ROWS_PER_SHARD) * found.file_bytes + images * found.row_bytes),
        Item(f"anomaly maps ({maps})", images * found.map_bytes),
    ]
    section = Section(model["method"], facts, steps, [each for each in stored if each.amount])
    return Plan({}, [section], [measure.note(worked, start)])


Found = tuple[int, int, pa.Table, list[Shard]]  # files gone through, new images, some of them or the shard of some


def _listed(data_uri: str, there: list[Shard], model: dict[str, Any], pages: Pages | None, shown: Phase) -> Found:
    """A folder or table is listed as the job does it, and held against what was listed before."""
    listing = Listing(data_uri, categories_of(model), pages)
    counts = {"known": 0, "repeated": 0}
    with archive.new_images(there, shown.counted(listing), counts) as new:
        rng = random.Random(0)
        rows = heapq.nsmallest(measure.ROWS, new, key=lambda row: rng.random())  # each as likely as the others
    total = shown.done - sum(counts.values())
    tell(data_uri, listing, archive.Growth(total, **counts))
    return shown.done + listing.left_out, total, pa.Table.from_pylist(rows, archive.SCHEMA), []


def _packed(packed_uri: str, there: list[Shard]) -> Found:
    """A packed archive says itself what is in it."""
    names = {shard.name for shard in there}
    new = [shard for shard in packed_shards(packed_uri) if shard.name not in names]
    return len(new) + len(there), sum(shard.rows for shard in new), archive.SCHEMA.empty_table(), new
