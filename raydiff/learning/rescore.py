"""What another model would have changed on a scored archive: alarms that are gone, alarms that are new.

Where the other model's scores can only be lower (`falling`), as after `raydiff learn` of a memory bank, the images that
could alarm are scored again, and no others; else all are. They are scored as an archive is, so that a killed run goes
on, into a folder of their own: `images/` (which ones, where these are not all), `unpacked/` (those of a packed archive
that are gone), `score_table/`, `run.json`, `manifest.json`, `changes.parquet` and `changes_by_day.parquet`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from rich.table import Table

from raydiff import storage
from raydiff.at_work import at_work
from raydiff.errors import DataError, ModelFolderError
from raydiff.images import archive as image_shards
from raydiff.images import table as image_table
from raydiff.images.decode import MAX_PIXELS
from raydiff.images.shards import shard_name, shards
from raydiff.learning import falling
from raydiff.learning.changes import BY_DAY, FILE, Changes, Counts, compare
from raydiff.learning.reach import each_within_reach, packed_of
from raydiff.model.calibration import Calibration
from raydiff.model.description import DESCRIPTION, describe
from raydiff.progress import console, phase
from raydiff.scoring import parts_table
from raydiff.scoring import table as scores
from raydiff.scoring.columns import read_columns
from raydiff.scoring.made_by import check_scored, ids, made_by
from raydiff.storage.patience import patiently
from raydiff.verdicts.table import VERDICTS

FOLDER = "rescored"  # in the archive's; its readers look into folders by their names, and into none of this one
IMAGES = "images"
UNPACKED = "unpacked"  # images of a packed archive that are gone
SHOWN = 40  # categories that are printed

_COLUMNS = [
    *image_table.SCHEMA.names, image_table.DAY, image_table.PART, image_table.ROI, image_table.BIT_DEPTH, "score",
    "category_guessed",
]  # fmt: skip
_NOT_OF_IMAGES = ("score", "category_guessed")


class Rescored(NamedTuple):
    """What came of it."""

    archive: str
    place: str  # folder of the new scores and the changes
    model: str  # id
    before: str  # id of the model that made the archive's scores
    images: int  # in the archive
    again: int  # of them, that were scored again
    why_all: str  # why these are all; empty where they are those that could alarm
    learnt_here: bool  # whether the model has learnt from verdicts beside this archive
    parts: bool  # whether the archive has a table of parts
    changes: Changes

    def sentences(self) -> list[str]:
        """What was found, and what it does not tell."""
        total, changes = self.changes.all(), self.changes
        how = f"all {self.again:,} images, because {self.why_all}"
        if not self.why_all:
            how = (
                f"{self.again:,} of {self.images:,} images; no score can be higher than it was, so no other could alarm"
            )
        alarms = (
            f"alarms: {total.before:,} before, as the archive was scored and by its thresholds then, {total.after:,} "
            f"after, of {total.images:,} images; {total.gone:,} gone, {total.new:,} new"
        )
        told = [f"scored again: {how}", alarms]
        if changes.judged:
            test = "; the model has learnt from verdicts of this archive, so this tests nothing"
            told.append(
                f"judged images: alarms gone {_listed(changes.gone)}; alarms new {_listed(changes.new)}"
                f"{test if self.learnt_here else ''}"
            )
        if changes.unread:
            told.append(f"left out: {changes.unread:,} images that cannot be read any more")
        if changes.without_score:
            told.append(f"left out: {changes.without_score:,} images that the archive has no score of")
        if self.parts:
            told.append(
                "parts are not told: their p-values, corrected for several views, would need all images' scores"
            )
        return told


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {counts[name]:,}" for name in VERDICTS)


def rescore(
    archive: str,
    model_uri: str,
    out_uri: str | None = None,
    before_uri: str | None = None,
    address: str | None = None,
) -> Rescored:
    """Tell what a model would have changed on an archive that another one scored.

    Killed and run again it goes on with what is missing, also where the archive has grown.

    Args:
        archive: folder of jobs/score_archive.py, scored to its end by a calibrated model.
        model_uri: folder of the model that is asked, calibrated for the same categories or more.
        out_uri: where its scores and the changes go; by default FOLDER/ID in the archive's folder.
        before_uri: folder of the model that made the archive's scores; looked for beside the other one (in the same
            `models/`) by default. Without it all images are scored again.
        address: of the Ray cluster, as of `cluster.connect`, which is called if anything is to be scored.

    Raises:
        DataError: if the archive is not such a one, the model is not calibrated so or made the scores itself,
            `before_uri` did not, or `out_uri` holds other scores.
        ModelFolderError: if there is no model.
        StorageError, ClusterError, Stopped: what is finished is kept.
    """
    archive, model_uri = storage.absolute(archive), storage.absolute(model_uri)
    makers = made_by(archive)
    check_scored(archive)
    model = describe(model_uri)
    _check_comparable(archive, model, model_uri)
    why_all = _why_all(archive, model_uri, makers, before_uri)
    calibration = Calibration.parse(model["calibration"])
    asked = _all if why_all else partial(falling.may_alarm, calibration=calibration)
    out_uri = storage.absolute(out_uri or storage.join(archive, FOLDER, model["id"]))
    from raydiff.scoring.bulk import finished_images  # which loads Ray

    with at_work(out_uri):
        again = _scored_again(archive, model, model_uri, out_uri, asked, address)
        images = finished_images(archive)
        changes = compare(archive, out_uri, asked, images)
    return Rescored(
        archive=archive,
        place=out_uri,
        model=model["id"],
        before=describe(archive)["id"],
        images=images,
        again=again,
        why_all=why_all,
        learnt_here=archive in model["card"].get("learnt", {}).get("verdicts", []),
        parts=parts_table.has_parts(archive),
        changes=changes,
    )


def _check_comparable(archive: str, model: dict[str, Any], model_uri: str) -> None:
    """Whether both have verdicts of the same categories."""
    if not storage.exists(storage.join(archive, DESCRIPTION)):
        raise DataError(f"{archive} holds no {DESCRIPTION}; give the --out of jobs/score_archive.py")
    before = describe(archive)
    if before["calibration"] is None:
        raise DataError(f"{archive} was scored by a model without calibration, so there are no alarms to compare")
    if model["calibration"] is None:
        raise DataError(f"{model_uri} is not calibrated, so that it raises no alarms; run `raydiff calibrate`")
    lacking = sorted(before["calibration"]["categories"].keys() - model["calibration"]["categories"].keys())
    if lacking:
        raise DataError(
            f"{model_uri} is not calibrated for {', '.join(lacking)}, of which {archive} has images; ask a model of "
            "the same categories"
        )
    if model["id"] == before["id"]:
        raise DataError(f"{model_uri} made the scores of {archive} itself, so it would have changed nothing")


def _why_all(archive: str, model_uri: str, makers: set[str], before_uri: str | None) -> str:
    """Why all images are to be scored again; empty where scores can only be lower than they were.

    Raises:
        DataError: if `before_uri` did not make the scores.
    """
    if before_uri is not None and not ids(before_uri) & makers:
        raise DataError(f"{before_uri} did not make the scores of {archive}; give --before the model that did")
    found = before_uri or _maker_beside(model_uri, makers)
    if found is None:
        return "the model that made the scores is not known here; say where its folder is with --before"
    from raydiff.model.folder import load  # here, because all that can be refused at once is refused before torch

    return falling.why_not(load(model_uri, "cpu"), load(found, "cpu"))


def _maker_beside(model_uri: str, makers: set[str]) -> str | None:
    """The model folder beside another one that made some scores."""
    folder = model_uri.rpartition("/")[0]
    if storage.name(folder) != "models":
        return None
    for place in storage.list_folders(folder):
        try:
            if ids(place) & makers:
                return place
        except ModelFolderError:  # something else, or of another format
            continue
    return None


def _all(rows: pa.Table) -> NDArray[np.bool_]:
    return np.ones(len(rows), bool)


def _scored_again(
    archive: str,
    model: dict[str, Any],
    model_uri: str,
    out_uri: str,
    asked: Callable[[pa.Table], NDArray[np.bool_]],
    address: str | None,
) -> int:
    """Score what is asked and missing; how many images are asked."""
    from raydiff.scoring.bulk import claim, is_complete, score_table

    run = storage.read_json(storage.join(archive, scores.RUN))
    packed = packed_of(archive)
    if asked is _all:
        images, source = storage.join(archive, IMAGES), str(run["images"])
        if sorted(scores.part_names(archive)) != sorted(shard.name for shard in shards(images)):
            raise DataError(f"{images} does not hold the images of {archive}; give the --out of jobs/score_archive.py")
    else:
        images, source = storage.join(out_uri, IMAGES), f"{run['images']} (those that could alarm)"
    max_pixels, engine = int(run.get("max_pixels", MAX_PIXELS)), run.get("engine", "torch")
    claim(out_uri, model, images, "none", max_pixels, source, engine)
    if asked is not _all:
        _write_images(archive, images, asked, packed, out_uri)
        packed = ""  # what is gone is unpacked now, and shards are others than the packed ones
    there = shards(images)
    if there and not is_complete(out_uri, images):
        from raydiff import cluster
        from raydiff.scoring.deployment import deployed

        cluster.connect(address)
        with deployed(model_uri, engine=engine) as handle:
            score_table(
                handle,
                model_uri,
                images,
                out_uri,
                max_pixels=max_pixels,
                packed_uri=packed or None,
                source=source,
                engine=engine,
            )
    return sum(shard.rows for shard in there)


def _write_images(
    archive: str, images_uri: str, asked: Callable[[pa.Table], NDArray[np.bool_]], packed: str, out_uri: str
) -> None:
    """Write the image table of what is to be scored again: of each part of the archive that has some, a shard."""
    names = scores.part_names(archive)
    there = {shard.name for shard in shards(images_uri)}
    reading = read_columns([scores.part_uri(archive, name) for name in names], _COLUMNS)
    with phase("what could alarm") as shown:
        for name, part in zip(names, shown.counted(reading), strict=True):
            rows = part.filter(pa.array(asked(part))).drop_columns(_NOT_OF_IMAGES)
            listing, number, _ = name.split("-")
            own = shard_name(int(listing), int(number), len(rows))
            if not len(rows) or own in there:
                continue
            if packed:
                these = [(uri, packed, name) for uri in rows["uri"].to_pylist()]
                uris = list(each_within_reach(these, storage.join(out_uri, UNPACKED)))
                rows = rows.set_column(0, "uri", pa.array(uris, pa.string()))
            nothing = [each for each in image_table.extra(rows) if rows[each.name].null_count == len(rows)]
            patiently(image_shards.write_shard, images_uri, own, rows.drop_columns([each.name for each in nothing]))


def print_rescored(found: Rescored) -> None:
    """Print alarms before and after by category, the first SHOWN of many, and what is to be said of them."""
    shown = Table()
    for name in ("category", *Counts._fields):
        shown.add_column(name, justify="left" if name == "category" else "right", overflow="fold")
    categories = found.changes.by_category()
    for category, counts in [*list(categories.items())[:SHOWN], ("all", found.changes.all())]:
        shown.add_row(category, *(f"{number:,}" for number in counts))
    console.print(shown, markup=False)
    if len(categories) > SHOWN:
        console.print(f"and {len(categories) - SHOWN:,} more categories, in {BY_DAY}", markup=False)
    for sentence in found.sentences():
        console.print(f"rescore: {sentence}", markup=False)
    console.print(f"rescore: which images, and how many each day, is in {found.place} ({FILE}, {BY_DAY})", markup=False)
