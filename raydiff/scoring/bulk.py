"""Scoring a whole image table: Ray Data streams it, the Serve deployment scores it, finished parts are written.

Each part of the table becomes one Parquet file of the score table under the part's number. A file appears whole or not
at all, so a run that was stopped goes on with the parts that are missing, and no image is ever scored into two rows.
"""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from typing import NamedTuple

import pyarrow.compute as pc
from ray.data import ActorPoolStrategy
from ray.serve.handle import DeploymentHandle

from raydiff import cluster, storage
from raydiff.errors import DataError, SettingsError
from raydiff.images.stream import ROWS_PER_PART, part_count, row_count, stream
from raydiff.model import describe
from raydiff.progress import console, phase
from raydiff.scoring import table
from raydiff.scoring.part_scorer import Maps, PartScorer

RUN = "run.json"


class Summary(NamedTuple):
    """What a bulk run did."""

    images: int  # rows in the finished score table
    scored_now: int  # of them by this run
    errors: int  # of all rows: images that could not be scored
    alarms: int  # of all rows
    seconds: float  # of streaming and scoring, start-up of the deployment not counted
    rate: float | None  # images/s from a finished part a replica to the last, start-up of the stream not counted either


def score_table(
    handle: DeploymentHandle,
    model_uri: str,
    table_uri: str,
    scores_uri: str,
    maps: Maps = "none",
    calibrated: bool = True,
) -> Summary:
    """Score every image of a table through a deployment of the model (see `deployment.deployed`).

    Args:
        handle: of a deployment of the model at `model_uri`.
        table_uri: image table.
        scores_uri: folder of the score table. Finished parts of the same run in it are kept, never done again.
        calibrated: False leaves thresholds and p-values out, whether the model has a calibration or not.
        maps: "tiff" writes float maps at each image's own size under anomaly_maps/, "png" heat maps over the images.

    Raises:
        DataError: if the folder holds the score table of another model, image table or kind of maps.
        SettingsError: if "png" is asked of a model that was not calibrated (the colours begin at normal scores).
    """
    model = describe(model_uri, calibrated)
    if maps == "png" and not model["calibration"]:
        raise SettingsError(f"--maps png needs a calibrated model: run `raydiff calibrate --model {model_uri}` first")
    _claim(scores_uri, table_uri, model["id"], maps)
    total = part_count(table_uri)
    done = {part for part in range(total) if storage.exists(table.part_uri(scores_uri, part))}
    if done:
        console.print(f"scoring: {len(done)} of {total} parts are there already", markup=False)
    missing = [part for part in range(total) if part not in done]
    counts: Counter[str] = Counter()
    finished: list[tuple[float, int]] = []  # when each part came back, and its images
    seconds = 0.0
    replicas = cluster.devices()
    if missing:
        size = int(model["settings"]["train"]["image_size"])
        workers = replicas + 1  # one part more on its way than there are replicas
        dataset = stream(table_uri, size, missing, num_cpus=cluster.SHARED_CPU).map_batches(
            PartScorer,
            fn_constructor_args=(handle, model, scores_uri, maps),
            batch_size=None,
            num_cpus=0,
            compute=ActorPoolStrategy(size=min(len(missing), workers)),
        )
        with phase("scoring", row_count(table_uri) - len(done) * ROWS_PER_PART) as shown:
            for row in dataset.iter_rows():
                counts.update(errors=int(row["errors"]), alarms=int(row["alarms"]))
                finished.append((time.monotonic(), int(row["images"])))
                shown.advance(int(row["images"]), f"{counts['alarms']} alarms, {counts['errors']} errors")
            seconds = shown.seconds()
    whole: Counter[str] = Counter()
    for part in table.read_parts(scores_uri):
        alarms = pc.sum(part["is_anomalous"]).as_py() or 0
        whole.update(images=part.num_rows, errors=part.num_rows - part["error"].null_count, alarms=alarms)
    now = sum(images for _, images in finished)
    return Summary(whole["images"], now, whole["errors"], whole["alarms"], seconds, _rate(finished, replicas))


def _rate(finished: list[tuple[float, int]], replicas: int) -> float | None:
    """Images/s from when each replica has finished a part; what all but one had begun by the first would flatter it."""
    begun, rest = finished[:replicas], finished[replicas:]
    if not rest or rest[-1][0] == begun[-1][0]:
        return None
    return sum(images for _, images in rest) / (rest[-1][0] - begun[-1][0])


def _claim(scores_uri: str, table_uri: str, model_id: str, maps: Maps) -> None:
    """Note what this folder is for, or check that it is for the same."""
    mine = {
        "model_id": model_id,
        "table_sha256": hashlib.sha256(storage.read_bytes(table_uri)).hexdigest(),
        "maps": maps,
        "rows_per_part": ROWS_PER_PART,
    }
    place = storage.join(scores_uri, RUN)
    if not storage.exists(place):
        storage.write_json(place, mine)
        return
    theirs = storage.read_json(place)
    other = [name for name in mine if theirs.get(name) != mine[name]]
    if other:
        raise DataError(
            f"{scores_uri} holds scores of another run (other {', '.join(other)}); choose another folder for these"
        )
