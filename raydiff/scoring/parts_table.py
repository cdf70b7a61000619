"""The table of parts beside a score table: one row a part, by the worst of its views, with the part's verdict.

A part is told by its category and the column `part`. An image of no known part is a part of its own, with `part` null.
"""

from __future__ import annotations

import os
import tempfile
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict

from raydiff import storage
from raydiff.images.table import PART
from raydiff.model import part_alarm
from raydiff.model.calibration import Calibration
from raydiff.progress import phase
from raydiff.scoring import table
from raydiff.scoring.by_part import NOT_SCORED, VIEWS, by_part
from raydiff.scoring.columns import applied_categories, read_columns
from raydiff.storage.patience import patiently

TABLE = "parts"  # its own folder, with nothing else in it, so that any Parquet reader takes it whole
SENTENCES = 14

SCHEMA = pa.schema(
    [
        ("category", pa.string()),
        (PART, pa.string()),  # null: an image of no known part, by itself
        (VIEWS, pa.int64()),
        (NOT_SCORED, pa.int64()),  # of those
        # Of the worst view (see `by_part`), as the score table has it:
        ("uri", pa.string()),
        ("category_guessed", pa.string()),
        ("day", pa.date32()),
        ("score", pa.float64()),
        ("p_value", pa.float64()),  # the image's own
        (
            "threshold",
            pa.float64(),
        ),  # for an image; on a part decides its corrected p-value, and this if it is of a budget
        ("map_uri", pa.string()),
        ("method", pa.string()),
        ("model_id", pa.string()),
        # Of the part:
        ("corrected_p_value", pa.float64()),  # min(1, views * p_value), null without a calibration
        ("is_anomalous", pa.bool_()),  # null where there is no verdict
        ("error", pa.string()),  # why there is none, though there is a calibration, or why there is no score
    ]
)

_OF_VIEW = ("uri", "category_guessed", "day", "score", "p_value", "threshold", "map_uri", "method", "model_id", "error")


class _Result(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Undecidable(_Result):
    """Parts of one category that have too many views for its calibration to tell any score from chance."""

    category: str
    parts: int
    views: int  # the most that one of them has
    normals: int  # scores that its calibration has
    needed: int  # for so many views


class PartsSummary(_Result):
    """What the table of parts says as a whole."""

    parts: int
    of_one_image: int  # of them: images of no known part
    alarms: int
    no_verdict: int
    rate: float | None  # of false alarms, promised for each part; None without a calibration
    undecidable: list[Undecidable]  # by category

    def sentences(self) -> list[str]:
        """The main figures and what is to be known of them; of a long list only a beginning."""
        alone = f" ({self.of_one_image:,} of them images of no known part)" if self.of_one_image else ""
        lines = [f"parts: {self.parts:,}{alone}, {self.alarms:,} alarms, {self.no_verdict:,} without a verdict"]
        lines += [
            f"parts: {row.category}: {row.parts:,} have so many views that no score can raise an alarm at "
            f"{self.rate:.2%} false alarms a part with {row.normals:,} calibration images, so they have no verdict; "
            f"their up to {row.views:,} views take {row.needed:,} of these, or a higher --false-alarm-rate"
            for row in self.undecidable[:SENTENCES]
        ]
        if (more := len(self.undecidable) - SENTENCES) > 0:
            lines.append(f"and {more:,} more categories with such parts, in summary.json")
        return lines


def table_uri(scores_uri: str) -> str:
    """Where the table of parts of a score table lies: one file, so that readers see all of its state or none."""
    return storage.join(scores_uri, TABLE, "part-000000.parquet")


def has_parts(scores_uri: str) -> bool:
    """Whether a finished score table has a column that says which part an image shows.

    Raises:
        DataError: if there is no score table.
    """
    return says_part(table.parts(scores_uri)[0])


def says_part(uri: str) -> bool:
    """Whether a file of a table of images or scores has a column that says which part an image shows."""
    return PART in patiently(_names, uri)


def foretold(calibration: Calibration) -> str:
    """What is to be known before an archive of parts is scored: of how many views a part may be."""
    rate, known = calibration.rate, sorted(calibration.categories)
    each = [f"{name} {part_alarm.views_decided(calibration.of(name).normals, rate):,}" for name in known[:SENTENCES]]
    more = f" and {len(known) - SENTENCES:,} more categories" if len(known) > SENTENCES else ""
    return (
        f"parts: at {rate:.2%} false alarms a part, no score raises an alarm of a part of more views than: "
        f"{', '.join(each)}{more}; each view takes {part_alarm.normals_needed(1, rate) + 1:,} calibration images"
    )


def write_parts(scores_uri: str, calibration: Calibration | None, images: int) -> PartsSummary:
    """Write the table of parts of a finished score table with a column `part`, whole or not at all.

    Written again, as of an archive that has grown, it takes the place of the former one.

    Args:
        scores_uri: folder of the score table.
        calibration: of the model that made the scores.
        images: rows of the score table.

    Raises:
        DataError: if there is no score table.
        StorageError: if a part cannot be read, or the table not written.
    """
    uris = table.parts(scores_uri)
    tally = _Tally(calibration)
    with tempfile.TemporaryDirectory(prefix="raydiff-parts-") as folder, phase("table of parts", images) as shown:
        path = os.path.join(folder, "parts.parquet")
        rows = shown.counted(read_columns(uris, ["category", PART, *_OF_VIEW]))
        with pq.ParquetWriter(path, SCHEMA) as file:
            for found in by_part(rows, images):
                file.write_table(tally.decided(found))
        patiently(storage.write_file, table_uri(scores_uri), path)
    return tally.summary()


def _names(part_uri: str) -> list[str]:
    with storage.parquet(part_uri) as file:
        return list(file.schema_arrow.names)


class _Verdicts(NamedTuple):
    """Of N parts, each an array (N,)."""

    views: np.ndarray
    failed: np.ndarray  # views
    corrected: np.ndarray  # p-values, NaN where there is none
    normals: np.ndarray  # behind those
    alarms: np.ndarray
    undecidable: np.ndarray


class _Tally:
    """Decides on parts, and counts what was decided."""

    def __init__(self, calibration: Calibration | None) -> None:
        self._calibration = calibration
        self._parts = self._alone = self._alarms = self._no_verdict = 0
        self._undecidable: dict[str, Undecidable] = {}

    def decided(self, rows: pa.Table) -> pa.Table:
        """Rows of parts (see `by_part`) in SCHEMA, each with its verdict."""
        names = applied_categories(rows).combine_chunks().dictionary_encode()
        found = self._verdicts(rows, names)
        none = np.isnan(found.corrected) | (~found.alarms & ((found.failed > 0) | found.undecidable))
        told = {
            "corrected_p_value": pa.array(found.corrected, from_pandas=True),
            "is_anomalous": pa.array(found.alarms, mask=none),
            "error": pa.array(self._errors(rows["error"].to_pylist(), found), pa.string()),
        }
        self._parts += len(rows)
        self._alone += rows[PART].null_count
        self._alarms += int(found.alarms.sum())
        self._no_verdict += int(none.sum())
        self._count_undecidable(names, found)
        return pa.table([told[name] if name in told else rows[name] for name in SCHEMA.names], SCHEMA)

    def summary(self) -> PartsSummary:
        """What was counted."""
        return PartsSummary(
            parts=self._parts,
            of_one_image=self._alone,
            alarms=self._alarms,
            no_verdict=self._no_verdict,
            rate=self._calibration.rate if self._calibration else None,
            undecidable=[self._undecidable[name] for name in sorted(self._undecidable)],
        )

    def _verdicts(self, rows: pa.Table, names: pa.DictionaryArray) -> _Verdicts:
        """Verdicts by the calibration of the category that applied to the worst view."""
        views, failed = (rows[name].to_numpy() for name in (VIEWS, NOT_SCORED))
        if self._calibration is None:
            no = np.zeros(len(rows), bool)
            return _Verdicts(views, failed, np.full(len(rows), np.nan), np.zeros_like(views), no, no)
        of, rate = self._calibration.of, self._calibration.rate
        normals = np.array([of(name).normals for name in names.dictionary.to_pylist()], np.int64)[
            names.indices.to_numpy()
        ]
        corrected = part_alarm.corrected(rows["p_value"].to_numpy(), views)
        alarms = part_alarm.alarms(corrected, normals, rate)
        if self._calibration.all.reach > 1:  # p-values end where the normal scores do, and say no more of how far
            alarms &= rows["score"].to_numpy() > rows["threshold"].to_numpy()
        return _Verdicts(views, failed, corrected, normals, alarms, ~part_alarm.decidable(views, normals, rate))

    def _count_undecidable(self, names: pa.DictionaryArray, found: _Verdicts) -> None:
        codes = names.indices.to_numpy()
        for code in np.unique(codes[found.undecidable]).tolist():
            assert self._calibration is not None
            name = names.dictionary[code].as_py()
            these = found.undecidable & (codes == code)
            before = self._undecidable.get(name)
            views = max(int(found.views[these].max()), before.views if before else 0)
            self._undecidable[name] = Undecidable(
                category=name,
                parts=int(these.sum()) + (before.parts if before else 0),
                views=views,
                normals=int(found.normals[these][0]),
                needed=part_alarm.normals_needed(views, self._calibration.rate),
            )

    def _errors(self, errors: list[str | None], found: _Verdicts) -> list[str | None]:
        """Why a part has no verdict, None where it has one or there is no calibration.

        Args:
            errors: of the worst views: why they could not be scored, where no view could.
        """
        said: list[str | None] = [None] * len(errors)
        for row in np.flatnonzero(~found.alarms & ((found.failed > 0) | found.undecidable)).tolist():
            views, failed = int(found.views[row]), int(found.failed[row])
            if failed == views:
                said[row] = errors[row] if views == 1 else f"none of {views} views could be scored: {errors[row]}"
            elif found.undecidable[row]:
                assert self._calibration is not None
                rate = self._calibration.rate
                said[row] = (
                    f"{views} views are too many for {found.normals[row]} calibration images: no score could raise an "
                    f"alarm at {rate:.2%} false alarms a part; calibrate on {part_alarm.normals_needed(views, rate)}"
                )
            else:
                said[row] = (
                    f"{failed} of {views} views could not be scored and none of the others raises an alarm; the score "
                    "table's column error says why"
                )
        return said
