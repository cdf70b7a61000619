"""What is known of a score table beside its rows: how it was made, its summary, and its model where that is at hand."""

from __future__ import annotations

import contextlib
from typing import Any

from pydantic import BaseModel, Field

from raydiff import storage
from raydiff.errors import DataError, RaydiffError
from raydiff.images import packed_archive
from raydiff.images.decode import MAX_PIXELS
from raydiff.images.table import PART, TIME
from raydiff.model.description import describe
from raydiff.review.table import Table
from raydiff.scoring import table as scores


class About(BaseModel):
    """The table as a whole, as the page is told of it."""

    name: str = Field(description="its folder")
    rows: int
    complete: bool = Field(description="whether all images of the archive are in it")
    maps: str = Field(description="which maps were written: none, tiff or png")
    model_id: str | None
    model: bool = Field(description="whether the model is at hand: colours are its calibration's then")
    has_parts: bool = Field(description="whether it is known which part an image shows")
    has_times: bool = Field(description="whether rows are sorted by times; by days otherwise")
    categories: list[str]
    reasons: list[str] = Field(description="kinds of error")
    first_day: str | None
    last_day: str | None


class Known(BaseModel):
    """How a table was made."""

    model_id: str | None = None
    maps: str = "none"
    max_pixels: int = MAX_PIXELS
    archive: str = Field("", description="that was scored, packed or not")
    complete: bool = True


def known(scores_uri: str) -> Known:
    """What `run.json` and the manifest say; where they are not there, what is likely.

    Raises:
        StorageError: if they cannot be read.
    """
    run, manifest = (_json(scores_uri, name) for name in (scores.RUN, scores.MANIFEST))
    told = {name: run[name] for name in ("model_id", "maps", "max_pixels") if name in run}
    archive = packed_archive.scored(run)
    return Known.model_validate({**told, "archive": archive, "complete": manifest.get("complete", True)})


def model_of(scores_uri: str, model_uri: str | None, model_id: str | None) -> dict[str, Any] | None:
    """The description of the model that made a table; None where it is not at hand.

    Args:
        model_uri: where it is said to be; by default it is looked for beside the table, and where a run has it.
        model_id: that the table was made with.

    Raises:
        ModelFolderError: if there is none at `model_uri`.
        DataError: if it is another one.
    """
    if model_uri is not None:
        found = describe(model_uri)
        if model_id not in (None, found["id"], describe(model_uri, calibrated=False)["id"]):
            raise DataError(f"{model_uri} is model {found['id']}, and the scores are of {model_id}; give that one")
        return found
    for place in _likely(storage.absolute(scores_uri), model_id):
        with contextlib.suppress(RaydiffError):
            found = describe(place)
            if found["id"] == model_id:  # else it was trained or calibrated anew
                return found
    return None


def _likely(scores_uri: str, model_id: str | None) -> list[str]:
    """Where the description of a table's model may be: beside it, or in the folder of its run."""
    folders = scores_uri.split("/")
    if len(folders) < 4 or folders[-3] != "scores":  # RUN/scores/NAME-ID/ROLE
        return [scores_uri]
    return [scores_uri, "/".join([*folders[:-3], "models", folders[-2].removesuffix(f"-{model_id}")])]


def about(table: Table, how: Known, has_model: bool) -> About:
    """What the page is told. Taken from the summary where that is of the same rows, and from the rows else.

    Raises:
        StorageError, DataError: if they cannot be read.
    """
    from raydiff.scoring.summary import OTHER  # and scipy, for which the table need not wait

    summary = _json(table.files.uri, scores.SUMMARY)
    if summary.get("images") == table.files.rows:
        categories = sorted({each["category"] or "" for each in summary["days"]})
        days = sorted(each["day"] for each in summary["days"] if each["day"])
        reasons = [each for each in summary["errors"] if each != OTHER]
    else:
        columns = table.columns
        columns.load("category", "state", "reason")
        categories, reasons, days = sorted(columns.names["category"]), sorted(columns.names["reason"]), []
    return About(
        name=storage.absolute(table.files.uri),
        rows=table.files.rows,
        complete=how.complete,
        maps=how.maps,
        model_id=how.model_id,
        model=has_model,
        has_parts=PART in table.files.schema.names,
        has_times=TIME in table.files.schema.names,
        categories=categories,
        reasons=reasons,
        first_day=days[0] if days else None,
        last_day=days[-1] if days else None,
    )


def _json(scores_uri: str, name: str) -> dict[str, Any]:
    place = storage.join(scores_uri, name)
    found = storage.read_json(place) if storage.exists(place) else {}
    if not isinstance(found, dict):
        raise DataError(f"{place} is not as raydiff writes it; give the folder of a score table")
    return found
