"""The pseudo-validation set: held-out normals and anomalies made of them (LafitE section 3.4). No real defect in it.

It is small and bounded, so that all trials of a tuning can share its examples in memory.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from pydantic import Field

from raydiff.errors import DataError
from raydiff.methods.base import Method, ScoreSettings
from raydiff.model.scored import Scored
from raydiff.model.scorer import Inputs, inputs_of, score_inputs
from raydiff.selection.criterion import masks_in_cells
from raydiff.settings import Settings
from raydiff.synthesis.made import MadeAnomalies, make_set
from raydiff.views.roi import inside_of

DECILES = np.linspace(0, 1, 11)


class PseudoValidationSettings(Settings):
    """Size of the pseudo-validation set."""

    normals: int = Field(24, ge=2)  # most held-out normal images per category
    anomalies: int = Field(40, ge=2)  # anomalies made per category

    @classmethod
    def at_most(cls, images: int | None) -> PseudoValidationSettings:
        """With a bound on both, or as usual.

        Raises:
            SettingsError: if it is below two.
        """
        return cls.parse({} if images is None else dict.fromkeys(("normals", "anomalies"), images))


class LabelledImages(NamedTuple):
    """Images of one category."""

    category: str
    images: np.ndarray  # (N, H, W, 3 or 4) uint8, as the method's view has them
    labels: np.ndarray  # (N,) of bool, True = anomalous
    masks: np.ndarray  # (N, H, W) of bool, empty where there is none


@dataclass(frozen=True)
class ScoringSet:
    """Images with labels, as examples that every trial scores anew under its own settings."""

    inputs: Inputs
    categories: np.ndarray  # (N,) of str
    labels: np.ndarray  # (N,) of bool, True = anomalous
    masks: np.ndarray  # (N, c, c) of bool, where the anomaly lies (see `masks_in_cells`); empty where that is not known

    def counts(self) -> dict[str, tuple[int, int]]:
        """Normal and anomalous images per category."""
        found = {}
        for category in np.unique(self.categories):
            labels = self.labels[self.categories == category]
            found[str(category)] = (int((~labels).sum()), int(labels.sum()))
        return found

    def scored(self, method: Method, score: ScoreSettings) -> Scored:
        """The set under these score settings."""
        return score_inputs(method, self.inputs, score)

    def part(self, rows: np.ndarray) -> ScoringSet:
        """The images in these rows alone."""
        if len(rows) == len(self.labels):
            return self
        return ScoringSet(self.inputs.part(rows), self.categories[rows], self.labels[rows], self.masks[rows])

    def rungs(self, shares: Sequence[float]) -> list[np.ndarray]:
        """Rows to be scored one part after the other, each row once.

        After each part the share's part of every category's normal images and of its anomalies has been scored, one of
        each at least. Which ones is drawn by the images' keys, so it is the same in every trial.

        Args:
            shares: ascending, the last 1.
        """
        keys = self.inputs.image_keys
        part = np.empty(len(keys), int)
        for category, label in set(zip(self.categories, self.labels, strict=True)):
            rows = np.flatnonzero((self.categories == category) & (self.labels == label))
            ends = [math.ceil(share * len(rows)) for share in shares]
            order = sorted(rows, key=lambda row: keys[row])
            part[order] = np.searchsorted(ends, np.arange(len(rows)), side="right")
        return [np.flatnonzero(part == number) for number in range(len(shares))]

    def normal_details(
        self, details: Mapping[str, np.ndarray], seen: np.ndarray | None = None
    ) -> dict[str, list[float]]:
        """Deciles, least to greatest, of each detail over the normal images that were `seen` ((N,) of bool)."""
        rows = ~self.labels if seen is None else ~self.labels & seen
        return {name: np.quantile(values[rows], DECILES).tolist() for name, values in details.items()}

    def digest(self) -> str:
        """A hash of the images (their pixels), categories, labels and masks, in their order."""
        told = zip(self.inputs.image_keys, self.categories.tolist(), self.labels.tolist(), strict=True)
        return hashlib.sha256(json.dumps(list(told)).encode() + np.packbits(self.masks).tobytes()).hexdigest()


def pseudo_validation_set(
    method: Method, normals: Mapping[str, np.ndarray], settings: PseudoValidationSettings, seed: int
) -> ScoringSet:
    """Held-out normals of each category and anomalies made of them.

    Args:
        normals: per category uint8 (N, H, W, 3 or 4) images as the method's view has them, N >= 2.

    Raises:
        DataError: if no category has two images (an anomaly is cut from one and pasted on another).
    """
    parts = []
    for number, (category, images) in enumerate(sorted(normals.items())):
        if len(images) < 2:
            continue
        kept = images[: settings.normals]
        made = made_of(images, settings, seed + number)
        masks = np.concatenate([np.zeros(kept.shape[:3], bool), made.masks])
        labels = np.arange(len(masks)) >= len(kept)
        parts.append(LabelledImages(category, np.concatenate([kept, made.images]), labels, masks))
    if not parts:
        raise DataError("no category has two held-out normal images, so no anomaly can be made to tune on; add normals")
    return scoring_set(method, parts)


def made_of(images: np.ndarray, settings: PseudoValidationSettings, seed: int) -> MadeAnomalies:
    """Anomalies made of one category's normal images (N, H, W, 3 or 4), uint8; none of a single image.

    Of images that are looked at in part they lie in that part, and have the fourth channel, too.
    """
    kept = images[: settings.normals]
    if len(kept) < 2:
        return MadeAnomalies(kept[:0], np.zeros(kept[:0].shape[:3], bool), [])
    made = make_set(kept[..., :3], settings.anomalies, seed, inside=inside_of(kept))
    beside = kept[np.arange(len(made.images)) % len(kept), ..., 3:]
    return made._replace(images=np.concatenate([made.images, beside], 3))


def scoring_set(method: Method, parts: Sequence[LabelledImages]) -> ScoringSet:
    """A scoring set of labelled images, part by part."""
    side = method.settings.image_size
    return ScoringSet(
        inputs=inputs_of(method, [image for part in parts for image in part.images]),
        categories=np.repeat([part.category for part in parts], [len(part.images) for part in parts]),
        labels=np.concatenate([part.labels for part in parts]),
        masks=np.concatenate([masks_in_cells(part.masks, side) for part in parts]),
    )
