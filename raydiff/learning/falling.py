"""Models whose scores can only be lower than those that another one made, and which images may alarm under such a one.

Where a memory bank has only grown (`Method.falls_from`), and all else that decides a score is the same, no score is
higher than it was. An image that lies below the new threshold already cannot raise an alarm then, and its pixels are
not needed. This holds of the same computation on the same kind of device, and up to rounding: which bank vectors are
nearest is told by products of matrices, whose sums are rounded in another order where the bank has another size. So
images are looked at again from MARGIN below the threshold on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from raydiff.learning.teaching_value import ways_above
from raydiff.model.calibration import Calibration
from raydiff.scoring.columns import by_category

if TYPE_CHECKING:  # what only asks which images may alarm need not load torch
    from raydiff.model.folder import Model

MARGIN = 0.01  # of the way from the middle of the category's normal scores to its threshold; see docs/learning.md


def why_not(model: Model, before: Model) -> str:
    """Why scores of a model may be higher than those of another one were; empty where they cannot."""
    one, other = model.method, before.method
    for what, mine, theirs in (
        ("method", one.name, other.name),
        ("train settings", one.settings, other.settings),
        ("score settings", model.score_settings, before.score_settings),
        ("position statistics", model.positions, before.positions),
    ):
        if mine != theirs:
            return f"it has other {what} than the model that made the scores"
    if not one.falls_from(other, model.score_settings):
        return "its scores may be higher than those of the model that made them, not only lower"
    return ""


def may_alarm(rows: pa.Table, calibration: Calibration) -> NDArray[np.bool_]:
    """(N,) whether images may raise an alarm under a model whose scores are not higher than theirs.

    Args:
        rows: with `score`, `category` and `category_guessed`; null scores raise none.
        calibration: of that model.
    """
    scores, found = rows["score"].to_numpy(), np.zeros(len(rows), bool)
    for name, mine in by_category(rows, calibration.categories):
        found[mine] = ways_above(scores[mine], calibration.of(name)) > -MARGIN  # False where it is no number
    return found
