"""The bulk run's worker: sends whole parts to the deployment and writes their finished rows and maps. No torch here."""

from __future__ import annotations

import io
import json
import posixpath
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from PIL import Image
from ray.serve.handle import DeploymentHandle

from raydiff import storage
from raydiff.report.overlay import overlay
from raydiff.scoring import table
from raydiff.scoring.maps import write_map
from raydiff.scoring.scored import Scored
from raydiff.selection.calibration import Calibration

Maps = Literal["none", "tiff", "png"]
MAPS = "anomaly_maps"  # a folder that indexing passes over, should it lie among the images
CALL_SECONDS = 3600.0  # a part that takes longer is taken for a lost replica


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
            record["details"] = [(name, float(values[place])) for name, values in scored.details.items()]
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
    that lie so, and else the image's own path (without scheme and leading slash, with its ending: `1.png` and `1.jpg`
    are two images).
    """
    path = uri.split("://", 1)[-1].lstrip("/")
    layout = path.split("/")[-4:]
    if len(layout) == 4 and layout[1:3] == [split, defect] and (category or "").split("/")[-1] == layout[0]:
        return "/".join([category or layout[0], *layout[1:3], posixpath.splitext(layout[3])[0]])
    return path
