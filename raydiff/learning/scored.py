"""The judged images and a run's own normals as a model scores them, before it has learnt and after."""

from __future__ import annotations

import hashlib
import json
from typing import NamedTuple

import pyarrow as pa

from raydiff import storage
from raydiff.images import table
from raydiff.learning.judged import Judged
from raydiff.model.calibration import Calibration
from raydiff.scoring import table as score_table_file
from raydiff.scoring.bulk import score_table
from raydiff.scoring.columns import applied_categories, read_columns
from raydiff.scoring.deployment import deployed
from raydiff.scoring.made_by import ids


class Scored(NamedTuple):
    """An image as a model scored it."""

    score: float | None  # None where it could not be read
    category: str | None  # whose threshold applies
    content: str | None  # hash of its bytes

    def alarms(self, calibration: Calibration) -> bool:
        """Whether it raises an alarm."""
        return self.score is not None and self.score > calibration.of(self.category).threshold


def scores(model_uri: str, images: pa.Table, scores_uri: str) -> dict[str, Scored]:
    """Scores of images by their URIs, made as an archive's are, in a folder of these images; what is there is taken."""
    these = json.dumps(images.to_pylist(), default=str).encode()
    scores_uri = f"{scores_uri}-{hashlib.sha256(these).hexdigest()[:12]}"
    place = f"{scores_uri}.parquet"
    table.write(place, images)
    with deployed(model_uri) as handle:
        score_table(handle, model_uri, place, scores_uri, calibrated=False)
    found: dict[str, Scored] = {}
    columns = ["uri", "score", "category", "category_guessed", "content_hash"]
    for part in read_columns(score_table_file.parts(scores_uri), columns):
        told = [part["uri"], part["score"], applied_categories(part), part["content_hash"]]
        found |= {uri: Scored(*rest) for uri, *rest in zip(*(each.to_pylist() for each in told), strict=True)}
    return found


def scores_before(model_uri: str, judged: Judged, images: pa.Table, scores_uri: str) -> dict[str, Scored]:
    """The scores of judged images by the model that is to learn: those in their archives where it made them.

    Args:
        judged: the images.
        images: the same as an image table, row by row.
    """
    mine = ids(model_uri)
    archives = judged.rows["archive"].to_pylist()
    own = {archive for archive in set(archives) if _model_of(archive) in mine}
    told = zip(
        images["uri"].to_pylist(), judged.rows["score"].to_pylist(), judged.rows["applied"].to_pylist(), strict=True
    )
    known = [archive in own for archive in archives]
    found = {
        uri: Scored(score, category, None) for (uri, score, category), there in zip(told, known, strict=True) if there
    }
    rest = images.filter(pa.array([not there for there in known]))
    return found | (scores(model_uri, rest, scores_uri) if len(rest) else {})


def _model_of(archive: str) -> str | None:
    """The id of the model that made the scores in a folder."""
    place = storage.join(archive, score_table_file.RUN)
    return storage.read_json(place).get("model_id") if storage.exists(place) else None
