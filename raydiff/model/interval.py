"""What a count says of a share: Clopper and Pearson's interval."""

from __future__ import annotations

from scipy.special import betaincinv

CONFIDENCE = 0.95


def clopper_pearson(hits: int, of: int) -> tuple[float, float]:
    """The shares that a count is compatible with at `CONFIDENCE`; (0, 1) where there was nothing to count.

    Args:
        hits: how many of `of` independent things it was.
    """
    tail = (1 - CONFIDENCE) / 2
    low = float(betaincinv(hits, of - hits + 1, tail)) if hits else 0.0
    high = float(betaincinv(hits + 1, of - hits, 1 - tail)) if hits < of else 1.0
    return low, high
