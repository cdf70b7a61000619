"""Which model made an archive's scores."""

from __future__ import annotations

from raydiff import storage
from raydiff.errors import DataError
from raydiff.model.description import DESCRIPTION, describe
from raydiff.scoring import table


def made_by(archive: str) -> set[str]:
    """Ids of the model that made an archive's scores: with the thresholds that it had then and, if known, without.

    Raises:
        DataError: if nothing says so.
    """
    place = storage.join(archive, table.RUN)
    if not storage.exists(place):
        raise DataError(f"{archive} holds no {table.RUN}; give the --out of jobs/score_archive.py")
    found = {str(storage.read_json(place).get("model_id"))}
    if storage.exists(storage.join(archive, DESCRIPTION)):
        found.add(describe(archive, calibrated=False)["id"])
    return found


def check_scored_by(archive: str, model_uri: str) -> None:
    """Whether an archive's scores are all there and of this model, whatever its thresholds were then.

    Raises:
        DataError: if not.
        ModelFolderError: if there is no model at `model_uri`.
    """
    if not made_by(archive) & ids(model_uri):
        raise DataError(f"{archive} holds the scores of another model than {model_uri}; score it with this one first")
    check_scored(archive)


def check_scored(archive: str) -> None:
    """Whether an archive's scores are all there.

    Raises:
        DataError: if not.
    """
    if not table.says_complete(archive):
        raise DataError(f"{archive} is not scored to its end; score the rest first with jobs/score_archive.py")


def ids(model_uri: str) -> set[str]:
    """A model's ids: with its thresholds and without.

    Raises:
        ModelFolderError: if there is no model.
    """
    return {describe(model_uri)["id"], describe(model_uri, calibrated=False)["id"]}
