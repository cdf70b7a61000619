"""Which model made an archive's scores."""

from __future__ import annotations

from raydiff import storage
from raydiff.errors import DataError
from raydiff.model.description import DESCRIPTION, describe
from raydiff.scoring import table


def check_scored_by(archive: str, model_uri: str) -> None:
    """Whether an archive's scores are all there and of this model, whatever its thresholds were then.

    Raises:
        DataError: if not.
        ModelFolderError: if there is no model at `model_uri`.
    """
    place = storage.join(archive, table.RUN)
    if not storage.exists(place):
        raise DataError(f"{archive} holds no {table.RUN}; give the --out of jobs/score_archive.py")
    theirs = {storage.read_json(place).get("model_id")}
    if storage.exists(storage.join(archive, DESCRIPTION)):
        theirs.add(describe(archive, calibrated=False)["id"])
    ours = {describe(model_uri)["id"], describe(model_uri, calibrated=False)["id"]}
    if not theirs & ours:
        raise DataError(f"{archive} holds the scores of another model than {model_uri}; score it with this one first")
    if not table.says_complete(archive):
        raise DataError(f"{archive} is not scored to its end; score the rest first with jobs/score_archive.py")
