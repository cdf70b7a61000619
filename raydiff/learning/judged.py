"""The judged images that a model learns from, and what each of them is for.

An image judged normal either teaches or calibrates, never both, in this learning or in any later one: a hash decides,
of the part that it shows, where that is known, or else of its content. Two pictures of one part on both sides would
make the new model look better than it is on a fresh part. Images judged defective do neither; they tell what a model
finds. Content with two verdicts counts for nothing until somebody has looked again.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from raydiff.errors import DataError
from raydiff.images import table as image_table
from raydiff.learning.reach import all_within_reach, packed_of
from raydiff.scoring import table as scores
from raydiff.scoring.columns import KINDS, applied_categories, by_category, read_part
from raydiff.verdicts import table as verdicts
from raydiff.verdicts.archive import Contradiction, contradictions

TEACHING = 0.5  # of the images judged normal; the others calibrate
MOST = 10_000  # images of a kind and category that are used; of more those with the lowest hash

TEACH, CALIBRATE, DEFECT = "teach", "calibrate", "defect"
_COLUMNS = [
    "uri", "dataset", "category", "category_guessed", "content_hash", "score", "is_anomalous", image_table.PART,
    image_table.BIT_DEPTH, image_table.ROI,
]  # fmt: skip


class Judged(NamedTuple):
    """What there is to learn from."""

    rows: pa.Table  # (N,) of the score tables, with `use` (TEACH, CALIBRATE or DEFECT), `applied` and `archive`
    contradictions: list[Contradiction]
    unsure: int
    unreadable: int  # judged, but without a score
    missing: int  # judged, but not in the score table
    repeated: int  # with the bytes and the verdict of another
    left: int  # beyond MOST
    doubted: list[str]  # images of the run's own, which it takes for normal, that are judged defective
    # of each category's scored images in the archives those that raised an alarm; "" of no category, absent where
    # nothing says
    alarm_shares: dict[str, float]


def judged(archives: Sequence[str], own: frozenset[str] = frozenset(), teaches: bool = True) -> Judged:
    """The judged images of score tables, by the newest verdict of each.

    Args:
        archives: folders of score tables, with verdicts beside them.
        own: URIs of the run's own normal images; where they are judged, too, they do nothing else.
        teaches: False has all normal ones calibrate, for a method that has nothing to be taught.

    Raises:
        DataError: if there is no score table, no verdict, or none that can be used.
        StorageError: if something cannot be read.
    """
    newest = verdicts.newest(pa.concat_tables([verdicts.read(archive) for archive in archives]))
    if not len(newest):
        raise DataError(
            f"{', '.join(archives)}: there are no verdicts; add some with `raydiff verdicts --add`, or on the page of "
            "`raydiff review`"
        )
    said = dict(zip(newest["uri"].to_pylist(), newest["verdict"].to_pylist(), strict=True))
    found, alarm_shares = _looked_up(archives, said)
    found = found.filter(pc.invert(pc.is_in(found["uri"], pa.array(sorted(own), pa.string()))))
    readable = found.filter(pc.is_valid(found["score"]))
    contradicting = contradictions(newest, readable)
    against = pa.array([each.content_hash for each in contradicting], pa.string())
    clear = readable.filter(pc.invert(pc.fill_null(pc.is_in(readable["content_hash"], against), False)))
    uses = [_use(said[uri], place, teaches) for uri, place in zip(clear["uri"].to_pylist(), _sides(clear), strict=True)]
    sure = clear.append_column("use", pa.array(uses, pa.string())).filter(pa.array([use is not None for use in uses]))
    kept, repeated, left = _bounded(sure)
    if not len(kept):
        raise DataError(
            f"{', '.join(archives)}: of {len(said):,} judged images none can be learnt from: they are judged unsure, "
            "contradict each other, or have no score"
        )
    return Judged(
        rows=kept,
        contradictions=contradicting,
        unsure=sum(verdict == verdicts.UNSURE for verdict in said.values()),
        unreadable=len(found) - len(readable),
        missing=len(said.keys() - set(found["uri"].to_pylist()) - own),
        repeated=repeated,
        left=left,
        doubted=sorted(uri for uri in own if said.get(uri) == verdicts.DEFECT),
        alarm_shares=alarm_shares,
    )


def _looked_up(archives: Sequence[str], said: dict[str, str]) -> tuple[pa.Table, dict[str, float]]:
    """The judged images' rows, each once, of the first archive that has it, and `Judged.alarm_shares`."""
    fields = [KINDS.field(name) for name in _COLUMNS] + [
        pa.field("archive", pa.string()),
        pa.field("shard", pa.string()),
    ]
    found = [pa.schema(fields).empty_table()]
    seen: set[str] = set()
    alarms: Counter[str] = Counter()
    scored: Counter[str] = Counter()
    for archive in archives:
        for uri in scores.parts(archive):
            part = read_part(uri, _COLUMNS).select(_COLUMNS)
            told = part.filter(pc.is_valid(part["is_anomalous"]))
            for name, mine in by_category(told, None):
                scored[name] += int(mine.sum())
                alarms[name] += int(told["is_anomalous"].to_numpy()[mine].sum())
            places = [place for place, name in enumerate(part["uri"].to_pylist()) if name in said and name not in seen]
            if places:
                rows = part.take(pa.array(places))
                seen.update(rows["uri"].to_pylist())
                for name, value in (("archive", archive), ("shard", scores.part_name(uri))):
                    rows = rows.append_column(name, pa.array([value] * len(rows), pa.string()))
                found.append(rows)
    rows = pa.concat_tables(found)
    shares = {name: alarms[name] / count for name, count in scored.items()}
    return rows.append_column("applied", applied_categories(rows)), shares


def _use(verdict: str, place: float, teaches: bool) -> str | None:
    """What an image is for that falls at a `side`."""
    if verdict == verdicts.UNSURE:
        return None
    if verdict == verdicts.DEFECT:
        return DEFECT
    return TEACH if teaches and place < TEACHING else CALIBRATE


def side(name: str) -> float:
    """Where in [0, 1) what has a name falls, evenly and always alike: below TEACHING it teaches."""
    return int.from_bytes(hashlib.sha256(f"learn:{name}".encode()).digest()[:8], "big") / 2**64


def _sides(rows: pa.Table) -> list[float]:
    """Where each image falls: by its category and part, its content, or, if neither is known, its URI.

    By the category that it was given, if any: what a model took it for may change.
    """
    told = (rows[name].to_pylist() for name in ("category", image_table.PART, "content_hash", "uri"))
    return [
        side(f"{category or ''}/{part}" if part else content or uri)
        for category, part, content, uri in zip(*told, strict=True)
    ]


def _bounded(rows: pa.Table) -> tuple[pa.Table, int, int]:
    """Each content once, MOST of a use and category; how many were copies, and how many too many."""
    contents: set[str] = set()
    by_kind: dict[tuple[str, str | None], list[tuple[float, int]]] = {}
    repeated = 0
    told = (rows[name].to_pylist() for name in ("uri", "content_hash", "use", "applied"))
    for place, (uri, content, use, category) in enumerate(zip(*told, strict=True)):
        name = content or uri
        if name in contents:
            repeated += 1
            continue
        contents.add(name)
        by_kind.setdefault((use, category), []).append((side(name), place))
    kept = sorted(place for each in by_kind.values() for _, place in sorted(each)[:MOST])
    left = sum(max(0, len(each) - MOST) for each in by_kind.values())
    return rows.take(pa.array(kept, pa.int64())), repeated, left


def image_rows(rows: pa.Table, work_uri: str) -> pa.Table:
    """Judged images as an image table; of a packed archive those that are gone are unpacked under `work_uri`.

    Raises:
        StorageError: if that cannot be written.
    """
    packed = {archive: packed_of(archive) for archive in rows["archive"].unique().to_pylist()}
    told = zip(*(rows[name].to_pylist() for name in ("uri", "archive", "shard")), strict=True)
    uris = all_within_reach([(uri, packed[archive], shard) for uri, archive, shard in told], work_uri)
    defective = pc.equal(rows["use"], DEFECT)
    columns = {
        "uri": pa.array(uris, pa.string()),
        "dataset": pc.fill_null(rows["dataset"], "archive"),
        "category": pc.fill_null(rows["category"], "unknown"),  # the model guesses, as it did in the archive
        "split": pa.array(["test"] * len(rows), pa.string()),
        "label": defective.cast(pa.int8()),
        "defect": pc.if_else(defective, pa.scalar(None, pa.string()), "good"),
        "mask_uri": pa.nulls(len(rows), pa.string()),
    }
    further = [name for name in (image_table.ROI, image_table.BIT_DEPTH) if rows[name].null_count < len(rows)]
    return pa.table({**columns, **{name: rows[name] for name in further}})
