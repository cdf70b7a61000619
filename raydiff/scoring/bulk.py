"""Scoring a whole image table: Ray Data streams it, the Serve deployment scores it, finished shards are written.

However a run ends, the next one with the same folder goes on with what is missing (see `unfinished`), and no image is
ever in two rows of the score table.
"""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any, NamedTuple

import ray
from ray.data import ActorPoolStrategy
from ray.serve.handle import DeploymentHandle

from raydiff import at_work, cluster, storage
from raydiff.cluster.notes import topic
from raydiff.errors import DataError, SettingsError, Stopped
from raydiff.images.decode import MAX_PIXELS
from raydiff.images.shards import is_one_file, shards
from raydiff.images.stream import Reading, stream
from raydiff.model.description import describe
from raydiff.nn.engine import Engine
from raydiff.progress import Phase, console, phase
from raydiff.scoring import table
from raydiff.scoring.deployment import CALLS_PER_REPLICA
from raydiff.scoring.map_place import Maps
from raydiff.scoring.part_scorer import METRICS, PartScorer
from raydiff.scoring.unfinished import READS_AT_ONCE, WORK, Counts, Unfinished, count, finish, unfinished
from raydiff.storage.patience import patiently

# Ray Data keeps books on every block, so a run goes through the table in waves of bounded length.
PARTS_PER_WAVE = 4096

# A task of a file that has nothing of Ray's: its worker need not load what is imported here.
_finish: Any = ray.remote(num_cpus=0, max_retries=-1)(finish)


class Summary(NamedTuple):
    """What a bulk run did."""

    images: int  # rows in the finished score table
    scored_now: int  # of them by this run
    errors: int  # of all rows: images that could not be scored
    alarms: int  # of all rows
    seconds: float  # of streaming and scoring, start-up of the deployment not counted
    rate: float | None  # images/s since the first was read, start-up of the stream not counted either


class Meter:
    """What came back from the workers of a run, and how fast."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self._begun, self._last = float("inf"), 0.0

    def add(self, counts: dict[str, int], begun: float, now: float) -> None:
        """A part whose reading had `begun` came back `now`, both in seconds of one clock."""
        self.counts.update(counts)
        self._begun = min(self._begun, begun)
        self._last = now

    def rate(self) -> float | None:
        """Images/s since the first part was begun, None before there is one.

        Not since the first came back: what was decoded by then would flatter it.
        """
        return self.counts["images"] / (self._last - self._begun) if self._last > self._begun else None


def score_table(
    handle: DeploymentHandle,
    model_uri: str,
    table_uri: str,
    scores_uri: str,
    maps: Maps = "none",
    calibrated: bool = True,
    max_pixels: int = MAX_PIXELS,
    packed_uri: str | None = None,
    source: str = "",
    replicas: int | None = None,
    engine: Engine = "torch",
) -> Summary:
    """Score every image of a table through a deployment of the model (see `deployment.deployed`).

    Args:
        handle: of a deployment of the model at `model_uri`.
        table_uri: image table: a file, or a folder of shards that may have grown since the last run.
        scores_uri: folder of the score table. What is finished of the same run in it is kept, never done again.
        calibrated: False leaves thresholds and p-values out, whether the model has a calibration or not.
        maps: "tiff" writes float maps at each image's own size under anomaly_maps/, "png" heat maps over the images.
        max_pixels: an image that has more is read in bands where that can be (see `large`), or is a row with an error.
        packed_uri: packed archive that holds the files' bytes (see `images.packed_archive`).
        source: what a table that grows lists.
        replicas: of the deployment; one a GPU, or one a CPU, by default.
        engine: of the deployment.

    Raises:
        DataError: if the folder holds the score table of another model, image table or way of scoring.
        SettingsError: if "png" is asked of a model that was not calibrated (the colours begin at normal scores).
        Stopped: if a store does not answer for long, or takes no more. What is finished is kept.
    """
    model = describe(model_uri, calibrated)
    claim(scores_uri, model, table_uri, maps, max_pixels, source, engine)
    whole = shards(table_uri)
    done = _done(scores_uri)
    train = model["settings"]["train"]
    reading = Reading.described(train, max_pixels=max_pixels, packed_uri=packed_uri, marks_large=True)
    missing = unfinished(scores_uri, whole, done, reading.rows_per_part)
    rows = sum(each.rows for each in missing)
    kept = sum(shard.rows for shard in whole) - rows
    if rows and kept:
        console.print(f"scoring: {kept} images are scored already, {rows} are missing", markup=False)
    seconds = 0.0
    replicas = replicas or cluster.devices()
    meter = Meter()
    if missing:
        patiently(_write_manifest, scores_uri, done, False)
        with topic() as attempts, phase("scoring", rows) as shown:
            for wave in _waves(missing):
                parts = [part for each in wave for part in each.parts]
                scored = stream(parts, reading, cluster.SHARED_CPU, attempts).map_batches(
                    PartScorer,
                    fn_constructor_args=(handle, model, scores_uri, maps),
                    batch_size=None,
                    num_cpus=0,
                    # One for each replica, which waits nearly always, and so keeps it in work from several threads.
                    compute=ActorPoolStrategy(
                        size=min(max(1, len(parts)), replicas),
                        max_concurrent_calls_per_actor=CALLS_PER_REPLICA,
                        max_tasks_in_flight_per_actor=CALLS_PER_REPLICA + 1,  # whose block is fetched meanwhile
                        enable_true_multi_threading=True,
                    ),
                )
                done |= _finished(scores_uri, wave, scored.iter_rows() if parts else (), shown, meter)
                patiently(_write_manifest, scores_uri, done, False)
            seconds = shown.seconds()
        patiently(storage.delete, storage.join(scores_uri, WORK))
    patiently(_write_manifest, scores_uri, done, True)
    images, errors, alarms = map(sum, zip(*done.values(), strict=True)) if done else (0, 0, 0)
    return Summary(images, meter.counts["images"], errors, alarms, seconds, meter.rate())


def is_complete(scores_uri: str, table_uri: str) -> bool:
    """Whether every image of a table is in the score table, and the manifest says so."""
    if not table.says_complete(scores_uri):
        return False
    return {shard.name for shard in shards(table_uri)} <= set(table.part_names(scores_uri))


def finished_images(scores_uri: str) -> int:
    """How many images are in a score table, as its manifest says."""
    shards_there = storage.read_json(storage.join(scores_uri, table.MANIFEST))["shards"]
    return sum(int(counts["images"]) for counts in shards_there.values())


def claim(
    scores_uri: str,
    model: dict[str, Any],
    table_uri: str,
    maps: Maps,
    max_pixels: int,
    source: str = "",
    engine: Engine = "torch",
) -> None:
    """Note what a folder of scores is for, or check that it is for the same; arguments and errors as `check_claim`."""
    mine = check_claim(scores_uri, model, table_uri, maps, max_pixels, source, engine)
    place = storage.join(scores_uri, table.RUN)
    if not storage.exists(place):
        storage.write_json(place, mine | {"begun": datetime.now(UTC).isoformat(timespec="seconds")})


def check_claim(
    scores_uri: str,
    model: dict[str, Any],
    table_uri: str,
    maps: Maps,
    max_pixels: int,
    source: str = "",
    engine: Engine = "torch",
) -> dict[str, Any]:
    """What a folder of scores would be noted to be for; nothing is written. Arguments as of `score_table`.

    Raises:
        DataError: if it holds the scores of another model, image table or way of scoring.
        SettingsError: if "png" is asked of a model that was not calibrated.
    """
    if maps == "png" and not model["calibration"]:
        raise SettingsError("--maps png needs a calibrated model: run `raydiff calibrate` first")
    mine = {
        "model_id": model["id"],
        "images": hashlib.sha256(storage.read_bytes(table_uri)).hexdigest() if is_one_file(table_uri) else source,
        "maps": maps,
        "max_pixels": max_pixels,
        "rows_per_part": Reading.described(model["settings"]["train"]).rows_per_part,
        "engine": engine,
    }
    place = storage.join(scores_uri, table.RUN)
    theirs = {"engine": "torch"} | storage.read_json(place) if storage.exists(place) else mine
    other = [name for name in mine if theirs.get(name) != mine[name]]
    if other:
        raise DataError(
            f"{scores_uri} holds scores of another run (other {', '.join(other)}); choose another folder for these"
        )
    return mine


def _waves(missing: Iterable[Unfinished]) -> Iterator[list[Unfinished]]:
    """Whole shards, at most PARTS_PER_WAVE parts of them together (one shard at least)."""
    wave: list[Unfinished] = []
    parts = 0
    for each in missing:
        size = len(each.parts)
        if wave and parts + size > PARTS_PER_WAVE:
            yield wave
            wave, parts = [], 0
        wave.append(each)
        parts += size
    if wave:
        yield wave


def _finished(
    scores_uri: str,
    wave: list[Unfinished],
    scored: Iterable[dict[str, Any]],
    shown: Phase,
    meter: Meter,
) -> dict[str, Counts]:
    """Take in a wave's scored parts, and finish each shard when its last part is there.

    Raises:
        Stopped: if a worker cannot go on.
    """
    left = {each.shard.name: len(each.parts) for each in wave}
    named = {each.shard.name: (each.shard, each.rows_per_part) for each in wave}
    finishing = {name: _finish.remote(scores_uri, *named[name]) for name, parts in left.items() if not parts}
    for row in scored:
        if row["stopped"]:
            raise Stopped(f"{row['stopped']}; what is finished is kept, run the same command again to go on")
        at_work.check(scores_uri)
        meter.add({name: int(row[name]) for name in METRICS}, float(row["begun"]), time.time())
        shown.advance(int(row["images"]), f"{meter.counts['alarms']} alarms, {meter.counts['errors']} errors")
        name = str(row["shard"])
        left[name] -= 1
        if not left[name]:
            finishing[name] = _finish.remote(scores_uri, *named[name])
    return {name: cluster.result(counted) for name, counted in finishing.items()}


def _done(scores_uri: str) -> dict[str, Counts]:
    """The shards in the score table and what they hold; the manifest may not know the last of them."""
    place = storage.join(scores_uri, table.MANIFEST)
    known = storage.read_json(place)["shards"] if storage.exists(place) else {}
    names = table.part_names(scores_uri)

    def counts(name: str) -> Counts:
        return Counts(**known[name]) if name in known else count(table.read_file(table.part_uri(scores_uri, name)))

    with ThreadPoolExecutor(READS_AT_ONCE) as pool:
        return dict(zip(names, pool.map(counts, names), strict=True))


def _write_manifest(scores_uri: str, done: dict[str, Counts], complete: bool) -> None:
    """Which shards are in the score table, and whether these are all; written only where it changes."""
    place = storage.join(scores_uri, table.MANIFEST)
    mine = {"complete": complete, "shards": {name: counts._asdict() for name, counts in sorted(done.items())}}
    if not storage.exists(place) or storage.read_json(place) != mine:
        patiently(storage.write_json, place, mine)
