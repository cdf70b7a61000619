"""The false-alarm rate that is promised."""

from __future__ import annotations

from raydiff.errors import SettingsError

DEFAULT_RATE = 0.01


def check_rate(rate: float) -> None:
    """Whether a false-alarm rate can be asked for.

    Raises:
        SettingsError: if it is not above 0 and below 1.
    """
    if not 0 < rate < 1:
        raise SettingsError(f"the false-alarm rate is a share of normal images: above 0, below 1 (got {rate:g})")
