"""The report of a scored archive: one HTML file beside its score table, from that table and its summary."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa

from raydiff import storage
from raydiff.errors import DataError
from raydiff.images import packed_archive
from raydiff.images.decode import MAX_PIXELS
from raydiff.images.levels import Levels
from raydiff.model.calibration import Calibration
from raydiff.model.description import DESCRIPTION, describe
from raydiff.progress import phase
from raydiff.report import archive_figures, facts
from raydiff.report.archive_counts import COLUMNS, PER_GROUP, ArchiveCounts, ScoreCounts
from raydiff.report.archive_parts import part_alarms
from raydiff.report.gallery import Group, Tile
from raydiff.report.page import when, write_page
from raydiff.report.periods import Periods
from raydiff.report.pictures import pictures
from raydiff.scoring import table
from raydiff.scoring.columns import OTHERS, read_columns
from raydiff.scoring.summary import ArchiveSummary, Day

MAX_CATEGORIES = 24  # with figures of their own
MAX_ROWS = 200  # of the table of categories
SHARD = "shard"  # of the image table that a row is of, carried along to the gallery
AGAIN = "run jobs/score_archive.py again with the same options: it scores nothing that is scored, and writes it"


@dataclass(frozen=True)
class Archive:
    """What lies beside a score table."""

    uri: str
    model: dict[str, Any]  # its description
    calibration: Calibration | None
    run: dict[str, Any]  # what the scores are of and how they were made
    summary: ArchiveSummary
    periods: Periods | None  # of the days that are known

    @property
    def rate(self) -> float | None:
        """The promised rate of false alarms."""
        return self.calibration.rate if self.calibration else None


def write_archive_report(scores_uri: str, title: str = "Scored archive") -> str:
    """Write the report of a scored archive into its folder; the URI of the file.

    The score table is read once, part by part; of images only those of the gallery.

    Raises:
        DataError, ModelFolderError: if the folder does not hold what `score_archive` leaves at its end.
        StorageError: if something in it cannot be read, or the report not be written. An image or a map that cannot be
            read is no error: its place in the report says why it is empty.
    """
    scores_uri = storage.absolute(scores_uri)
    archive = _load(scores_uri)
    plotted = _plotted(archive)
    counts = _count(archive, plotted)
    with phase("report", 3 * PER_GROUP, "pictures") as shown:
        groups = _gallery(archive, counts, shown.advance)
        shown.update(3 * PER_GROUP)
    return write_page(
        scores_uri,
        "archive.html",
        title=title,
        archive=archive,
        begun=when(datetime.fromisoformat(archive.run["begun"])) if "begun" in archive.run else None,
        days=_days(archive),
        alarms=_alarms(archive),
        left_out=max(0, len({day.category for day in archive.summary.days}) - MAX_CATEGORIES),
        rows=_rows(archive.summary)[:MAX_ROWS],
        more_rows=max(0, len(_rows(archive.summary)) - MAX_ROWS),
        by_period=_by_period(archive),
        scores=_scores(archive, counts, plotted),
        scores_left_out=max(0, len(counts.scores) - MAX_CATEGORIES),
        drifted=[drift.sentence() for drift in archive.summary.drift if drift.drifted],
        galleries=groups,
        parts=part_alarms(archive.uri, counts) if archive.summary.parts else None,
        errors=_errors(archive, counts),
        settings=[
            (heading, facts.flat(values))
            for heading, values in (
                ("Training settings", archive.model["settings"]["train"]),
                ("Score settings", archive.model["settings"]["score"]),
                ("Card", {name: value for name, value in archive.model["card"].items() if name != "loss_curve"}),
            )
        ],
    )


def _load(scores_uri: str) -> Archive:
    for name in (table.RUN, table.SUMMARY, DESCRIPTION):
        if not storage.exists(storage.join(scores_uri, name)):
            raise DataError(f"{scores_uri} holds no {name} of a scored archive; {AGAIN}")
    run, told = (storage.read_json(storage.join(scores_uri, name)) for name in (table.RUN, table.SUMMARY))
    model = describe(scores_uri)
    summary = ArchiveSummary.model_validate(told)
    known = [day.day for day in summary.days if day.day is not None]
    return Archive(
        scores_uri,
        model,
        Calibration.parse(model["calibration"]) if model["calibration"] else None,
        run,
        summary,
        Periods(known) if known else None,
    )


def _plotted(archive: Archive) -> list[str]:
    """The categories of the scores' figures: those that have drifted first, then those with the most images.

    With a calibration these are its categories, and all others together.
    """
    drifted = {drift.category for drift in archive.summary.drift if drift.drifted}
    images = {row["category"]: row["images"] for row in _rows(archive.summary)}
    known = [*archive.calibration.categories, OTHERS] if archive.calibration else [*images]
    first = sorted(known, key=lambda name: (name not in drifted, -images.get(name, 0), name == OTHERS, name))
    return first[:MAX_CATEGORIES]


def _count(archive: Archive, plotted: Sequence[str]) -> ArchiveCounts:
    counts = ArchiveCounts(archive.summary, archive.calibration, archive.periods)
    uris = table.parts(archive.uri)
    with phase("report", len(uris), "parts") as shown:
        for uri, part in zip(uris, read_columns(uris, list(COLUMNS)), strict=True):
            shard = pa.repeat(table.part_name(uri), len(part))
            counts.add(part.append_column(SHARD, shard), plotted)
            shown.advance()
    if counts.rows != archive.summary.images:
        raise DataError(
            f"{archive.uri}: {table.SUMMARY} is of {archive.summary.images:,} images and the score table has "
            f"{counts.rows:,}; {AGAIN}"
        )
    return counts


def _rows(summary: ArchiveSummary) -> list[dict[str, Any]]:
    """The table of categories, those with most images first."""
    drift = {each.category: each for each in summary.drift}
    found: dict[str, dict[str, Any]] = {}
    for day in summary.days:
        row = found.setdefault(day.category, {"category": day.category, "images": 0, "alarms": 0, "errors": 0})
        for name in ("images", "alarms", "errors"):
            row[name] += getattr(day, name)
    for row in found.values():
        scored = row["images"] - row["errors"]
        row |= {"share": row["alarms"] / scored if scored else None, "drift": drift.get(row["category"])}
    return sorted(found.values(), key=lambda row: (-row["images"], row["category"]))


def _days(archive: Archive) -> str | None:
    """From when to when the images were taken."""
    known = sorted(day.day for day in archive.summary.days if day.day is not None)
    return (known[0] if known[0] == known[-1] else f"{known[0]} to {known[-1]}") if known else None


def _over_periods(periods: Periods, days: Sequence[Day]) -> dict[str, np.ndarray]:
    """Images, alarms and errors in each period, each an array (P,)."""
    found = {name: np.zeros(len(periods.starts), np.int64) for name in ("images", "alarms", "errors")}
    for day in days:
        if day.day is not None:
            number = periods.number(day.day)
            for name, counts in found.items():
                counts[number] += getattr(day, name)
    return found


def _alarms(archive: Archive) -> list[dict[str, Any]]:
    """A figure of alarms over time for all together and for each category; none where there is no time to speak of."""
    if archive.periods is None or len(archive.periods.starts) < 2 or archive.calibration is None:
        return []
    days = archive.summary.days
    names = [row["category"] for row in _rows(archive.summary)[:MAX_CATEGORIES]]
    groups = [("all together", days)] if len(names) > 1 else []
    groups += [(name or "(no category)", [day for day in days if day.category == name]) for name in names]
    figures = []
    for name, mine in groups:
        found = _over_periods(archive.periods, mine)
        scored = found["images"] - found["errors"]
        if scored.any():
            plot = archive_figures.alarms_figure(archive.periods, scored, found["alarms"], archive.rate)
            figures.append(
                {"category": name, "plot": plot, "alarms": int(found["alarms"].sum()), "images": int(scored.sum())}
            )
    return figures


def _by_period(archive: Archive) -> list[dict[str, Any]]:
    """Images, alarms and errors of all categories in each period, and of no known day."""
    if archive.periods is None:
        return []
    found = _over_periods(archive.periods, archive.summary.days)
    unknown = [day for day in archive.summary.days if day.day is None]
    rows = [
        {"period": archive.periods.label(number)} | {name: int(counts[number]) for name, counts in found.items()}
        for number in range(len(archive.periods.starts))
    ]
    if unknown:
        rows.append({"period": "unknown"} | {name: sum(getattr(day, name) for day in unknown) for name in found})
    return rows


def _scores(archive: Archive, counts: ArchiveCounts, plotted: Sequence[str]) -> list[dict[str, Any]]:
    """Figures and words of the scores of each category, as the model has categories."""
    told = {each.category: each for each in archive.summary.drift}
    figures = []
    for name in plotted:
        found = counts.scores.get(name)
        if found is None:
            continue
        drift = told.get(name)
        by_period = counts.drift(name)
        figures.append(
            {
                "category": name,
                "known": bool(name) or archive.calibration is None,
                "plot": archive_figures.distribution_figure(found),
                "images": found.images,
                "threshold": found.threshold,
                # images that were taken for a category by the model are of another one, or of none, in the summary
                "drift": drift if drift and drift.images == found.images else None,
                "sentence": facts.calibration_sentence(archive.calibration, name),
                "over_time": archive_figures.drift_figure(archive.periods, by_period)
                if archive.periods and len(by_period) > 1
                else None,
            }
        )
    return figures


def _gallery(archive: Archive, counts: ArchiveCounts, told: Callable[[], None]) -> list[Group]:
    highest, borderline, normal = counts.gallery()
    by = "by their distance from the alarm threshold" if archive.calibration else "by their category's scores"
    found = (
        ("Highest", f"the images with the highest scores, {by}", highest),
        ("Borderline", "images nearest to the alarm threshold, on either side", borderline),
        ("Normal", "drawn at random (with a fixed seed) from the images without an alarm", normal),
    )
    made = []
    for title, note, rows in found:
        tiles = []
        for row in rows:
            category = row["category_guessed"] or row["category"]
            tiles.append(_tile(archive, row, counts.scores.get(category or OTHERS)))
            told()
        if tiles:
            made.append(Group(title, note, tiles))
    return made


def _tile(archive: Archive, row: Mapping[str, Any], counts: ScoreCounts | None) -> Tile:
    levels = Levels.kept(archive.model["settings"]["train"])
    category = row["category_guessed"] or row["category"]
    scale = archive.calibration.of(category).colour_scale() if archive.calibration else None
    if scale is None and counts is not None:
        scale = counts.middle, counts.middle + 2 * counts.unit
    fetch = partial(packed_archive.fetch, archive_uri=packed_archive.scored(archive.run), shard=row[SHARD])
    image, heat, problem = pictures(row, scale, levels, archive.run.get("max_pixels", MAX_PIXELS), fetch=fetch)
    return Tile(
        uri=row["uri"],
        category=category,
        defect=None,
        score=row["score"],
        p_value=row["p_value"],
        threshold=row["threshold"],
        verdict="" if row["is_anomalous"] is None else "alarm" if row["is_anomalous"] else "no alarm",
        wrong=bool(row["is_anomalous"]),
        image=image,
        heat=heat,
        problem=problem,
    )


def _errors(archive: Archive, counts: ArchiveCounts) -> list[dict[str, Any]]:
    return [
        {"reason": reason, "count": count, "examples": counts.examples.get(reason, [])}
        for reason, count in archive.summary.errors.items()
    ]
