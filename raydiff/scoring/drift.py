"""Whether scores have left those of the normal images that a model was calibrated on: counts, in bounded memory."""

from __future__ import annotations

import numpy as np
from pydantic import BaseModel, ConfigDict
from scipy.special import kolmogorov

from raydiff.model.calibration import CategoryCalibration

# A real archive has some defects, and over millions of images the slightest difference is significant. So a category
# has drifted only if the difference is no chance and also large: a share of .1 of the images lies elsewhere.
DRIFT_P_VALUE = 0.001
DRIFT_DISTANCE = 0.1


class Drift(BaseModel):
    """One category's scores against its held-out normals', or all categories' (two-sample Kolmogorov-Smirnov)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    category: str
    images: int  # scored
    normals: int  # scores that these are held against
    distance: float  # largest difference of the two cumulative distributions, 0 to 1
    p_value: float  # asymptotic
    drifted: bool

    def sentence(self) -> str:
        """That the scores have left the calibration's, and what may be behind it; for one that has `drifted`."""
        distance = f"{self.distance:.2f}".removeprefix("0")
        return (
            f"scores of {self.category} have left the calibration's (distance {distance} over {self.images:,} "
            "images): lighting, camera or product may have changed, or many images show defects; look at images, and "
            "calibrate anew if their products are good"
        )


class DriftCounts:
    """Where one category's scores lie among its n calibration scores: counts, from which the distance is exact.

    Scores rather than p-values, which do not tell a score equal to a calibration score from one just below it.
    """

    def __init__(self, calibration: CategoryCalibration) -> None:
        self.normals = np.array(calibration.scores)
        self.by_lower = np.zeros(len(self.normals) + 1, np.int64)  # [j]: scores above exactly j normal ones
        self.by_lower_or_equal = np.zeros_like(self.by_lower)  # [j]: scores that at least equal exactly j normal ones

    def add(self, scores: np.ndarray) -> None:
        """Count some scores (N,)."""
        np.add.at(self.by_lower, np.searchsorted(self.normals, scores, "left"), 1)
        np.add.at(self.by_lower_or_equal, np.searchsorted(self.normals, scores, "right"), 1)

    def drift(self, category: str) -> Drift:
        """What the counts say, of one score or more."""
        n, m = len(self.normals), int(self.by_lower.sum())
        # Between two normal scores the normals' distribution is flat and the other only rises, so the two are farthest
        # apart at a normal score x or just before it. A score is <= x (< x) if it is above (at least equal to) no more
        # normals than are below x.
        before = np.searchsorted(self.normals, self.normals, "left")
        until = np.searchsorted(self.normals, self.normals, "right")
        at = np.abs(np.cumsum(self.by_lower)[before] / m - until / n)
        just_before = np.abs(np.cumsum(self.by_lower_or_equal)[before] / m - before / n)
        distance = float(max(at.max(), just_before.max()))
        p_value = float(kolmogorov(distance * np.sqrt(n * m / (n + m))))
        return Drift(
            category=category,
            images=m,
            normals=n,
            distance=distance,
            p_value=p_value,
            drifted=p_value < DRIFT_P_VALUE and distance > DRIFT_DISTANCE,
        )
