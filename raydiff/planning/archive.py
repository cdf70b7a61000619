"""The plan of an archive: what jobs/score_archive.py would score, for how long, and what it would keep."""

from __future__ import annotations

import random
from collections.abc import Iterable
from typing import Any, NamedTuple

import pyarrow as pa

from raydiff import cluster, storage
from raydiff.images import archive, pack
from raydiff.images.decode import MAX_PIXELS
from raydiff.images.listing import Listing
from raydiff.images.pages import Pages
from raydiff.images.shards import ROWS_PER_PART, ROWS_PER_SHARD, Part, Shard, parts_of, read_rows, shards
from raydiff.images.stream import Reading
from raydiff.model.description import describe
from raydiff.planning import measure
from raydiff.planning.method import STARTS, Resources
from raydiff.planning.pieces import Scoring, table_bytes
from raydiff.planning.plan import Plan, Section, Step, Stored
from raydiff.planning.show import held
from raydiff.planning.timing import Stage, pipelined
from raydiff.planning.training import cluster_fact
from raydiff.progress import phase
from raydiff.scoring import table
from raydiff.scoring.archive_plan import REQUESTS_A_READ
from raydiff.scoring.archive_run import categories_of, packed_shards, places, source_of, tell
from raydiff.scoring.bulk import check_claim
from raydiff.scoring.map_place import Maps
from raydiff.scoring.unfinished import Unfinished, begun_parts
from raydiff.storage.s3_listing import PAGE


class Work(NamedTuple):
    """What is to be scored."""

    listed: int  # files that a listing goes through
    listing_seconds: float
    new: int  # images
    unfinished: int  # images that an earlier run has listed
    scored: int
    rows: pa.Table  # some of what is to be scored
    part: Part | None  # of the packed archive, that they are

    @property
    def images(self) -> int:
        """To be scored."""
        return self.new + self.unfinished


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
) -> Plan:
    """What the job would do; nothing is written. Arguments as of `archive_run.score_archive`.

    Args:
        seconds: of each piece that is measured.

    Raises:
        RaydiffError: what the job would raise, as far as it can be known before.
    """
    model_uri, data_uri, out_uri = places(model_uri, data_uri, out_uri)
    model = describe(model_uri)
    check_claim(out_uri, model, storage.join(out_uri, "images"), maps, max_pixels, source_of(data_uri, pages))
    packed = pack.is_packed(data_uri)
    work = _packed(data_uri, out_uri) if packed else _listed(data_uri, out_uri, model, pages)
    facts = [f"{work.images + work.scored:,} images, {work.scored:,} scored already, {work.images:,} to be scored"]
    listing = Step("listing", work.listing_seconds, f"{work.listed:,} files, measured as a whole")
    if not work.images:
        return Plan({}, [Section(model["method"], facts, [listing])], 0, 0.0, 0.0)
    cluster.connect(address)
    replicas = replicas or cluster.devices()
    reading = Reading.described(
        model["settings"]["train"], max_pixels=max_pixels, packed_uri=data_uri if packed else None
    )
    piece = measure.measured(
        measure.trained, cluster.worker_options(), model_uri, work.rows, reading, work.part, maps, seconds
    )
    found: Scoring = piece.found
    stages = [
        Stage(found.decode, Resources.of_cluster(replicas).decoding),
        Stage(found.score, replicas),
        Stage(found.write, replicas),
    ]
    scoring = pipelined(work.images, stages, cluster.cpus(), ROWS_PER_PART)
    facts += [
        f"{replicas} replica{'s' * (replicas != 1)}, {cluster_fact()}",
        f"memory of a replica: {held(found.memory)} at its peak",
    ]
    if not (storage.is_local(data_uri) and storage.is_local(out_uri)):
        facts.append(requests(work.listed, work.images, packed, maps != "none"))
    files = -(-work.images // ROWS_PER_SHARD)
    stored = [
        Stored("image table", work.new * table_bytes(work.rows)),
        Stored("score table", files * found.file_bytes + work.images * found.row_bytes),
        Stored(f"anomaly maps ({maps})", work.images * found.map_bytes),
    ]
    pace = f"{work.images:,} images, {work.images / scoring:.1f} images/s"
    section = Section(model["method"], facts, [listing, Step("scoring", scoring, pace)], [s for s in stored if s.bytes])
    return Plan({}, [section], STARTS["scoring"], piece.started, piece.worked)


def requests(listed: int, images: int, packed: bool, maps: bool) -> str:
    """About how many requests the stores will answer, in words."""
    parts, files = -(-images // ROWS_PER_PART), -(-images // ROWS_PER_SHARD)
    pages = -(-listed // PAGE)
    reads = REQUESTS_A_READ * parts * (2 if packed else 1) + (0 if packed else images) + parts
    writes = parts + 2 * files + (images if maps else 0)
    return f"about {pages:,} requests to list, {reads:,} to read and {writes:,} to write"


def _listed(data_uri: str, out_uri: str, model: dict[str, Any], pages: Pages | None = None) -> Work:
    """A folder or table is listed as the job does it, and held against what was listed before."""
    there = shards(storage.join(out_uri, "images"))
    listing = Listing(data_uri, categories_of(model), pages)
    counts = {"known": 0, "repeated": 0}
    with phase("listing") as shown, archive.new_images(there, shown.counted(listing), counts) as new:
        total, rows = _drawn(new)
    tell(data_uri, listing, archive.Growth(total, **counts))
    missing = _missing(out_uri, there)
    if not rows and missing:
        _, rows = _drawn(archive.read_shard(missing[0].shard.uri).to_pylist())
    unfinished = sum(each.rows for each in missing)
    return Work(
        listed=total + sum(counts.values()) + listing.left_out,
        listing_seconds=shown.seconds(),
        new=total,
        unfinished=unfinished,
        scored=sum(shard.rows for shard in there) - unfinished,
        rows=pa.Table.from_pylist(rows, archive.SCHEMA),
        part=None,
    )


def _packed(packed_uri: str, out_uri: str) -> Work:
    """A packed archive says itself what is in it."""
    there = shards(storage.join(out_uri, "images"))
    names = {shard.name for shard in there}
    with phase("listing") as shown:
        new = [shard for shard in packed_shards(packed_uri) if shard.name not in names]
    missing = _missing(out_uri, there)
    unfinished = sum(each.rows for each in missing)
    some = [*new, *(each.shard for each in missing)][:1]
    part = next(iter(parts_of(some)), None)
    return Work(
        listed=len(new) + len(there),
        listing_seconds=shown.seconds(),
        new=sum(shard.rows for shard in new),
        unfinished=unfinished,
        scored=sum(shard.rows for shard in there) - unfinished,
        rows=read_rows(part.uri, part.start, part.stop) if part else None,
        part=part,
    )


def _missing(out_uri: str, there: list[Shard]) -> list[Unfinished]:
    """What an earlier run has listed and not scored."""
    finished = set(table.part_names(out_uri))
    begun = begun_parts(out_uri)
    return [Unfinished(shard, frozenset(begun[shard.name])) for shard in there if shard.name not in finished]


def _drawn(rows: Iterable[dict[str, Any]]) -> tuple[int, list[dict[str, Any]]]:
    """How many rows there are, and some of them, each as likely as the others."""
    rng = random.Random(0)
    kept: list[dict[str, Any]] = []
    count = 0
    for count, row in enumerate(rows, 1):
        if len(kept) < measure.ROWS:
            kept.append(row)
        elif (place := rng.randrange(count)) < measure.ROWS:
            kept[place] = row
    return count, kept
