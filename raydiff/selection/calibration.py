"""The alarm threshold: a promised false-alarm rate from normal images alone, without one label of a defect.

Split-conformal: if a fresh normal image is exchangeable with the n held-out normals, its score exceeds the k-th largest
of theirs with probability at most k / (n + 1). So a rate needs n >= 1 / rate - 1 normals to be promised at all.
"""

from __future__ import annotations

import itertools
import math
import random
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from functools import cached_property

from pydantic import Field

from raydiff.errors import DataError, SettingsError
from raydiff.settings import Settings

MAX_SCORES = 10_000  # per category, drawn at random from more; a larger number sharpens no promise


def check_rate(rate: float) -> None:
    """Whether a false-alarm rate can be asked for.

    Raises:
        SettingsError: if it is not above 0 and below 1.
    """
    if not 0 < rate < 1:
        raise SettingsError(f"the false-alarm rate is a share of normal images: above 0, below 1 (got {rate:g})")


class CategoryCalibration(Settings):
    """Normal scores of one category (or of all together) and the threshold they give."""

    scores: tuple[float, ...] = Field(min_length=1)  # ascending
    rate: float = Field(gt=0, lt=1)

    @property
    def normals(self) -> int:
        """How many held-out normals there are."""
        return len(self.scores)

    @property
    def lowest_rate(self) -> float:
        """The lowest false-alarm rate that so many normals can promise."""
        return 1 / (self.normals + 1)

    @property
    def promised(self) -> bool:
        """Whether the wanted rate is promised."""
        return self.lowest_rate <= self.rate * (1 + 1e-12)

    @cached_property
    def threshold(self) -> float:
        """Scores above it raise an alarm. With too few normals it is the largest of their scores."""
        k = max(1, math.floor(self.rate * (self.normals + 1) + 1e-9))
        return self.scores[-k]

    def p_value(self, score: float) -> float:
        """(1 + number of normals that score at least as high) / (n + 1)."""
        return (1 + self.normals - bisect_left(self.scores, score)) / (self.normals + 1)

    def colour_scale(self) -> tuple[float, float]:
        """Ends of a heat map's colours: nothing below the median normal score, half heat at the threshold."""
        low = self.scores[self.normals // 2]
        return low, low + 2 * max(self.threshold - low, 1e-6 * max(abs(low), 1.0))


class Calibration(Settings):
    """Thresholds and p-values per category, with a fallback to all categories together."""

    rate: float = Field(gt=0, lt=1)
    categories: dict[str, CategoryCalibration]
    all: CategoryCalibration
    shared_with_tuning: tuple[str, ...] = ()  # categories too small for tuning and calibration to be kept apart

    @classmethod
    def fit(
        cls, scores: Mapping[str, Sequence[float]], rate: float, shared_with_tuning: Sequence[str] = ()
    ) -> Calibration:
        """Calibrate on the scores of held-out normals.

        Raises:
            DataError: if there is not one score.
        """
        rng = random.Random(0)
        kept = {
            category: sorted(found if len(found) <= MAX_SCORES else rng.sample(list(found), MAX_SCORES))
            for category, found in sorted(scores.items())
            if len(found)
        }
        if not kept:
            raise DataError("there is no held-out normal image to calibrate on; index more normal images")
        return cls(
            rate=rate,
            categories={name: CategoryCalibration(scores=tuple(s), rate=rate) for name, s in kept.items()},
            all=CategoryCalibration(scores=tuple(sorted(itertools.chain(*kept.values()))), rate=rate),
            shared_with_tuning=tuple(sorted(shared_with_tuning)),
        )

    def of(self, category: str | None) -> CategoryCalibration:
        """What applies to a category: its own if it can promise the rate, else all together."""
        own = self.categories.get(category or "")
        if own is not None and (own.promised or not self.all.promised):
            return own
        return self.all

    def sentences(self) -> list[str]:
        """What is promised and what is not, one sentence a category."""
        lines = []
        for name, own in self.categories.items():
            used = self.of(name)
            if used is own and own.promised:
                lines.append(f"{name}: at most {self.rate:.2%} false alarms, from {own.normals} normal images")
            elif used is not own:
                lines.append(
                    f"{name}: {own.normals} normal images are too few to promise {self.rate:.2%} for it alone; "
                    f"the threshold comes from all {used.normals} images of all categories together, "
                    "and the rate holds on their average only"
                )
            else:
                lines.append(
                    f"{name}: {own.normals} normal images are too few to promise {self.rate:.2%}; the threshold is "
                    f"their largest score, which promises {own.lowest_rate:.2%}. "
                    f"Give at least {math.ceil(1 / self.rate) - 1} held-out normals"
                )
        if self.shared_with_tuning:
            lines.append(
                f"{', '.join(self.shared_with_tuning)}: so few held-out images that tuning saw the same ones; "
                "the rate may come out somewhat higher than said"
            )
        return lines
