"""Verdicts from a file of the user's into the table beside a score table.

What can be taken is added, all at once; the rest is left out, counted and named:

- a row that names no image of the score table, or more than one;
- a row whose verdict, region or time cannot be understood, or whose time has not come yet;
- all rows of an image that the file judges differently at the same time: which is right it does not say;
- a row that is there already, so that a file brought twice changes nothing. One without a time is, if the same person
  has said the same of the image at any time, whatever others have said since.

An image that was judged otherwise before is no such case: the newest verdict counts.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Literal, NamedTuple

import pyarrow as pa

from raydiff.errors import DataError, SettingsError
from raydiff.verdicts import coco, given_table, table
from raydiff.verdicts.names import Meant, images_of
from raydiff.verdicts.said import Region, Said
from raydiff.verdicts.table import Verdict
from raydiff.verdicts.words import Words

Unannotated = Literal["left-out", "normal"]
NAMED = 5  # of what is left out for a reason
CLOCKS_DIFFER = timedelta(minutes=5)

_UNKNOWN = "name no image of the score table"
_SEVERAL = "name more than one image of the score table"
_CONTRADICTED = "contradict another row of the file about the same image"
_THERE = "are there already"


class LeftOut(NamedTuple):
    """Rows of a file that are not added, for one reason."""

    why: str
    rows: int
    first: list[str]  # some of them


class Label(NamedTuple):
    """A name that labels of a COCO file have."""

    name: str
    labels: int
    verdict: str | None  # that it means; None: none


class Brought(NamedTuple):
    """What came of a file."""

    file: str
    rows: int  # that it has; of a COCO file its labels, and its images without labels that are taken for normal
    added: dict[str, int]  # by verdict
    images: int  # that these are of
    left_out: list[LeftOut]
    labels: list[Label]  # of a COCO file
    unannotated: int  # images of a COCO file without labels


def bring(scores_uri: str, file_uri: str, who: str, words: Words, unannotated: Unannotated = "left-out") -> Brought:
    """Add the verdicts of a file: a table (see `given_table`) or COCO JSON (see `coco`).

    Args:
        who: says so.
        words: that mean verdicts.
        unannotated: what images without labels are in a COCO file.

    Raises:
        SettingsError: if `who` is empty.
        DataError: if the file cannot be read, none of its verdicts can be taken, or there is no score table. Nothing is
            added then.
        StorageError: if one of them cannot be fetched.
    """
    if not who.strip():
        raise SettingsError("--who is empty; say who judged, as in --who anna")
    now = datetime.now(UTC)
    drawn = coco.opened(file_uri)
    said = list(drawn.said(words, unannotated == "normal") if drawn else given_table.read(file_uri, words))
    left = _Left()
    found = images_of(scores_uri, (each.names for each in said if each.names))
    good = list(_understood(said, found, now, left))
    rows = _new(_agreeing(good, left), table.read(scores_uri), who.strip(), now, left)
    left_out = left.told()
    if rows:
        table.append(scores_uri, table.of(rows))
    elif not any(each.why == _THERE for each in left_out):
        why = "; ".join(f"{each.rows:,} {each.why} ({', '.join(each.first)})" for each in left_out)
        raise DataError(f"{file_uri} has no verdict that can be taken: {why or 'it has no rows'}")
    labels = drawn.labels.most_common() if drawn else []
    return Brought(
        file=file_uri,
        rows=len(said),
        added=dict(Counter(each.verdict for each in rows)),
        images=len({each.uri for each in rows}),
        left_out=left_out,
        labels=[Label(name, count, words.of_label(name)) for name, count in labels],
        unannotated=drawn.unannotated if drawn else 0,
    )


class _Left:
    """Counts what is left out."""

    def __init__(self) -> None:
        self._rows: Counter[str] = Counter()
        self._first: defaultdict[str, list[str]] = defaultdict(list)

    def add(self, why: str, said: Said) -> None:
        self._rows[why] += 1
        if len(self._first[why]) < NAMED:
            image = said.names[0] if said.names else ""
            self._first[why].append(f"{said.where}: {image}" if image and image != said.where else said.where)

    def told(self) -> list[LeftOut]:
        return [LeftOut(why, rows, self._first[why]) for why, rows in self._rows.most_common()]


def _understood(
    said: list[Said], found: dict[tuple[str, ...], Meant], now: datetime, left: _Left
) -> Iterator[tuple[str, Said]]:
    """URI and row of what can be understood."""
    for each in said:
        meant = found[each.names] if each.names else None
        if each.fault:
            left.add(each.fault, each)
        elif meant is None:
            left.add("name no image", each)
        elif each.when and each.when > now + CLOCKS_DIFFER:
            left.add("have a time that has not come yet", each)
        elif meant.uri is None:
            left.add(_SEVERAL if meant.images else _UNKNOWN, each)
        else:
            yield meant.uri, each


def _agreeing(good: list[tuple[str, Said]], left: _Left) -> list[tuple[str, Said]]:
    """Those that no other of the same image and time contradicts."""
    verdicts: defaultdict[tuple[str, datetime | None], set[str | None]] = defaultdict(set)
    for uri, said in good:
        verdicts[uri, said.when].add(said.verdict)
    kept = []
    for uri, said in good:
        if len(verdicts[uri, said.when]) > 1:
            left.add(_CONTRADICTED, said)
        else:
            kept.append((uri, said))
    return kept


_Content = tuple[str, Region | None, str | None, str]  # verdict, region, note, who


def _new(good: list[tuple[str, Said]], there: pa.Table, who: str, now: datetime, left: _Left) -> list[Verdict]:
    """Those that do not say again what is there: at that time or, where they have none, at any."""
    known: set[tuple[str, datetime, _Content]] = set()
    at_any_time: set[tuple[str, _Content]] = set()
    images = {uri for uri, _ in good}
    for row in there.to_pylist():
        if row["uri"] in images:
            region = tuple(row["region"]) if row["region"] else None
            there_already = row["verdict"], region, row["note"], row["who"]
            known.add((row["uri"], row["when"], there_already))
            at_any_time.add((row["uri"], there_already))
    rows = []
    for uri, said in good:
        assert said.verdict is not None
        content = (said.verdict, said.region, said.note, who)
        if (uri, said.when, content) in known if said.when else (uri, content) in at_any_time:
            left.add(_THERE, said)
        else:
            rows.append(Verdict(uri, said.verdict, who, said.when or now, said.region, said.note))
    return list(dict.fromkeys(rows))
