"""Which image of a score table is meant, by a name that may be no more than the end of its URI."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import NamedTuple

from raydiff.scoring import table as scores
from raydiff.scoring.columns import read_columns

FILE = "file://"


class Meant(NamedTuple):
    """What a name was found to be."""

    uri: str | None  # None: no image's name, or of several
    images: int = 1  # how many it may mean


def images_of(scores_uri: str, names: Iterable[tuple[str, ...]]) -> dict[tuple[str, ...], Meant]:
    """The images of a score table that names mean: a whole URI, or whole parts of one's end (`line4/a.png`).

    The table is read once, part by part; what is held grows with the names alone.

    Args:
        names: of an image each, in several spellings, of which the first that any image has decides.

    Raises:
        DataError: if there is no score table.
        StorageError: if a part cannot be read.
    """
    wanted = set(names)
    spellings = {_trimmed(each) for name in wanted for each in name}
    by_last: defaultdict[str, list[str]] = defaultdict(list)
    for each in spellings:
        by_last[each.rpartition("/")[2]].append(each)
    whole: set[str] = set()
    ends: dict[str, Meant] = {}
    for part in read_columns(scores.parts(scores_uri), ["uri"]):
        for uri in part["uri"].to_pylist():
            for each in by_last.get(uri.rpartition("/")[2], ()):
                if uri == each:
                    whole.add(uri)
                elif uri.endswith(f"/{each.lstrip('/')}"):
                    ends[each] = Meant(uri, ends[each].images + 1 if each in ends else 1)
    return {name: _meant(name, whole, ends) for name in wanted}


def _meant(name: tuple[str, ...], whole: set[str], ends: dict[str, Meant]) -> Meant:
    for each in map(_trimmed, name):
        if each in whole:
            return Meant(each)
        if each in ends:
            return ends[each] if ends[each].images == 1 else Meant(None, ends[each].images)
    return Meant(None, 0)


def _trimmed(name: str) -> str:
    return name.removeprefix(FILE).removeprefix("./")
