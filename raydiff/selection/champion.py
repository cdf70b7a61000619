"""Which of several models is chosen for the archive: the one that does best on made anomalies. No label decides.

A method that was trained on made anomalies finds others of them better than it finds defects: in the demo
`diffusion_ad` had the highest score on them, and by far not on the test set. So where there is a model that never saw
one, such a method is not chosen.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

REFERENCE = "nearest_patch"  # wins a tie: it is the cheaper one


def champion(tunings: Mapping[str, Mapping[str, Any]]) -> str:
    """The name of the model with the highest pseudo-validation score in its tuning's result."""
    return max(
        tunings,
        key=lambda name: (
            not tunings[name]["saw_made_anomalies"],
            tunings[name]["pseudo_score"],
            name == REFERENCE,
        ),
    )


def passed_over(tunings: Mapping[str, Mapping[str, Any]], chosen: str) -> list[str]:
    """The models with a higher score than the chosen one, which were trained on made anomalies as that was not."""
    least, saw = (tunings[chosen][name] for name in ("pseudo_score", "saw_made_anomalies"))
    higher = (name for name, tuning in tunings.items() if tuning["pseudo_score"] > least)
    return sorted(name for name in higher if tunings[name]["saw_made_anomalies"] and not saw)


def sentences(tunings: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """What is to be said of the choice."""
    chosen = champion(tunings)
    return [f"chosen by pseudo-validation, without a label: {chosen}"] + [
        f"{name} found more made anomalies, but was trained on such, so it was not chosen: that says less of defects"
        for name in passed_over(tunings, chosen)
    ]
