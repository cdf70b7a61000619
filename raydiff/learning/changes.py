"""Which alarms of an archive are gone under another model and which are new: image by image, in bounded memory."""

from __future__ import annotations

import os
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from datetime import date
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from raydiff import storage
from raydiff.errors import DataError
from raydiff.progress import phase
from raydiff.scoring import table as scores
from raydiff.scoring.columns import read_columns
from raydiff.storage.patience import patiently
from raydiff.verdicts import table as verdicts

FILE = "changes.parquet"
SCHEMA = pa.schema(
    [
        ("uri", pa.string()),  # as in the archive's score table
        ("category", pa.string()),  # likewise
        ("day", pa.date32()),
        ("score_before", pa.float64()),
        ("score_after", pa.float64()),  # null where it had not to be known: it is `score_before` at most
        ("alarm_before", pa.bool_()),
        ("alarm_after", pa.bool_()),
    ]
)
BY_DAY = "changes_by_day.parquet"

_COLUMNS = ["uri", "category", "category_guessed", "day", "score", "is_anomalous"]


class Counts(NamedTuple):
    """Of some images that both models have a verdict of."""

    images: int = 0
    before: int = 0  # alarms
    after: int = 0
    gone: int = 0  # of the alarms before
    new: int = 0  # of the alarms after

    def plus(self, other: Counts) -> Counts:
        """Both together."""
        return Counts(*(mine + theirs for mine, theirs in zip(self, other, strict=True)))


class Changes(NamedTuple):
    """What changes in an archive."""

    counts: dict[tuple[str, date | None], Counts]  # by category and day
    gone: Mapping[str, int]  # alarms that are gone, by verdict; without those that have none
    new: Mapping[str, int]
    judged: int  # images of the archive that have a verdict, whatever it is
    unread: int  # images that have a score and cannot be read any more
    without_score: int  # images that the archive has no alarm or its absence of, because they could not be scored

    def by_category(self) -> dict[str, Counts]:
        """Sorted by category."""
        found: dict[str, Counts] = {}
        for (category, _), counts in self.counts.items():
            found[category] = found.get(category, Counts()).plus(counts)
        return dict(sorted(found.items()))

    def by_day(self) -> dict[date | None, Counts]:
        """Sorted by day, images of no known day last."""
        found: dict[date | None, Counts] = {}
        for (_, day), counts in self.counts.items():
            found[day] = found.get(day, Counts()).plus(counts)
        return dict(sorted(found.items(), key=lambda item: item[0] or date.max))

    def all(self) -> Counts:
        """Of all images."""
        found = Counts()
        for counts in self.counts.values():
            found = found.plus(counts)
        return found


def compare(archive: str, again_uri: str, asked: Callable[[pa.Table], NDArray[np.bool_]], images: int) -> Changes:
    """Compare the alarms of an archive with those of a model that scored some of its images again.

    The images whose alarm changes are written to FILE beside the new scores, and counts by category and day to BY_DAY,
    each whole or not at all.

    Args:
        archive: folder of the archive's scores.
        again_uri: folder of the new ones.
        asked: which of some of the archive's rows were scored again; the others raise no alarm.
        images: in the archive.

    Raises:
        DataError: if other images were scored again, or there is none to compare.
        StorageError: if something cannot be read or written.
    """
    newest = verdicts.newest(verdicts.read(archive))
    said = Counter[tuple[bool, str]]()
    counts: dict[tuple[str, date | None], Counts] = {}
    unread = without_score = 0
    uris = scores.parts(archive)
    again = _Again(again_uri)
    with tempfile.TemporaryDirectory(prefix="raydiff-changes-") as folder, phase("comparing", images) as shown:
        path = os.path.join(folder, FILE)
        with pq.ParquetWriter(path, SCHEMA) as file:
            for part in shown.counted(read_columns(uris, _COLUMNS)):
                rows = again.beside(part, asked(part))
                known = pc.is_valid(rows["alarm_before"])
                without_score += len(rows) - pc.sum(known).as_py()
                both = rows.filter(pc.and_(known, pc.is_valid(rows["alarm_after"])))
                unread += pc.sum(known).as_py() - len(both)
                changed = both.filter(pc.not_equal(both["alarm_before"], both["alarm_after"]))
                file.write_table(changed)
                said.update(_said(changed, newest))
                _count(counts, both)
        again.check_end()
        if not counts:
            why = f"; scored again, the first cannot be read: {again.first_error}" if unread else ""
            raise DataError(f"of {images:,} images of {archive} none has a verdict before and after{why}")
        patiently(storage.write_file, storage.join(again_uri, FILE), path)
    _write_days(storage.join(again_uri, BY_DAY), counts)
    gone, new = ({name: said[now, name] for name in verdicts.VERDICTS} for now in (False, True))
    return Changes(counts, gone, new, len(newest), unread, without_score)


class _Again:
    """The rows that were scored again, in the order of the archive's."""

    def __init__(self, again_uri: str) -> None:
        self._uri = again_uri
        places = [scores.part_uri(again_uri, name) for name in scores.part_names(again_uri)]
        self._parts: Iterator[pa.Table] = read_columns(places, ["score", "is_anomalous", "error"])
        self.first_error = ""  # why an image could not be scored

    def beside(self, part: pa.Table, asked: NDArray[np.bool_]) -> pa.Table:
        """A part of the archive in SCHEMA; of what was scored again and could not be read `alarm_after` is null."""
        score = np.full(len(part), None, object)
        alarm = np.full(len(part), False, object)
        if asked.any():
            found = next(self._parts, None)
            if found is None or len(found) != asked.sum():
                raise self._other()
            self.first_error = self.first_error or next(iter(found["error"].drop_null().to_pylist()), "")
            score[asked] = found["score"].to_pylist()
            alarm[asked] = found["is_anomalous"].to_pylist()
        told = [part[name] for name in ("uri", "category", "day", "score")]
        after = [pa.array(score, pa.float64()), pa.array(alarm, pa.bool_())]
        return pa.table([*told, after[0], part["is_anomalous"], after[1]], schema=SCHEMA)

    def check_end(self) -> None:
        """Whether all were taken.

        Raises:
            DataError: if not.
        """
        if next(self._parts, None) is not None:
            raise self._other()

    def _other(self) -> DataError:
        return DataError(
            f"{self._uri} holds scores of other images than those that are to be scored again; choose another --out"
        )


def _said(changed: pa.Table, newest: pa.Table) -> Iterator[tuple[bool, str]]:
    """Of changed images that are judged whether they alarm now, and what was said."""
    places = pc.index_in(changed["uri"], value_set=newest["uri"].combine_chunks())
    judged = changed.filter(pc.is_valid(places))
    said = newest["verdict"].take(places.drop_null())
    yield from zip(judged["alarm_after"].to_pylist(), said.to_pylist(), strict=True)


def _count(counts: dict[tuple[str, date | None], Counts], rows: pa.Table) -> None:
    """Count in rows in SCHEMA of which both verdicts are known."""
    before, after = rows["alarm_before"], rows["alarm_after"]
    flags = {
        "before": before,
        "after": after,
        "gone": pc.and_not(before, after),
        "new": pc.and_not(after, before),
    }
    numbers = {name: flag.cast(pa.int64()) for name, flag in flags.items()}
    told = pa.table({"category": rows["category"], "day": rows["day"], **numbers})
    sums = [(name, "sum") for name in flags]
    for row in told.group_by(["category", "day"]).aggregate([([], "count_all"), *sums]).to_pylist():
        key = row["category"], row["day"]
        found = Counts(row["count_all"], *(row[f"{name}_sum"] for name in flags))
        counts[key] = counts.get(key, Counts()).plus(found)


def _write_days(place: str, counts: Mapping[tuple[str, date | None], Counts]) -> None:
    ordered = sorted(counts, key=lambda key: (key[0], key[1] or date.max))
    told = {
        "category": pa.array([category for category, _ in ordered], pa.string()),
        "day": pa.array([day for _, day in ordered], pa.date32()),
    }
    for name in Counts._fields:
        title = name if name == "images" else f"alarms_{name}"
        told[title] = pa.array([getattr(counts[key], name) for key in ordered], pa.int64())
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(told), sink)
    patiently(storage.write_bytes, place, sink.getvalue().to_pybytes())
