"""When a part of several views raises an alarm, so that the promised false-alarm rate holds for the part.

Of v views each has its own chance of a false alarm. Bonferroni: the smallest of their p-values, times v, is a p-value
of the part, however its views depend on one another. That holds

- where each view is exchangeable with the n calibration images, which is what is promised of a single image; and
- where the calibration images are views of m parts, v of each at most, and those parts are exchangeable with this one,
  however alike the views of a part are. Be j the number of parts whose worst view scores as high as this part's: then
  v (1 + j) / (n + 1) >= (1 + j) / (m + 1), as n <= v m, and the latter is the conformal p-value of whole parts.

A part of fewer views than calibration's parts had is not covered by the second, nor is an image by its own p-value.

To calibrate on the worst views of whole parts would take as many images (99 parts of six views for a rate of 1 %, where
this takes 599 images) and alarm somewhat more where views are alike. A model keeps its calibration scores without their
parts, and calibration images need not be views of any.

Conformal p-values are steps of 1 / (n + 1), so the corrected one is v / (n + 1) at least. Where that is above the rate,
no score could raise an alarm; such a part has no verdict, because "normal" would say what nobody looked at.
"""

from __future__ import annotations

import math

import numpy as np

SLACK = 1e-9  # relative; more than sums and products of a few floats are off, and less than a step of any p-value


def corrected(p_values: np.ndarray, views: np.ndarray) -> np.ndarray:
    """p-values of parts, (N,).

    Args:
        p_values: (N,), the smallest of each part's views.
        views: (N,), how many each part has, those that could not be scored included: which of them fail may depend on
            what they show.
    """
    return np.minimum(1.0, p_values * views)


def promised(normals: np.ndarray, rate: float) -> np.ndarray:
    """The rate that so many calibration images promise: the wanted one, or the lowest that they can; (N,)."""
    return np.maximum(rate, 1 / (normals + 1))


def alarms(corrected_p_values: np.ndarray, normals: np.ndarray, rate: float) -> np.ndarray:
    """Which parts raise an alarm, (N,) bool; one of a single view does where its image does.

    Args:
        corrected_p_values: (N,), NaN where there is none.
        normals: (N,), calibration images behind each.
        rate: the wanted false-alarm rate.
    """
    return corrected_p_values <= promised(normals, rate) * (1 + SLACK)


def decidable(views: np.ndarray, normals: np.ndarray, rate: float) -> np.ndarray:
    """Whether a score can be so high that a part of so many views raises an alarm, (N,) bool."""
    return alarms(views / (normals + 1), normals, rate)


def normals_needed(views: int, rate: float) -> int:
    """How many calibration images it takes to promise a rate for parts of so many views."""
    return math.ceil(views / rate * (1 - SLACK)) - 1


def views_decided(normals: int, rate: float) -> int:
    """The most views that a part may have and still raise an alarm, by so many calibration images."""
    return math.floor(max(rate, 1 / (normals + 1)) * (normals + 1) * (1 + SLACK))
