"""The alarm threshold: a promised false-alarm rate from normal images alone, without one label of a defect.

Split-conformal: if a fresh normal image is exchangeable with the n held-out normals, its score exceeds the k-th largest
of theirs with probability at most k / (n + 1). So a rate needs n >= 1 / rate - 1 normals to be promised at all.

A category that has fewer borrows the shape of the tail from all categories (`standing`): each normal's score is told by
the mean and the deviation of the others of its category, and these standings are put together. What is promised then
rests on one assumption: that normal scores, told so, spread alike in all categories. Where a category of 15 normals had
Student's t of 3 degrees of freedom, it was 1.65 % for 1 %. And it holds in the mean over categories: one of 5 normals,
wider than the others, had 1.4 % for 1 % and 6.5 % for 5 %. A tail fitted to each category's few scores would assume
more (its form) and see less (its own images alone).

Thresholds may lie further out than the rate takes (`reach`), where a budget of alarms asks for fewer. Each is then at
or above the one that the rate gives, so what is promised of that holds as it did, whatever the reach was chosen by.
"""

from __future__ import annotations

import itertools
import math
import random
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from pydantic import Field, SerializerFunctionWrapHandler, model_serializer
from scipy.special import ndtr, ndtri, stdtr, stdtrit

from raydiff.errors import DataError
from raydiff.settings import Settings

MAX_SCORES = 10_000  # per category, drawn at random from more; a larger number sharpens no promise
SINGLY = 1_000  # scores; of more than these one says nothing of the others' mean, and is not left out
LIMIT = 8.0  # deviations of the standard normal distribution; beyond, its tail has no digits
PRIOR = 1  # normals' worth of the typical category's deviation in each category's own; more fails those unlike it


class CategoryCalibration(Settings):
    """Normal scores of one category (or of all together) and the threshold they give."""

    scores: tuple[float, ...] = Field(min_length=1)  # ascending
    rate: float = Field(gt=0, lt=1)
    reach: float = Field(1.0, ge=1)  # the threshold's way from the middle of the scores, in ways to the rate's own

    @model_serializer(mode="wrap")
    def _plain(self, plain: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Without a reach of 1, so that a model has the id that it had before there was any other."""
        found: dict[str, Any] = plain(self)
        if self.reach == 1:
            del found["reach"]
        return found

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
        """Scores above it raise an alarm. With too few normals the rate's own is the largest of their scores."""
        return self.of_rate + (self.reach - 1) * self.way

    @property
    def of_rate(self) -> float:
        """The threshold that the rate gives, without a reach."""
        return self.scores[-max(1, math.floor(self.rate * (self.normals + 1) + 1e-9))]

    @property
    def way(self) -> float:
        """From the middle of the normal scores to the threshold that the rate gives; above 0."""
        middle = self.scores[self.normals // 2]
        return max(self.of_rate - middle, 1e-6 * max(abs(middle), 1.0))

    def p_value(self, score: float) -> float:
        """(1 + number of normals that score at least as high) / (n + 1)."""
        return (1 + self.normals - bisect_left(self.scores, score)) / (self.normals + 1)

    def colour_scale(self) -> tuple[float, float]:
        """Ends of a heat map's colours: nothing below the median normal score, half heat at the threshold."""
        low = self.scores[self.normals // 2]
        return low, low + 2 * max(self.threshold - low, 1e-6 * max(abs(low), 1.0))


class Calibration(Settings):
    """Thresholds and p-values per category, with what all categories together say for those with few normals."""

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

    def at(self, rate: float, reach: float = 1.0) -> Calibration:
        """The same normals with the thresholds of another rate, and of a reach."""

        def moved(own: CategoryCalibration) -> CategoryCalibration:
            return CategoryCalibration(scores=own.scores, rate=rate, reach=reach)

        categories = {name: moved(own) for name, own in self.categories.items()}
        shared = self.shared_with_tuning
        return Calibration(rate=rate, categories=categories, all=moved(self.all), shared_with_tuning=shared)

    def of(self, category: str | None) -> CategoryCalibration:
        """What applies to a category: its own scores if they can promise the rate, or the borrowed ones if these can.

        All categories' scores together apply to an image of no known category.
        """
        own = self.categories.get(category or "")
        if own is None:
            return self.all
        borrowed = own if own.promised else self._borrowed(category or "")
        return borrowed if borrowed.promised else own

    def is_own(self, category: str) -> bool:
        """Whether the category's own scores set its threshold."""
        return self.of(category) is self.categories.get(category)

    @cached_property
    def standing(self) -> np.ndarray:
        """All normals' scores, ascending, each told by the others of its category, as if these were many and normal.

        Left out itself, an image stands to the others as a fresh one will stand to all. A score is so many deviations
        above a mean of few, which follows Student's distribution; it is brought to the standard normal one, so that
        categories with few normals and with many can be put together.
        """
        found = []
        for own in self.categories.values():
            scores = np.array(own.scores)
            for place in range(len(scores) if len(scores) > 1 else 0):
                others = np.delete(scores, place) if len(scores) <= SINGLY else scores
                mean, deviation, freedom = self._fitted(others)
                found.append(ndtri(stdtr(freedom, (scores[place] - mean) / deviation)))
        drawn = found if len(found) <= MAX_SCORES else random.Random(0).sample(found, MAX_SCORES)
        return np.sort(np.array(drawn, float))

    @cached_property
    def _typical(self) -> float:
        """The deviation that categories typically have."""
        found = [np.var(own.scores, ddof=1) for own in self.categories.values() if own.normals > 1]
        smallest = 1e-12 * max(1.0, max(abs(score) for score in self.all.scores))
        return max(float(np.exp(np.mean(np.log(np.maximum(found, 1e-300))) / 2)) if found else 0.0, smallest)

    def _fitted(self, scores: np.ndarray) -> tuple[float, float, int]:
        """Mean and deviation by which a fresh score of the category is told, and their degrees of freedom."""
        squares = float(np.square(scores - scores.mean()).sum()) + PRIOR * self._typical**2
        freedom = PRIOR + len(scores) - 1
        return float(scores.mean()), math.sqrt(squares / freedom * (1 + 1 / len(scores))), freedom

    def _borrowed(self, category: str) -> CategoryCalibration:
        """The scores of a category's normals, if they stood to its own few as all categories' normals do to theirs."""
        if category not in self._lent:
            mean, deviation, freedom = self._fitted(np.array(self.categories[category].scores))
            scores = mean + deviation * stdtrit(freedom, ndtr(np.clip(self.standing, -LIMIT, LIMIT)))
            known = scores if len(scores) else np.array(self.categories[category].scores)
            self._lent[category] = CategoryCalibration(
                scores=tuple(known.tolist()), rate=self.rate, reach=self.all.reach
            )
        return self._lent[category]

    @cached_property
    def _lent(self) -> dict[str, CategoryCalibration]:
        return {}

    def sentences(self) -> list[str]:
        """What is promised and what is not, one sentence a category."""
        lines = []
        for name, own in self.categories.items():
            used = self.of(name)
            if used is own and own.promised:
                lines.append(f"{name}: at most {self.rate:.2%} false alarms, from {own.normals} normal images")
            elif used is not own:
                lines.append(
                    f"{name}: {own.normals} normal images are too few to promise {self.rate:.2%} from them alone; at "
                    f"most {self.rate:.2%} false alarms if its normal scores, told by their own mean and deviation, "
                    f"spread as those of all {used.normals} normal images do"
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
        if self.all.reach > 1:
            lines.append(
                f"for a budget of alarms, thresholds lie {self.all.reach:.3g} times as far above the middle of the "
                "normal scores as these rates take"
            )
        return lines
