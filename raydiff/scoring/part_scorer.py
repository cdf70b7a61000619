"""The bulk run's worker: sends whole parts to the deployment and writes their finished rows and maps. No torch here."""

from __future__ import annotations

import contextlib
import io
import json
import logging
from collections.abc import Sequence
from datetime import date
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image
from ray.exceptions import RayActorError
from ray.serve.handle import DeploymentHandle
from ray.util.metrics import Counter

from raydiff import storage
from raydiff.errors import ClusterError, RaydiffError, StorageError
from raydiff.images.stream import carried
from raydiff.model.calibration import Calibration
from raydiff.model.scored import Scored
from raydiff.scoring import table
from raydiff.scoring.large import LargeScored
from raydiff.scoring.map_place import Maps, map_place
from raydiff.scoring.maps import write_map
from raydiff.scoring.unfinished import work_uri
from raydiff.storage.patience import patiently
from raydiff.views import View
from raydiff.views.view import TILES

METRICS = {"images": "Images", "errors": "Images that could not be scored", "alarms": "Alarms"}  # for Prometheus
MAPS = "anomaly_maps"  # a folder that indexing passes over, should it lie among the images
CALL_SECONDS = 3600.0  # a part that takes longer is taken for a lost replica
ATTEMPTS = 3  # of a part, before its images are scored one by one; and of such an image
DEADLY = f"scoring the image ended the model's process {ATTEMPTS} times"
NO_PICTURE = "the image was read in bands of its rows, and no picture is made of its map; score with --maps tiff"


class PartScorer:
    """A worker that sends whole parts to the deployment and writes their finished rows (and maps)."""

    def __init__(self, handle: DeploymentHandle, model: dict[str, Any], scores_uri: str, maps: Maps) -> None:
        logging.getLogger("ray.serve").setLevel(logging.WARNING)  # it tells the job's log of each handle
        self.handle = handle
        self.method: str = model["method"]
        self.model_id: str = model["id"]
        train = model["settings"]["train"]
        self.image_size, self.view = int(train["image_size"]), View.parse(train["view"])
        self.calibration = Calibration.parse(model["calibration"]) if model["calibration"] else None
        self.scores_uri = scores_uri
        self.maps = maps
        tags = {"method": self.method, "model_id": self.model_id}
        self.counters = {
            name: Counter(f"raydiff_{name}", f"{what} of bulk scoring", tuple(tags)) for name, what in METRICS.items()
        }
        for counter in self.counters.values():
            counter.set_default_tags(tags)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Score the part that a block is; what comes back is its counts, and why the work must stop, if it must."""
        stopped = str(batch["stopped"][0])
        counts = dict.fromkeys(METRICS, 0)
        if not stopped:
            try:
                counts = self._score(batch)
            except RaydiffError as error:  # as text, because Ray Data loses the kind of an error that is raised
                stopped = str(error)
        told = {**counts, "shard": str(batch["shard"][0]), "begun": float(batch["begun"][0]), "stopped": stopped}
        return {name: np.array([value]) for name, value in told.items()}

    def records(self, rows: dict[str, Any]) -> list[dict[str, Any]]:
        """The score table's rows of a part, its maps written."""
        records = [self._record(rows, index) for index in range(len(rows["record"]))]
        large = rows["large"] != ""
        good = np.flatnonzero((rows["error"] == "") & ~large)
        categories = [records[row]["category"] for row in good]
        for row, scored in zip(good, self._scores(rows["image"][good], categories), strict=True):
            record = records[row]
            if scored is None:
                record["error"] = DEADLY
                continue
            self._note(record, scored)
            if self.maps != "none":
                record["map_uri"] = self._write_map(record, rows["image"][row], scored.maps[0])
        for row in np.flatnonzero(large):
            self._score_large(records[row], json.loads(rows["large"][row]))
        return records

    def _note(self, record: dict[str, Any], scored: Scored) -> None:
        """What an image's scores say, in its row."""
        score = float(scored.scores[0])
        record["score"] = score
        record["details"] = [(name, float(values[0])) for name, values in scored.details.items()]
        record["category_guessed"] = scored.guessed[0]
        if self.calibration is not None:
            category = self.calibration.of(scored.guessed[0] or record["category"])
            record |= {
                "p_value": category.p_value(score),
                "threshold": category.threshold,
                "is_anomalous": score > category.threshold,
            }

    def _score_large(self, record: dict[str, Any], row: dict[str, Any]) -> None:
        """Have an image scored that is read where it is scored (see `large`).

        Raises:
            StorageError: if that cannot be done now.
        """
        map_uri = self._map_uri(record) if self.maps == "tiff" else None
        found = self._ask_large(record, row, map_uri)
        if found.stopped:
            raise StorageError(found.stopped)
        record["content_hash"] = found.content_hash or None
        if found.scored is None:
            record |= {"height": None, "width": None, "error": found.error}
            return
        self._note(record, found.scored)
        record["map_uri"] = map_uri
        if self.maps == "png":
            record["note"] = NO_PICTURE

    def _ask_large(self, record: dict[str, Any], row: dict[str, Any], map_uri: str | None) -> LargeScored:
        assert isinstance(self.view.tile, int)
        tiles = record["height"] * record["width"] / self.view.tile**2
        for _ in range(ATTEMPTS):
            with contextlib.suppress(RayActorError):
                asked = self.handle.score_large.remote(record["uri"], row, map_uri)
                found: LargeScored = asked.result(timeout_s=CALL_SECONDS * max(1, tiles / TILES))
                return found
        return LargeScored(error=DEADLY)

    def _score(self, rows: dict[str, Any]) -> dict[str, int]:
        records = self.records(rows)
        place = work_uri(self.scores_uri, str(rows["shard"][0]), int(rows["start"][0]))
        table.write(place, table.with_carried(pa.Table.from_pylist(records, schema=table.SCHEMA), carried(rows)))
        counts = {
            "images": len(records),
            "errors": sum(record["error"] is not None for record in records),
            "alarms": sum(record.get("is_anomalous") is True for record in records),
        }
        for name, counter in self.counters.items():
            if counts[name]:  # Ray refuses to add nothing
                counter.inc(counts[name])
        return counts

    def _scores(self, images: np.ndarray, categories: Sequence[str]) -> Sequence[Scored | None]:
        """Each image's scores; None for one that ends the replica it comes to.

        Raises:
            ClusterError: if every single image does, because then it is not the images.
        """
        if not len(images):
            return []
        found: list[Scored | None] = []
        for group in self.view.groups(images, self.image_size):
            scored = self._ask(images[group], categories[group])
            alone = ((images[one : one + 1], categories[one : one + 1]) for one in range(group.start, group.stop))
            found += scored.each() if scored is not None else [self._ask(*each) for each in alone]
        if len(images) > 1 and all(one is None for one in found):
            raise ClusterError("the model's processes end whatever image they are given: is their memory too small?")
        return found

    def _ask(self, images: np.ndarray, categories: Sequence[str]) -> Scored | None:
        """The deployment's answer, or None if as many replicas as there are attempts have died of it."""
        for _ in range(ATTEMPTS):
            with contextlib.suppress(RayActorError):
                asked = self.handle.score.remote(images, categories, self.maps != "none")
                scored: Scored = asked.result(timeout_s=CALL_SECONDS)
                return scored
        return None

    def _record(self, rows: dict[str, Any], index: int) -> dict[str, Any]:
        error = str(rows["error"][index])
        record = json.loads(rows["record"][index])
        return record | {
            "day": date.fromisoformat(record["day"]) if record.get("day") else None,
            "height": None if error else int(rows["height"][index]),
            "width": None if error else int(rows["width"][index]),
            "content_hash": str(rows["content_hash"][index]) or None,
            "method": self.method,
            "model_id": self.model_id,
            "error": error or None,
            "note": str(rows["note"][index]) or None,
        }

    def _write_map(self, record: dict[str, Any], seen: np.ndarray, anomaly_map: np.ndarray) -> str:
        height, width = record["height"], record["width"]
        uri = self._map_uri(record)
        if self.maps == "tiff":
            patiently(write_map, uri, self.view.whole_map(anomaly_map, height, width))
            return uri
        assert self.calibration is not None
        scale = self.calibration.of(record["category_guessed"] or record["category"]).colour_scale()
        from raydiff.images.overlay import overlay  # matplotlib, which no other maps need

        size = self.view.cropped(height, width)[::-1]  # a picture shows what was looked at
        picture = Image.fromarray(overlay(seen[..., :3], anomaly_map, *scale)).resize(size, Image.Resampling.BILINEAR)
        buffer = io.BytesIO()
        picture.save(buffer, "PNG")
        patiently(storage.write_bytes, uri, buffer.getvalue())
        return uri

    def _map_uri(self, record: dict[str, Any]) -> str:
        place = map_place(record["uri"], record["category"], record["split"], record["defect"])
        return storage.join(self.scores_uri, MAPS, f"{place}.{self.maps}")
