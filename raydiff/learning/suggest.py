"""What to look at next: images of a scored archive whose verdict would teach most, none of them like another.

Which images come in question their scores tell (`candidates`), what they look like where they are most anomalous the
model does (`peaks`), and of the valuable ones those are chosen that are unlike each other and unlike what is judged
already (`spread`).
"""

from __future__ import annotations

from datetime import date
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from rich.table import Table

from raydiff import storage
from raydiff.errors import DataError, SettingsError
from raydiff.learning.candidates import APPLIED, WAYS, Seen, drawn, rows_of
from raydiff.learning.spread import Choice, Looks, spread
from raydiff.learning.teaching_value import BELOW
from raydiff.model.calibration import Calibration
from raydiff.model.description import describe
from raydiff.progress import console
from raydiff.scoring.columns import applied_categories, category_key
from raydiff.scoring.made_by import check_scored_by
from raydiff.storage.patience import patiently
from raydiff.verdicts import table as verdicts

FILE = "suggestions.parquet"  # beside the score table
SCHEMA = pa.schema(
    [
        ("rank", pa.int32()),  # from 1
        ("uri", pa.string()),
        ("category", pa.string()),  # as in the score table
        ("day", pa.date32()),
        ("score", pa.float64()),
        ("p_value", pa.float64()),
        ("reason", pa.string()),  # why it is suggested, in words
    ]
)
MOST = 1000  # images at a time; after so many verdicts others are worth more
EACH = 20  # candidates are looked at for each image that is wanted
AT_LEAST = 500  # candidates
JUDGED = 500  # judged images that suggestions shall be unlike, the latest
SHOWN = 50  # suggestions that are printed

_UNLIKE = 0.5  # novelty (see `spread`)
_FAR = 1.0  # ways above the threshold


class Suggestion(NamedTuple):
    """A row of SCHEMA."""

    rank: int
    uri: str
    category: str
    day: date | None
    score: float
    p_value: float
    reason: str


class Suggested(NamedTuple):
    """What came of it."""

    place: str  # the file of all suggestions
    suggestions: list[Suggestion]
    candidates: int  # that were looked at
    unread: int  # of them that cannot be read any more
    judged: int  # images that have a verdict


def suggest(scores_uri: str, model_uri: str, count: int, seed: int, address: str | None = None) -> Suggested:
    """Choose `count` images of an archive to be judged next, and write them to FILE, in the place of what was there.

    Args:
        scores_uri: folder of the score table; the verdicts beside it are looked at.
        model_uri: folder of the model that made the scores, calibrated.
        seed: of what is drawn.
        address: of the Ray cluster, as of `cluster.connect`.

    Raises:
        SettingsError: if `count` is not from 1 to MOST.
        DataError: if the scores are another model's or not all there, the model is not calibrated, or there is no image
            to suggest.
        StorageError, ClusterError: nothing is written then.
    """
    if not 1 <= count <= MOST:
        raise SettingsError(f"-n {count} images cannot be suggested; give 1 to {MOST:,}")
    scores_uri, model_uri = storage.absolute(scores_uri), storage.absolute(model_uri)  # for workers that are elsewhere
    check_scored_by(scores_uri, model_uri)
    described = describe(model_uri)["calibration"]
    if described is None:
        raise DataError(f"{model_uri} is not calibrated, so that nothing is near a threshold; run `raydiff calibrate`")
    calibration = Calibration.parse(described)
    newest = verdicts.newest(verdicts.read(scores_uri))
    judged = _judged(scores_uri, newest)
    seen = Seen(newest["uri"].combine_chunks(), judged["content_hash"].combine_chunks().drop_null())
    found = drawn(scores_uri, calibration, seen, max(EACH * count, AT_LEAST), seed)
    if not len(found):
        if not len(judged):  # what has a score is drawn or judged
            raise DataError(f"{scores_uri} has no image to suggest: none has a score; its column `error` says why")
        raise DataError(f"{scores_uri} has no image to suggest: of all that have a score there are verdicts")
    from raydiff import cluster  # here, because all that can be refused at once is refused before Ray is loaded
    from raydiff.learning.peaks import looks_at_peaks

    cluster.connect(address)
    judged = _latest(judged, newest, calibration)
    together = pa.concat_tables([found, judged], promote_options="default")
    looks = looks_at_peaks(model_uri, scores_uri, together)
    offered = [place for place in looks.places if place < len(found)]
    if not offered:
        raise DataError(f"none of {len(found):,} candidates of {scores_uri} can be read ({looks.first_error})")
    names = together[APPLIED].to_pylist()
    candidates, known = (
        Looks([names[place] for place in looks.places[rows]], looks.looks[rows])
        for rows in (slice(len(offered)), slice(len(offered), None))
    )
    chosen = spread(found["value"].to_numpy()[offered], candidates, known, count)
    rows = together.take(pa.array(looks.places)).to_pylist()
    place = storage.join(scores_uri, FILE)
    suggestions = _told(chosen, rows, calibration)
    _write(place, suggestions)
    return Suggested(place, suggestions, len(found), len(found) - len(offered), len(newest))


def _judged(scores_uri: str, newest: pa.Table) -> pa.Table:
    """The judged images of the score table, with their verdicts and when these were given."""
    rows = rows_of(scores_uri, newest["uri"].to_pylist())
    places = pc.index_in(rows["uri"], value_set=newest["uri"].combine_chunks())
    for name in ("verdict", "when"):
        rows = rows.append_column(name, newest[name].take(places))
    return rows


def _latest(judged: pa.Table, newest: pa.Table, calibration: Calibration) -> pa.Table:
    """Those that were judged last, in the columns of candidates."""
    latest = judged.sort_by([("when", "descending"), ("uri", "ascending")]).slice(0, JUDGED)
    names = [category_key(name, calibration.categories) for name in applied_categories(latest).to_pylist()]
    return latest.append_column(APPLIED, pa.array(names, pa.string()))


def _told(chosen: list[Choice], rows: list[dict[str, Any]], calibration: Calibration) -> list[Suggestion]:
    """The chosen ones as they are told, in their order."""
    ranks: dict[int, int] = {}
    found = []
    for rank, choice in enumerate(chosen, 1):
        row = rows[choice.place]
        ranks[choice.place] = rank
        p_value = calibration.of(row[APPLIED]).p_value(row["score"])
        like = _likeness(choice, rows, ranks)
        reason = f"{_height(row[WAYS])} (p {p_value:.2g}), {like}"
        found.append(Suggestion(rank, row["uri"], row["category"], row["day"], row["score"], p_value, reason))
    return found


def _height(ways: float) -> str:
    """How far above the threshold, in words."""
    if abs(ways) <= BELOW:
        return f"just {'above' if ways > 0 else 'below'} the threshold"
    return "below the threshold" if ways < 0 else "above the threshold" if ways <= _FAR else "far above the threshold"


def _likeness(choice: Choice, rows: list[dict[str, Any]], ranks: dict[int, int]) -> str:
    """What the image is like, of those before it, in words."""
    if choice.like is None:
        return "the first of its category"
    if choice.novelty >= _UNLIKE:
        return "unlike the others"
    if choice.like in ranks:
        return f"somewhat like number {ranks[choice.like]}"
    return f"somewhat like one judged {rows[choice.like]['verdict']}"


def _write(place: str, suggestions: list[Suggestion]) -> None:
    """All of them as one Parquet file, whole or not at all."""
    columns = zip(*suggestions, strict=True)
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table([pa.array(*pair) for pair in zip(columns, SCHEMA.types, strict=True)], schema=SCHEMA), sink)
    patiently(storage.write_bytes, place, sink.getvalue().to_pybytes())


def print_suggested(found: Suggested) -> None:
    """Print what is suggested, the first SHOWN of many, and of how many it was chosen."""
    shown = Table()
    for name in ("rank", "category", "day", "p-value", "score", "image, and why"):
        number = name in ("rank", "p-value", "score")
        shown.add_column(name, justify="right" if number else "left", no_wrap=number, overflow="fold")
    for each in found.suggestions[:SHOWN]:
        numbers = f"{each.p_value:.2g}", f"{each.score:.4g}"
        shown.add_row(str(each.rank), each.category, str(each.day or ""), *numbers, f"{each.uri}\n{each.reason}")
    console.print(shown, markup=False)
    if len(found.suggestions) > SHOWN:
        console.print(f"and {len(found.suggestions) - SHOWN:,} more", markup=False)
    console.print(
        f"suggested: {len(found.suggestions):,} images to judge next, of {found.candidates:,} candidates; "
        f"judged already: {found.judged:,}. They lie in {found.place}",
        markup=False,
    )
    if found.unread:
        console.print(f"{found.unread:,} candidates cannot be read any more and were left out", markup=False)
