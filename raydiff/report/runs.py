"""One scored run as the report sees it: the score table as arrays, evaluation, tuning, the model's card."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from raydiff import storage
from raydiff.errors import DataError
from raydiff.images.table import BIT_DEPTH
from raydiff.model.calibration import Calibration
from raydiff.scoring import table as score_table
from raydiff.settings import Settings

NORMAL, ANOMALOUS, UNKNOWN = 0, 1, -1
_COLUMNS = [
    "uri",
    "category",
    "label",
    "defect",
    "mask_uri",
    "score",
    "p_value",
    "threshold",
    "is_anomalous",
    "details",
    "map_uri",
    "method",
    "model_id",
    "error",
]


class ReportEntry(Settings):
    """One column of the report: a score table and what is known about how it came to be."""

    name: str  # as shown; every entry has its own
    scores_uri: str
    held_out: bool = False  # it is the score table of the normals that calibrate: there are no images to test on
    evaluation_uri: str | None = None  # JSON written by `raydiff evaluate`
    model_uri: str | None = None  # the model folder
    tuning_uri: str | None = None  # JSON written by `raydiff tune`


@dataclass(frozen=True, eq=False)
class Run:
    """A loaded entry: the test split of its score table, or the held-out normals where there is nothing to test on.

    Arrays have one value a row of the table.
    """

    name: str
    method: str
    model_id: str
    scores_uri: str
    held_out: bool
    model_uri: str | None
    table: pa.Table
    categories: list[str]  # sorted
    category: NDArray[np.intp]  # position in `categories`
    label: NDArray[np.int8]  # NORMAL, ANOMALOUS or UNKNOWN
    score: NDArray[np.float64]  # NaN where the image could not be scored
    threshold: NDArray[np.float64]  # NaN without a calibration
    alarm: NDArray[np.bool_]
    details: dict[str, NDArray[np.float64]]  # what else the method tells of an image; NaN where it does not
    evaluation: dict[str, Any] | None
    tuning: dict[str, Any] | None
    model: dict[str, Any] | None  # model.json
    calibration: Calibration | None

    @property
    def scored(self) -> NDArray[np.bool_]:
        """Which rows have a score."""
        return np.isfinite(self.score)

    def rows(self, category: str) -> NDArray[np.bool_]:
        """Which rows are of this category and have a score."""
        if category not in self.categories:
            return np.zeros(len(self.score), dtype=bool)
        return self.scored & (self.category == self.categories.index(category))

    def cell(self, column: str, row: int) -> Any:
        """One value of the score table."""
        return self.table.column(column)[row].as_py()

    def metric(self, name: str, category: str | None = None) -> float | None:
        """A number of the evaluation, of one category or the mean; None where it was not computed."""
        if self.evaluation is None:
            return None
        place = self.evaluation["mean"] if category is None else self.evaluation["categories"].get(category, {})
        return place.get(name)


def load(entry: ReportEntry) -> Run:
    """Read everything an entry points at, but no image and no map.

    Raises:
        DataError: if there is no score table, or no image of the test split in it.
        StorageError: if something else that the entry names cannot be read.
    """
    wanted = pc.scalar(True) if entry.held_out else pc.field("split") == "test"
    parts = score_table.read_parts(entry.scores_uri)
    table = score_table.concat(_selected(part.filter(wanted)) for part in parts)
    if not table.num_rows:
        raise DataError(f"{entry.scores_uri} has no image whose split is 'test'; score the images to report on into it")
    model = storage.read_json(storage.join(entry.model_uri, "model.json")) if entry.model_uri else None
    calibration = (model or {}).get("calibration")
    encoded = pc.dictionary_encode(pc.fill_null(table["category"], "")).combine_chunks()
    names = [str(name) for name in encoded.dictionary.to_pylist()]
    order = np.argsort(np.array(names, dtype=object), kind="stable")
    place = np.empty(len(names), dtype=np.intp)
    place[order] = np.arange(len(names))
    found = Run(
        name=entry.name,
        method=_first(table, "method"),
        model_id=_first(table, "model_id"),
        scores_uri=entry.scores_uri,
        held_out=entry.held_out,
        model_uri=entry.model_uri,
        table=table,
        categories=[names[i] for i in order],
        category=place[encoded.indices.to_numpy(zero_copy_only=False)],
        label=pc.fill_null(table["label"], UNKNOWN).to_numpy(),
        score=_floats(table["score"]),
        threshold=_floats(table["threshold"]),
        alarm=pc.fill_null(table["is_anomalous"], False).to_numpy().astype(bool),
        details=_details(table["details"]),
        evaluation=storage.read_json(entry.evaluation_uri) if entry.evaluation_uri else None,
        tuning=storage.read_json(entry.tuning_uri) if entry.tuning_uri else None,
        model=model,
        calibration=Calibration.parse(calibration) if calibration else None,
    )
    return _with_thresholds(found) if entry.held_out else found


def _with_thresholds(run: Run) -> Run:
    """Held-out normals are scored before there is a threshold; here it is beside them."""
    if run.calibration is None:
        return run
    thresholds = np.array([run.calibration.of(name).threshold for name in run.categories])[run.category]
    return replace(run, threshold=thresholds, alarm=run.scored & (run.score > thresholds))


def categories(runs: Sequence[Run]) -> list[str]:
    """Every category that any run has, sorted."""
    return sorted({name for run in runs for name in run.categories})


def _selected(part: pa.Table) -> pa.Table:
    """What a report says something of."""
    return part.select([*_COLUMNS, *(name for name in (BIT_DEPTH,) if name in part.column_names)])


def _details(column: pa.ChunkedArray) -> dict[str, NDArray[np.float64]]:
    rows = [dict(row or ()) for row in column.to_pylist()]
    names = sorted({name for row in rows for name in row})
    return {name: np.array([row.get(name, np.nan) for row in rows], np.float64) for name in names}


def _first(table: pa.Table, column: str) -> str:
    values = table[column].drop_null()
    return str(values[0].as_py()) if len(values) else ""


def _floats(column: pa.ChunkedArray) -> NDArray[np.float64]:
    return np.asarray(pc.fill_null(column, float("nan")).to_numpy(), dtype=np.float64)
