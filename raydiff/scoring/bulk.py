"""Scoring a whole image table: Ray Data streams it, the Serve deployment scores it, finished parts are written.

Each part of the table becomes one Parquet file of the score table under the part's number. A file appears whole or not
at all, so a run that was stopped goes on with the parts that are missing, and no image is ever scored into two rows.
"""

from __future__ import annotations

import hashlib
import io
import json
import posixpath
from collections import Counter
from typing import Any, Literal, NamedTuple

import numpy as np
import pyarrow as pa
from PIL import Image
from ray.data import ActorPoolStrategy
from ray.serve.handle import DeploymentHandle

from raydiff import cluster, storage
from raydiff.errors import DataError, SettingsError
from raydiff.images.stream import ROWS_PER_PART, part_count, row_count, stream
from raydiff.model import describe
from raydiff.progress import console, phase
from raydiff.report.overlay import overlay
from raydiff.scoring import table
from raydiff.scoring.maps import write_map
from raydiff.scoring.scorer import Scored
from raydiff.selection.calibration import Calibration

Maps = Literal["none", "tiff", "png"]
RUN = "run.json"
MAPS = "anomaly_maps"  # a folder that indexing passes over, should it lie among the images
CALL_SECONDS = 3600.0  # a part that takes longer is taken for a lost replica


class Summary(NamedTuple):
    """What a bulk run did."""

    images: int  # rows in the finished score table
    scored_now: int  # of them by this run
    errors: int  # of those: images that could not be scored
    alarms: int
    seconds: float  # of streaming and scoring, start-up of the deployment not counted


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
    seconds = 0.0
    if missing:
        size = int(model["settings"]["train"]["image_size"])
        dataset = stream(table_uri, size, missing, num_cpus=cluster.SHARED_CPU).map_batches(
            PartScorer,
            fn_constructor_args=(handle, model, scores_uri, maps),
            batch_size=None,
            num_cpus=0,
            compute=ActorPoolStrategy(
                size=(cluster.gpus() or cluster.cpus()) + 1
            ),  # one part more than replicas, ready to go
        )
        with phase("scoring", row_count(table_uri) - len(done) * ROWS_PER_PART) as shown:
            for row in dataset.iter_rows():
                counts.update(images=int(row["images"]), errors=int(row["errors"]), alarms=int(row["alarms"]))
                shown.advance(int(row["images"]), f"{counts['alarms']} alarms, {counts['errors']} errors")
            seconds = shown.seconds()
    already = sum(part.num_rows for part in table.read_parts(scores_uri)) - counts["images"]
    return Summary(already + counts["images"], counts["images"], counts["errors"], counts["alarms"], seconds)


class PartScorer:
    """A worker that sends whole parts to the deployment and writes their finished rows (and maps)."""

    def __init__(self, handle: DeploymentHandle, model: dict[str, Any], scores_uri: str, maps: Maps) -> None:
        self.handle = handle
        self.method: str = model["method"]
        self.model_id: str = model["id"]
        self.calibration = Calibration.parse(model["calibration"]) if model["calibration"] else None
        self.scores_uri = scores_uri
        self.maps = maps

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Score the part(s) of a block; what comes back is only their counts."""
        counts = []
        for part in np.unique(batch["part"]):
            chosen = batch["part"] == part
            counts.append(self._score({name: column[chosen] for name, column in batch.items()}, int(part)))
        return {key: np.array([count[key] for count in counts]) for key in ("images", "errors", "alarms")}

    def _score(self, rows: dict[str, Any], part: int) -> dict[str, int]:
        records = [self._record(rows, index) for index in range(len(rows["record"]))]
        good = np.flatnonzero(rows["error"] == "")
        scored: Scored | None = None
        if len(good):
            scored = self.handle.score.remote(rows["image"][good]).result(timeout_s=CALL_SECONDS)
        for place, row in enumerate(good):
            assert scored is not None
            record, score = records[row], float(scored.scores[place])
            record["score"] = score
            if self.calibration is not None:
                category = self.calibration.of(record["category"])
                record |= {
                    "p_value": category.p_value(score),
                    "threshold": category.threshold,
                    "is_anomalous": score > category.threshold,
                }
            if self.maps != "none":
                record["map_uri"] = self._write_map(record, rows["image"][row], scored.maps[place])
        table.write_part(self.scores_uri, part, pa.Table.from_pylist(records, schema=table.SCHEMA))
        alarms = sum(record.get("is_anomalous") is True for record in records)
        return {"images": len(records), "errors": len(records) - len(good), "alarms": alarms}

    def _record(self, rows: dict[str, Any], index: int) -> dict[str, Any]:
        error = str(rows["error"][index])
        return json.loads(rows["record"][index]) | {
            "height": None if error else int(rows["height"][index]),
            "width": None if error else int(rows["width"][index]),
            "content_hash": str(rows["content_hash"][index]) or None,
            "method": self.method,
            "model_id": self.model_id,
            "error": error or None,
        }

    def _write_map(self, record: dict[str, Any], image: np.ndarray, anomaly_map: np.ndarray) -> str:
        size = record["width"], record["height"]
        place = map_place(record["uri"], record["category"], record["split"], record["defect"])
        uri = storage.join(self.scores_uri, MAPS, f"{place}.{self.maps}")
        if self.maps == "tiff":
            write_map(uri, np.asarray(Image.fromarray(anomaly_map).resize(size, Image.Resampling.BILINEAR)))
            return uri
        assert self.calibration is not None
        scale = self.calibration.of(record["category"]).colour_scale()
        picture = Image.fromarray(overlay(image, anomaly_map, *scale)).resize(size, Image.Resampling.BILINEAR)
        buffer = io.BytesIO()
        picture.save(buffer, "PNG")
        storage.write_bytes(uri, buffer.getvalue())
        return uri


def map_place(uri: str, category: str | None, split: str | None, defect: str | None) -> str:
    """Where an image's map goes, without its ending: MVTec's evaluation layout `category/test/defect/stem` for images
    that lie so, and else the image's own path (without scheme and leading slash).
    """
    path = posixpath.splitext(uri.split("://", 1)[-1].lstrip("/"))[0]
    layout = path.split("/")[-4:]
    if len(layout) == 4 and layout[1:3] == [split, defect] and (category or "").split("/")[-1] == layout[0]:
        return "/".join([category or layout[0], *layout[1:]])
    return path


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
