"""The pseudo-validation set: held-out normals and anomalies made of them (LafitE section 3.4). No real defect in it.

It is small and bounded, so that all trials of a tuning can share its examples in memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from pydantic import Field
from torch import Tensor

from raydiff.errors import DataError
from raydiff.methods.base import Method, ScoreSettings
from raydiff.metrics import auroc
from raydiff.scoring.scored import Scored
from raydiff.scoring.scorer import examples_of, image_key, score_examples
from raydiff.settings import Settings
from raydiff.synthesis.fragments import make_set

DECILES = np.linspace(0, 1, 11)


class PseudoValidationSettings(Settings):
    """Size of the pseudo-validation set."""

    normals: int = Field(24, ge=2)  # most held-out normal images per category
    anomalies: int = Field(40, ge=2)  # anomalies made per category


@dataclass(frozen=True)
class ScoringSet:
    """Images with labels, as examples that every trial scores anew under its own settings."""

    examples: Tensor
    keys: list[str]
    categories: np.ndarray  # (N,) of str
    labels: np.ndarray  # (N,) of bool, True = anomalous

    def counts(self) -> dict[str, tuple[int, int]]:
        """Normal and anomalous images per category."""
        found = {}
        for category in np.unique(self.categories):
            labels = self.labels[self.categories == category]
            found[str(category)] = (int((~labels).sum()), int(labels.sum()))
        return found

    def scored(self, method: Method, score: ScoreSettings) -> Scored:
        """The set under these score settings."""
        return score_examples(method, self.examples, self.keys, score)

    def auroc_by_category(self, scores: np.ndarray) -> dict[str, float]:
        """Image AUROC of each category that has images of both kinds."""
        both = {name: rows for name in self.counts() if min(self.counts()[name]) and (rows := self._rows(name)).any()}
        return {name: auroc(scores[rows], self.labels[rows]) for name, rows in both.items()}

    def normal_details(self, details: Mapping[str, np.ndarray]) -> dict[str, list[float]]:
        """Deciles, least to greatest, of each detail over the normal images."""
        return {name: np.quantile(values[~self.labels], DECILES).tolist() for name, values in details.items()}

    def _rows(self, category: str) -> np.ndarray:
        rows: np.ndarray = self.categories == category
        return rows


def pseudo_validation_set(
    method: Method, normals: Mapping[str, np.ndarray], settings: PseudoValidationSettings, seed: int
) -> ScoringSet:
    """Held-out normals of each category and anomalies made of them.

    Args:
        normals: per category uint8 (N, S, S, 3) images at the method's size, N >= 2.

    Raises:
        DataError: if no category has two images (an anomaly is cut from one and pasted on another).
    """
    parts = []
    for number, (category, images) in enumerate(sorted(normals.items())):
        if len(images) < 2:
            continue
        kept = images[: settings.normals]
        per_image = -(-settings.anomalies // len(kept))
        made = make_set(kept, per_image, seed + number).images[: settings.anomalies]
        parts.append((category, np.concatenate([kept, made]), np.arange(len(kept) + len(made)) >= len(kept)))
    if not parts:
        raise DataError("no category has two held-out normal images, so no anomaly can be made to tune on; add normals")
    return scoring_set(method, parts)


def scoring_set(method: Method, parts: Iterable[tuple[str, np.ndarray, np.ndarray]]) -> ScoringSet:
    """A scoring set of (category, images, labels) parts."""
    names, stacks, labels = zip(*parts, strict=True)
    images = np.concatenate(stacks)
    return ScoringSet(
        examples=examples_of(method, images),
        keys=[image_key(image) for image in images],
        categories=np.repeat(np.array(names, object), [len(stack) for stack in stacks]).astype(str),
        labels=np.concatenate(labels).astype(bool),
    )
