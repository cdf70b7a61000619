"""What a finished score table says as a whole: alarms by day, errors by reason, repeated images, drift.

An archive has millions of rows, so the table is read part by part and nothing is kept for each row. What is kept grows
with categories, days and calibration scores; of the images' hashes a bounded number is held at a time.
"""

from __future__ import annotations

import re
from collections import Counter

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel, ConfigDict
from rich.table import Table

from raydiff.model.calibration import Calibration
from raydiff.progress import console, phase
from raydiff.scoring import table
from raydiff.scoring.columns import read_columns
from raydiff.scoring.drift import Drift, DriftCounts
from raydiff.scoring.parts_table import PartsSummary

HASHES_AT_ONCE = 4_000_000  # distinct ones of 8 bytes, 180 MB at the peak, while they are sorted
REASONS = 20  # kinds of error that are told apart in a summary
REASONS_COUNTED = 1_000  # and while counting, so that a frequent one is kept wherever in the table it begins
REASON_LENGTH = 200  # characters
OTHER = "other"
ROWS_SHOWN = 14

_COLUMNS = ["uri", "category", "day", "content_hash", "score", "is_anomalous", "error"]

_BYTES = re.compile(r"""(?<!\w)b(?:'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")""")
_PLACE = re.compile(r"""[\w+.-]+://[^\s'"<>]*[\w/]|(?<![\w/])(['"])[^'"]*/[^'"]*\1|(?<![\w/])/(?!/)[^\s'"<>]*[\w/]""")
_DETAIL = re.compile(r"\s*\([^()]*\)")  # the innermost
# A depth or a range (first group) says what kind of image it is; other numbers, addresses and request ids are its own.
_NUMBER = re.compile(
    r"\b(\d+(?: or \d+)?[ -]bit\b|0 to 1\b)"
    r"|\b0x[0-9a-fA-F]+|\b(?=[a-fA-F-]*\d)[0-9a-fA-F-]{8,}\b|(?<!\w)\d+(?:[.,x]\d+)*(?!\w)"
)


class _Result(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Day(_Result):
    """One category's images of one day."""

    category: str
    day: str | None  # ISO, None where it is unknown
    images: int  # those with an error included
    alarms: int
    errors: int


class ArchiveSummary(_Result):
    """What `summarise` found; `model_dump(mode="json")` is its JSON form."""

    images: int
    errors: dict[str, int]  # images by reason, the most frequent first, `OTHER` last
    alarms: int
    repeated: int  # images with the same bytes as another of the table, the first of each not counted
    days: list[Day]  # by category and day, the unknown day last
    drift: list[Drift]  # by category; empty without a calibration
    parts: PartsSummary | None = None  # of the table of parts; None where nothing says which part an image shows


def summarise(scores_uri: str, calibration: Calibration | None) -> ArchiveSummary:
    """What a score table says as a whole, in bounded memory.

    The table is read once, and once more for each further `HASHES_AT_ONCE` distinct images.

    Args:
        scores_uri: folder of the score table.
        calibration: of the model that made the scores.

    Raises:
        DataError: if there is no score table.
        StorageError: if a part cannot be read.
    """
    uris = table.parts(scores_uri)
    days: dict[tuple[str, str | None], Counter[str]] = {}
    reasons: Counter[str] = Counter()
    categories: dict[str, DriftCounts] = {}
    hashed = distinct = 0
    hashes = _Hashes(0)
    with phase("summary", len(uris), "parts") as shown:
        for part in read_columns(uris, _COLUMNS):
            _count_days(days, part)
            _count_reasons(reasons, part)
            if calibration is not None:
                _count_scores(categories, part, calibration)
            hashed += hashes.add(part)
            shown.advance()
        distinct += hashes.count()
        while hashes.last is not None:
            hashes = _Hashes(hashes.last + 1)
            # All hashes may be distinct; where they are not, the last readings fall away.
            shown.update(shown.done, total=len(uris) * -(-hashed // HASHES_AT_ONCE))
            for part in read_columns(uris, ["content_hash"]):
                hashes.add(part)
                shown.advance(note="repeated images")
            distinct += hashes.count()
    rows = [
        Day(category=category, day=day, **{name: counts[name] for name in ("images", "alarms", "errors")})
        for (category, day), counts in sorted(days.items(), key=lambda item: (item[0][0], item[0][1] or "~"))
    ]
    return ArchiveSummary(
        images=sum(row.images for row in rows),
        errors=_most_frequent(reasons),
        alarms=sum(row.alarms for row in rows),
        repeated=hashed - distinct,
        days=rows,
        drift=[scores.drift(category) for category, scores in sorted(categories.items())],
    )


def print_summary(summary: ArchiveSummary) -> None:
    """Print the main figures; of long lists only a beginning."""
    errors = sum(summary.errors.values())
    _print(
        f"archive: {summary.images:,} images, {summary.alarms:,} alarms, {errors:,} could not be scored, "
        f"{summary.repeated:,} repeat another image"
    )
    for found, count in summary.errors.items():
        _print(f"  {count:,} not scored: {found}")
    days = Table()
    for heading in ("category", "day"):
        days.add_column(heading, overflow="fold", max_width=40)
    for heading in ("images", "alarms", "errors"):
        days.add_column(heading, justify="right", no_wrap=True)
    for row in sorted(summary.days, key=lambda row: -row.alarms)[:ROWS_SHOWN]:
        days.add_row(row.category, row.day or "unknown", f"{row.images:,}", f"{row.alarms:,}", f"{row.errors:,}")
    console.print(days, markup=False)  # a category may look like markup
    _print_rest(len(summary.days), "with fewer alarms")
    drifted = [row for row in summary.drift if row.drifted]
    for drift in drifted[:ROWS_SHOWN]:
        _print(drift.sentence())
    _print_rest(len(drifted), "whose scores have drifted")
    for line in summary.parts.sentences() if summary.parts else ():
        _print(line)


def reason(error: str, uri: str) -> str:
    """What is wrong, without what is particular to the image: equal for equal kinds of error.

    Args:
        error: text of the score table's column `error`.
        uri: of the image that it belongs to.
    """
    text = error.replace(uri, "the file") if uri else error
    text = _PLACE.sub("…", _BYTES.sub("…", text))
    while text != (outer := _DETAIL.sub("", text)):
        text = outer
    text = " ".join(_NUMBER.sub(lambda found: found[1] or "…", text).split())
    return text if len(text) <= REASON_LENGTH else text[: REASON_LENGTH - 1] + "…"


def _count_days(days: dict[tuple[str, str | None], Counter[str]], part: pa.Table) -> None:
    alarms = pc.fill_null(part["is_anomalous"], False).cast(pa.int64())
    groups = (
        part.select(["category", "day", "error"])
        .append_column("alarm", alarms)
        .group_by(["category", "day"], use_threads=False)
        .aggregate([([], "count_all"), ("alarm", "sum"), ("error", "count")])
    )
    for row in groups.to_pylist():
        counts = days.setdefault((row["category"], row["day"] and row["day"].isoformat()), Counter())
        counts.update(images=row["count_all"], alarms=row["alarm_sum"], errors=row["error_count"])


def _count_reasons(reasons: Counter[str], part: pa.Table) -> None:
    bad = part.filter(part["error"].is_valid())
    for error, uri in zip(bad["error"].to_pylist(), bad["uri"].to_pylist(), strict=True):
        found = reason(error, uri)
        reasons[found if found in reasons or len(reasons) < REASONS_COUNTED else OTHER] += 1


def _most_frequent(reasons: Counter[str]) -> dict[str, int]:
    other = reasons.pop(OTHER, 0)
    ordered = sorted(reasons.items(), key=lambda item: (-item[1], item[0]))
    other += sum(count for _, count in ordered[REASONS:])
    return dict(ordered[:REASONS]) | ({OTHER: other} if other else {})


def _count_scores(categories: dict[str, DriftCounts], part: pa.Table, calibration: Calibration) -> None:
    scored = part.filter(part["score"].is_valid())
    for category in scored["category"].unique().to_pylist():
        if category not in categories:
            # its own normals, be they few: what it borrows for its threshold lies where those few lie, and is as sure
            categories[category] = DriftCounts(calibration.categories.get(category, calibration.all))
        categories[category].add(scored.filter(pc.equal(scored["category"], category))["score"].to_numpy())


class _Hashes:
    """The smallest distinct hashes from `first` on, `HASHES_AT_ONCE` of them at most; exact, in bounded memory.

    Hashes that are one more than the last one held are for the next reading of the table, and so on: each is counted
    in one reading. 8 of the 32 bytes are enough: among n different files some n² / 2^65 pairs agree in them by chance,
    which is .0003 in an archive of 100 million.
    """

    def __init__(self, first: int) -> None:
        self.first = first
        self.last: int | None = None  # the largest that is held, if larger ones were left out
        self._held = np.empty(0, np.uint64)  # ascending
        self._new: list[np.ndarray] = []
        self._waiting = 0

    def add(self, part: pa.Table) -> int:
        """Take in the part's column `content_hash`; the number of rows that have one."""
        texts = pc.utf8_slice_codeunits(part["content_hash"].drop_null(), 0, 16).to_pylist()
        found = np.frombuffer(bytes.fromhex("".join(texts)), ">u8").astype(np.uint64)
        found = found[found >= self.first]
        if self.last is not None:
            found = found[found <= self.last]
        if len(found):  # thousands of empty arrays add up, too
            self._new.append(found)
            self._waiting += len(found)
        if self._waiting >= HASHES_AT_ONCE:
            self._merge()
        return len(texts)

    def count(self) -> int:
        """How many distinct hashes are held."""
        self._merge()
        return len(self._held)

    def _merge(self) -> None:
        merged = np.unique(np.concatenate([self._held, *self._new]))
        self._new, self._waiting = [], 0
        self._held = merged[:HASHES_AT_ONCE].copy()  # a slice alone would keep all of it in memory
        if len(merged) > HASHES_AT_ONCE:
            self.last = int(self._held[-1])


def _print(line: str) -> None:
    console.print(line, markup=False)


def _print_rest(rows: int, what: str) -> None:
    if rows > ROWS_SHOWN:
        _print(f"and {rows - ROWS_SHOWN:,} more {what}, in summary.json")
