"""The judged images in their score table, which is read part by part: an archive's has millions of rows."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection
from typing import NamedTuple

import pyarrow as pa

from raydiff.scoring import table as scores
from raydiff.scoring.columns import KINDS, read_columns
from raydiff.verdicts.table import DEFECT, NORMAL


def known(scores_uri: str, uris: Collection[str], columns: list[str]) -> pa.Table:
    """The rows of some images in a score table: `uri` and some columns, in the table's order.

    What is held grows with `uris` and with a few of the table's parts.

    Args:
        columns: of the score table's own, without `uri`.

    Raises:
        DataError: if there is no score table.
        StorageError: if a part cannot be read.
    """
    wanted = frozenset(uris)
    names = ["uri", *columns]
    found = [pa.schema([KINDS.field(name) for name in names]).empty_table()]
    for part in read_columns(scores.parts(scores_uri), names):
        places = [place for place, uri in enumerate(part["uri"].to_pylist()) if uri in wanted]
        if places:
            found.append(part.take(pa.array(places)))
    return pa.concat_tables(found)


class Contradiction(NamedTuple):
    """Images with the same bytes of which some are judged normal and some defective."""

    content_hash: str
    normal: tuple[str, ...]  # URIs, sorted
    defect: tuple[str, ...]


def contradictions(newest: pa.Table, images: pa.Table) -> list[Contradiction]:
    """What contradicts itself by content, sorted by hash; `unsure` contradicts nothing.

    Args:
        newest: the verdicts that count (see `table.newest`).
        images: `uri` and `content_hash` of the judged images; those without a hash are left out.
    """
    hashes = dict(zip(images["uri"].to_pylist(), images["content_hash"].to_pylist(), strict=True))
    groups: defaultdict[str, dict[str, list[str]]] = defaultdict(lambda: {NORMAL: [], DEFECT: []})
    for uri, verdict in zip(newest["uri"].to_pylist(), newest["verdict"].to_pylist(), strict=True):
        content = hashes.get(uri)
        if content and verdict in (NORMAL, DEFECT):
            groups[content][verdict].append(uri)
    return [
        Contradiction(content, tuple(sorted(said[NORMAL])), tuple(sorted(said[DEFECT])))
        for content, said in sorted(groups.items())
        if said[NORMAL] and said[DEFECT]
    ]
