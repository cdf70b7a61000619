"""How many verdicts there are: by verdict, category and who, and which contradict each other."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import NamedTuple

from rich.table import Table

from raydiff.progress import console
from raydiff.verdicts import table
from raydiff.verdicts.archive import Contradiction, contradictions, known
from raydiff.verdicts.bring import Brought
from raydiff.verdicts.table import VERDICTS

SHOWN = 5  # contradictions that are printed
TOLD = 1000  # and that a document holds


class Summary(NamedTuple):
    """What a table of verdicts says as a whole."""

    rows: int  # verdicts ever given
    images: int  # that these are of
    verdicts: dict[str, int]  # images by the verdict that counts
    categories: dict[str, dict[str, int]]  # and by category, "" where the score table does not have the image
    who: dict[str, int]  # verdicts ever given, by who gave them
    revised: int  # images whose verdict that counts differs from one that somebody gave before
    missing: int  # images that the score table does not have
    contradictions: int  # contents that are judged normal and defective
    first: list[Contradiction]  # some of them


def summarise(scores_uri: str) -> Summary:
    """The verdicts beside a score table, of which the judged images are looked up.

    Raises:
        DataError: if there is no score table.
        StorageError: if it or the verdicts cannot be read.
    """
    rows = table.read(scores_uri)
    newest = table.newest(rows)
    counts = dict(zip(newest["uri"].to_pylist(), newest["verdict"].to_pylist(), strict=True))
    images = known(scores_uri, counts, ["category", "content_hash"])
    category = dict(zip(images["uri"].to_pylist(), images["category"].to_pylist(), strict=True))
    by: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for uri, verdict in counts.items():
        by[category.get(uri) or ""][verdict] += 1
    revised = {
        uri
        for uri, verdict in zip(rows["uri"].to_pylist(), rows["verdict"].to_pylist(), strict=True)
        if verdict != counts[uri]
    }
    found = contradictions(newest, images)
    return Summary(
        rows=len(rows),
        images=len(newest),
        verdicts=_in_order(Counter(counts.values())),
        categories={name: _in_order(by[name]) for name in sorted(by)},
        who=dict(Counter(rows["who"].to_pylist()).most_common()),
        revised=len(revised),
        missing=len(counts.keys() - category.keys()),
        contradictions=len(found),
        first=found[:TOLD],
    )


def print_summary(summary: Summary) -> None:
    """Print the figures, and some of the contradictions."""
    _print(f"verdicts: {summary.rows:,} of {summary.images:,} images; the newest of each counts")
    if not summary.rows:
        return
    shown = Table()
    shown.add_column("category", overflow="fold", max_width=40)
    for verdict in VERDICTS:
        shown.add_column(verdict, justify="right", no_wrap=True)
    for name, counts in summary.categories.items():
        shown.add_row(name or "unknown", *(f"{counts[verdict]:,}" for verdict in VERDICTS))
    if len(summary.categories) > 1:
        shown.add_row("all", *(f"{summary.verdicts[verdict]:,}" for verdict in VERDICTS))
    console.print(shown, markup=False)
    _print("by " + ", ".join(f"{who}: {count:,}" for who, count in summary.who.items()))
    if summary.revised:
        _print(f"{summary.revised:,} images were judged otherwise before")
    if summary.missing:
        _print(f"{summary.missing:,} images are not in the score table")
    if summary.contradictions:
        _print(f"{summary.contradictions:,} contents are judged normal and defective; look at these again:")
    for each in summary.first[:SHOWN]:
        _print(f"  normal: {', '.join(each.normal[:SHOWN])}; defect: {', '.join(each.defect[:SHOWN])}")
    if summary.contradictions > SHOWN:
        _print(f"  and {summary.contradictions - SHOWN:,} more")


def print_brought(brought: Brought) -> None:
    """Print what came of a file."""
    for label in brought.labels:
        _print(f"{brought.file}: {label.labels:,} labels {label.name!r} mean {label.verdict or 'nothing'}")
    added = ", ".join(f"{count:,} {verdict}" for verdict, count in brought.added.items())
    _print(
        f"{brought.file}: {sum(brought.added.values()):,} of {brought.rows:,} verdicts are added"
        + (f" ({added}), of {brought.images:,} images" if added else "")
    )
    if brought.unannotated:
        _print(f"{brought.file}: {brought.unannotated:,} images have no labels (see --unannotated)")
    for left in brought.left_out:
        more = ", ..." if left.rows > len(left.first) else ""
        _print(f"  {left.rows:,} left out: {left.why} ({', '.join(left.first)}{more})")


def _in_order(counts: Counter[str]) -> dict[str, int]:
    return {verdict: counts[verdict] for verdict in VERDICTS}


def _print(line: str) -> None:
    console.print(line, markup=False)
