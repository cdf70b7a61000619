"""What an archive's report says of its table of parts, read in bounded memory."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from raydiff import storage
from raydiff.images.table import PART
from raydiff.report.archive_counts import ArchiveCounts, Example, Smallest
from raydiff.scoring import parts_table
from raydiff.scoring.by_part import NOT_SCORED, VIEWS
from raydiff.scoring.columns import applied_categories

ALARMS = 30  # parts that are named
WITHOUT_VERDICT = 5
MAX_CATEGORIES = 50
_COLUMNS = [
    *("category", "category_guessed", PART, VIEWS, NOT_SCORED),
    *("uri", "score", "corrected_p_value", "is_anomalous", "error"),
]


def part_alarms(scores_uri: str, counts: ArchiveCounts) -> dict[str, Any]:
    """Parts by category (those with most first), the alarms with the highest scores, and some without a verdict.

    Args:
        counts: of the score table, by which scores of unlike categories are ranked.
    """
    highest = Smallest(ALARMS)
    by_category: dict[str, Counter[str]] = {}
    without: list[Example] = []
    with storage.parquet(parts_table.table_uri(scores_uri)) as file:
        for batch in file.iter_batches(columns=_COLUMNS):
            rows = pa.Table.from_batches([batch])
            alarms = rows.filter(pc.fill_null(rows["is_anomalous"], False))
            names = applied_categories(alarms).to_pylist()
            far = [counts.distance(*pair) for pair in zip(names, alarms["score"].to_pylist(), strict=True)]
            highest.add(alarms, -np.array(far, np.float64))
            _count(by_category, rows)
            if len(without) < WITHOUT_VERDICT:
                bad = rows.filter(rows["error"].is_valid()).slice(0, WITHOUT_VERDICT - len(without))
                without += [Example(row["uri"] or "", row["error"]) for row in bad.to_pylist()]
    ordered = sorted(by_category.items(), key=lambda item: (-item[1]["parts"], item[0]))
    return {
        "categories": ordered[:MAX_CATEGORIES],
        "more": max(0, len(ordered) - MAX_CATEGORIES),
        "alarms": highest.rows,
        "without": without,
    }


def _count(by_category: dict[str, Counter[str]], rows: pa.Table) -> None:
    verdicts = pa.table(
        {
            "category": pc.fill_null(rows["category"], ""),
            "alarm": pc.fill_null(rows["is_anomalous"], False).cast(pa.int64()),
            "none": rows["is_anomalous"].is_null().cast(pa.int64()),
        }
    )
    groups = verdicts.group_by("category").aggregate([([], "count_all"), ("alarm", "sum"), ("none", "sum")])
    for row in groups.to_pylist():
        counts = by_category.setdefault(row["category"], Counter())
        counts.update(parts=row["count_all"], alarms=row["alarm_sum"], without=row["none_sum"])
