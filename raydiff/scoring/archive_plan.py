"""How long scoring an archive takes, what bounds it and what its requests cost, worked out from the cost of each step.

Parts of 64 images go through four stages: the driver hands a part out and takes its result in, a task fetches and
decodes its images, a replica scores them, and the caller of the replica writes their rows. How many parts each stage
has in hand is what the code allows (`stages`). All parts cost the same, so the simulation is a recurrence, and a wave
of parts stands for all waves.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from raydiff.cluster import SHARED_CPU
from raydiff.images.pack import ROWS_PER_PACK
from raydiff.images.shards import ROWS_PER_PART, ROWS_PER_SHARD
from raydiff.images.stream import FETCHES_AT_ONCE
from raydiff.scoring.bulk import PARTS_PER_WAVE
from raydiff.scoring.columns import READS_AT_ONCE as SUMMARY_READS
from raydiff.scoring.summary import HASHES_AT_ONCE
from raydiff.storage.s3_listing import PAGE, REQUESTS_AT_ONCE

REQUESTS_A_READ = 3  # of some rows of a Parquet file: its size, its end, the rows


@dataclass(frozen=True)
class Costs:
    """What each step takes: seconds, CPU seconds, bytes and bytes/s. cluster/README.md says where each is from."""

    gpu_rate: float  # images/s of a replica
    cpus: int  # of a GPU's worker
    image_bytes: float
    read_cpu: float  # an image: fetch, hash, decode, resize
    beside_cpu: float  # an image: what replica and caller need of their worker's CPUs
    driver: float  # a part: the driver's thread
    wave: float  # until a wave's stream is under way, and from its last part to its manifest
    write: float  # a part's rows, without the request
    list_cpu: float  # an image: its key received, its row made
    table_cpu: float  # an image: its row sorted, merged and written
    summary_cpu: float  # an image: its row in the first reading of the score table
    hash_cpu: float  # an image: its row in each further one
    latency: float  # until a store begins to answer
    request_rate: float  # bytes/s of one request
    node_rate: float  # bytes/s of a worker's network


class Stage(NamedTuple):
    """What a part goes through."""

    name: str
    seconds: float


class Window(NamedTuple):
    """No more than `most` parts are between the beginning of one stage and the end of another, or the same."""

    first: int
    last: int
    most: int


class Requests(NamedTuple):
    """Requests to an S3-like store, as they are billed."""

    list: int
    get: int  # HEAD too, which costs the same
    put: int
    delete: int  # costs nothing

    def dollars(self, per_thousand_puts: float, per_thousand_gets: float) -> float:
        """What they cost; LIST has PUT's price."""
        return ((self.list + self.put) * per_thousand_puts + self.get * per_thousand_gets) / 1000


class Plan(NamedTuple):
    """What a run comes to."""

    list_hours: float
    score_hours: float
    summary_hours: float
    rate: float  # images/s while scoring
    limits: dict[str, float]  # images/s that each thing alone would allow, the lowest first
    requests: Requests
    files: int  # of the score table


def makespan(parts: int, stages: Sequence[Stage], windows: Sequence[Window]) -> float:
    """Seconds until so many parts have left the last stage, in order, each as early as the windows let it in."""
    left: list[list[float]] = [[] for _ in stages]
    for part in range(parts):
        now = 0.0
        for place, stage in enumerate(stages):
            for first, last, most in windows:
                if first == place and part >= most:
                    now = max(now, left[last][part - most])
            now += stage.seconds
            left[place].append(now)
    return left[-1][-1] if parts else 0.0


def stages(costs: Costs, gpus: int, packed: bool = False) -> tuple[list[Stage], list[Window], dict[str, float]]:
    """A part's stages, what is at most in hand, and the images/s that each limit alone allows."""
    tasks = int(costs.cpus / SHARED_CPU)  # of a worker, that read
    callers = gpus + 1  # see `bulk.score_table`
    size = ROWS_PER_PART * costs.image_bytes
    cpu = ROWS_PER_PART * (costs.read_cpu + costs.beside_cpu) * tasks / costs.cpus
    network = size * tasks / costs.node_rate
    if packed:  # its rows and its bytes: for each a HEAD, the footer, the columns
        alone = (
            2 * REQUESTS_A_READ * costs.latency
            + size / costs.request_rate
            + ROWS_PER_PART * costs.read_cpu / FETCHES_AT_ONCE
        )
    else:
        each = costs.latency + costs.image_bytes / costs.request_rate + costs.read_cpu
        alone = REQUESTS_A_READ * costs.latency + ROWS_PER_PART / FETCHES_AT_ONCE * each
    score = ROWS_PER_PART / costs.gpu_rate
    write = costs.write + costs.latency
    line = [
        Stage("driver", costs.driver),
        Stage("read", max(cpu, network, alone)),
        Stage("score", score),
        Stage("write", write),
    ]
    windows = [  # decoded parts wait in the object store, which holds hundreds, so nothing waits for room there
        Window(0, 0, 1),
        Window(1, 1, tasks * gpus),
        Window(2, 2, gpus),
        Window(2, 3, callers),
    ]
    limits = {
        "the driver": ROWS_PER_PART / costs.driver,
        "the workers' CPUs": gpus * tasks * ROWS_PER_PART / cpu,
        "the workers' network": gpus * tasks * ROWS_PER_PART / network,
        "waiting for the store": gpus * tasks * ROWS_PER_PART / alone,
        "the GPUs": gpus * ROWS_PER_PART / score,
        "callers of the replicas": callers * ROWS_PER_PART / (score + write),
    }
    return line, windows, dict(sorted(limits.items(), key=lambda item: item[1]))


def requests(images: int, packed: bool = False) -> Requests:
    """What scoring a new archive asks of the store, but for a few requests a run and three a wave.

    `packed`: without what packing took (see `packing`).
    """
    parts, shards = math.ceil(images / ROWS_PER_PART), math.ceil(images / ROWS_PER_SHARD)
    lists = 0 if packed else math.ceil(images / PAGE)
    readings = math.ceil(images / HASHES_AT_ONCE)
    reads = 2 * REQUESTS_A_READ if packed else REQUESTS_A_READ + ROWS_PER_PART  # a part's rows and its images
    return Requests(
        list=lists + shards,  # each shard's parts are listed to be deleted
        get=parts * (reads + 1) + shards * (readings + packed),
        put=shards + parts + shards,  # image table, parts, score table
        delete=shards,
    )


def packing(images: int, image_bytes: float) -> Requests:
    """What packing an archive asks of the store; files over 100 MB are written in pieces of 50 MiB."""
    shards = math.ceil(images / ROWS_PER_PACK)
    size = ROWS_PER_PACK * image_bytes
    pieces = 1 if size < 100e6 else math.ceil(size / (50 * 2**20)) + 2
    return Requests(
        list=math.ceil(images / PAGE),
        get=images + REQUESTS_A_READ * math.ceil(images / ROWS_PER_PART),
        put=shards * (1 + pieces),
        delete=0,
    )


def plan(costs: Costs, images: int, gpus: int, packed: bool = False) -> Plan:
    """How a run over a new archive goes on so many GPUs, each with its worker."""
    line, windows, limits = stages(costs, gpus, packed)
    parts = math.ceil(images / ROWS_PER_PART)
    waves, rest = divmod(parts, PARTS_PER_WAVE)
    score = waves * (makespan(PARTS_PER_WAVE, line, windows) + costs.wave)
    if rest:
        score += makespan(rest, line, windows) + costs.wave
    shards, readings = math.ceil(images / ROWS_PER_SHARD), math.ceil(images / HASHES_AT_ONCE)
    if packed:  # its shards are copied one after the other
        listed = shards * 2 * costs.latency + images * costs.table_cpu
    else:
        asking = images / PAGE * costs.latency / REQUESTS_AT_ONCE
        listed = max(asking, images * costs.list_cpu) + images * costs.table_cpu
    summed = images * (costs.summary_cpu + (readings - 1) * costs.hash_cpu)
    summed = max(summed, shards * readings * costs.latency / SUMMARY_READS)
    return Plan(
        list_hours=listed / 3600,
        score_hours=score / 3600,
        summary_hours=summed / 3600,
        rate=images / score,
        limits=limits,
        requests=requests(images, packed),
        files=shards,
    )
