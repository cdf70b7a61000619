"""On which scale the colours of a row's heat map lie."""

from __future__ import annotations

import threading
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from raydiff.review.columns import ALARM
from raydiff.review.table import Table

if TYPE_CHECKING:
    from raydiff.model.calibration import Calibration

LIKELY_NORMAL = 0.99  # of a category's images, where no threshold says which are


class Scales:
    """Ends of the colours, a category's for all its images: none at the lower, half heat at the threshold.

    They are the calibration's (`CategoryCalibration.colour_scale`), so that the colours are those of the report, where
    the model is at hand. Else the table's own scores stand in for its normal images', since most of an archive is
    normal: the median of those that raised no alarm, and the row's own threshold.
    """

    def __init__(self, table: Table, model: dict[str, Any] | None) -> None:
        """Args:
        model: its description (see `model.describe`), None where it is not at hand.
        """
        self._table = table
        self._model = model
        self._known: dict[str, tuple[float, float]] = {}
        self._lock = threading.Lock()

    def of(self, category: str, guessed: str | None, threshold: float | None) -> tuple[float, float] | None:
        """Ends (low, high) for a row; None where no row of its category has a score.

        Raises:
            StorageError, DataError: as `Files.columns`.
        """
        with self._lock:
            if self._calibration is not None:
                return self._calibration.of(guessed or category).colour_scale()
            if category not in self._known:
                self._known[category] = self._usual(category)
            low, likely = self._known[category]
        if np.isnan(low):
            return None
        return low, low + 2 * max((likely if threshold is None else threshold) - low, 1e-6 * max(abs(low), 1.0))

    @cached_property
    def _calibration(self) -> Calibration | None:
        from raydiff.model.calibration import Calibration  # and scipy, for which the first page need not wait

        return Calibration.parse(self._model["calibration"]) if self._model and self._model["calibration"] else None

    def _usual(self, category: str) -> tuple[float, float]:
        """The median score of a category and its quantile LIKELY_NORMAL, of what raised no alarm; NaN without any."""
        columns = self._table.columns
        state, score = columns["state"], columns["score"]
        same = columns["category"] == columns.number("category", category)
        mine = score[same & (state != ALARM) & np.isfinite(score)]
        if not len(mine):
            return float("nan"), float("nan")
        low, likely = np.quantile(mine, [0.5, LIKELY_NORMAL])
        return float(low), float(likely)
