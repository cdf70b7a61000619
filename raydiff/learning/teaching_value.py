"""How much an image's verdict would teach, by its score alone: 1 at its category's threshold, less away from it.

Distances are told as a budget of alarms tells them (`selection.budget`): in ways from the middle of the category's
normal scores to its threshold. So categories with any scores can be compared, and images beyond all normals, which
share one p-value, are told apart. The value halves with each ABOVE ways above the threshold and with each BELOW of a
way below it. It falls slowly above, because a false alarm costs somebody's time each day, and a kind of stain that
alarms again and again may lie well above. It falls fast below, because normal images get many times more numerous with
every step towards the middle, where their verdicts are known beforehand.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from raydiff.model.calibration import CategoryCalibration

ABOVE = 1.0  # ways
BELOW = 0.1  # of one
LEAST = 1e-300  # so that none is impossible


def ways_above(scores: NDArray[np.float64], own: CategoryCalibration) -> NDArray[np.float64]:
    """(N,) how far scores (N,) lie above a category's threshold, in ways from the normals' middle; negative below."""
    return (scores - own.threshold) / (own.reach * own.way)


def teaching_value(ways: NDArray[np.float64]) -> NDArray[np.float64]:
    """(N,) above 0 and at most 1, of images that lie so many ways above their thresholds (N,)."""
    return np.maximum(np.exp2(-np.where(ways > 0, ways / ABOVE, -ways / BELOW)), LEAST)
