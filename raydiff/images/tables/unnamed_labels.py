"""Columns that seem to say what is normal and are not called label.

A table without a label would train on all its rows, so such a column is refused and never just carried along. An
archive, of which nothing is learned, may have any.
"""

from __future__ import annotations

from collections.abc import Mapping

import pyarrow as pa
import pyarrow.compute as pc

from raydiff.errors import DataError
from raydiff.images.tables.columns import Columns, plain
from raydiff.images.tables.words import label_of

_OF_DEFECTS = ("defect_type", "defect_class", "defect_name", "anomaly_type", "anomaly_class")
_OF_NORMALS = ("is_good", "is_normal", "is_ok")  # where 1 is what a label has as 0
_OF_LABELS = ("class", "target", "status", "result", "verdict", "outcome", "judgement", "judgment")
_MOST_WORDS = 64  # of a batch; labels come in fewer spellings


class UnnamedLabels:
    """Looks at the columns of a table to train on that are carried along.

    Args:
        columns: what the table has.
        where: the table, for messages.

    Raises:
        DataError: if the name of one is that of a label.
    """

    def __init__(self, columns: Columns, where: str) -> None:
        self.where = where
        told = "label" in columns.known
        defects = "defect" in columns.known
        # Where a defect says what is normal, a row that has none trains only if a split says so.
        asked = not told and (not defects or "split" in columns.known)
        self._words: dict[str, dict[int, str]] = {name: {} for name in columns.extra} if asked else {}
        for name in () if told or defects else columns.extra:
            if rule := _rule(plain(name)):
                raise DataError(
                    f"{where}: column {name!r} seems to say what is normal, and there is no column label; {rule}, or "
                    "give it another name if it says something else"
                )

    def see(self, batch: pa.Table) -> None:
        """The next rows."""
        for name in list(self._words):
            words = pc.unique(batch[name])
            if len(words) > _MOST_WORDS or not self._are_labels(words, self._words[name]):
                del self._words[name]

    def refuse(self) -> None:
        """When all rows have been seen.

        Raises:
            DataError: if all values of a column are words for normal and anomalous, and it has both.
        """
        for name, found in self._words.items():
            if len(found) == 2:
                raise DataError(
                    f"{self.where}: column {name!r} holds {found[0]} and {found[1]}, and there is no column label; "
                    "call it label if it says what is normal (0 or OK) and what is not (1 or NG), or else give a "
                    "column label"
                )

    def _are_labels(self, words: pa.Array, found: dict[int, str]) -> bool:
        for value in words.to_pylist():
            try:
                label = label_of("" if value is None else value)
            except ValueError:
                return False
            if label is not None:
                found.setdefault(label, str(value))
        return True


def _rule(name: str) -> str | None:
    rules: Mapping[tuple[str, ...], str] = {
        _OF_DEFECTS: "call it defect, with good where there is none",
        _OF_NORMALS: "give a column label with 0 for normals and 1 for all others",
        _OF_LABELS: "call it label (0 or 1, OK or NG)",
    }
    return next((rule for names, rule in rules.items() if name in names), None)
