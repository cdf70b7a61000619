"""Arrays of several sizes in one, as Ray Data's columns have them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

Arrays = Sequence[np.ndarray] | np.ndarray  # one of one shape each, or all in one of their own, or an array of arrays


def ragged(arrays: Sequence[np.ndarray]) -> np.ndarray:
    """Arrays stacked, if they have one shape; else an array of arrays."""
    if len({array.shape for array in arrays}) == 1:
        return np.stack(arrays)
    found = np.empty(len(arrays), object)
    for place, array in enumerate(arrays):
        found[place] = array
    return found
