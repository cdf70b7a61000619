"""What a recipe is: a published result, and the settings that are meant to make it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from raydiff import methods
from raydiff.benchmark.spec import Spec
from raydiff.settings import Settings

MEAN = "mean"  # the name under which the mean over categories is published
Published = dict[str, dict[str, float]]  # by category, or MEAN, and by metric as results name it; each in [0, 1]


class Recipe(Settings):
    """A published result and how it is made.

    The settings are the method's preset `paper` with `settings` over it. Score settings are chosen on made anomalies,
    as raydiff always does, even where the authors chose them by test labels: what that costs is part of the result.
    """

    title: str
    method: str
    settings: dict[str, Any]
    per_category: bool  # a model for each category, or one for all
    evaluation_size: int | None  # the side that the authors resize maps and masks to; None: the images' own
    published: Published
    source: str  # of the published numbers
    hardware: str  # that the authors name, or users of their code report
    hours: str  # of training there
    measured: str = "not run"

    def spec(self, data: str, preset: str = "paper", changes: Mapping[str, Any] | None = None, **values: Any) -> Spec:
        """The benchmark that measures it.

        Args:
            data: the data set's folder.
            preset: another one measures something else than was published, as changes do.
            changes: train settings laid over the recipe's.
            values: further fields of `Spec`.

        Raises:
            SettingsError: if a setting is unknown or out of range.
        """
        settings = methods.merged(self.settings, changes or {})
        contender = {"method": self.method, "preset": preset, "settings": settings}
        given = {
            "data": {"data": data},
            "contenders": {self.method: contender},
            "per_category": self.per_category,
            "size": self.evaluation_size,
        }
        return Spec.parse(given | values)
