"""The images of the runs that the main job would make, by category and role; nothing is written."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa

from raydiff.planning.tuning import TuningSets, tuning_sets
from raydiff.run_folder import ROLES
from raydiff.selection.pseudo_validation import PseudoValidationSettings


@dataclass(frozen=True)
class RunImages:
    """The images of one run."""

    name: str  # the category, or empty for all together
    roles: Mapping[str, int]  # as ROLES; an image that has two counts in both
    sets: TuningSets


def runs_of(
    images: pa.Table, given: Sequence[str], per_category: bool, size: PseudoValidationSettings
) -> list[RunImages]:
    """The runs that the job will make of the images; those without one to fit on are none."""
    counts: Counter[tuple[str, str]] = Counter()
    labels: Counter[tuple[str, int]] = Counter()
    columns = zip(images["category"].to_pylist(), images["label"].to_pylist(), given, strict=True)
    for category, label, role in columns:
        for each in role.split("+"):
            counts[category, each] += 1
        if role == "test" and label is not None:
            labels[category, label] += 1
    categories = sorted({category for category, _ in counts})

    def run(name: str, of: Sequence[str]) -> RunImages:
        held_out = {category: counts[category, "tune"] for category in of}
        normal, anomalous = ({category: labels[category, label] for category in of} for label in (0, 1))
        totals = {role: sum(counts[category, role] for category in of) for role in ROLES}
        return RunImages(name, totals, tuning_sets(held_out, normal, anomalous, size))

    found = [run(category, [category]) for category in categories] if per_category else [run("", categories)]
    return [each for each in found if each.roles["fit"]]


def by_category(images: pa.Table, given: Sequence[str]) -> dict[str, dict[str, int]]:
    """How many images of each category there are, and play which role."""
    found: dict[str, Counter[str]] = {}
    for category, role in zip(images["category"].to_pylist(), given, strict=True):
        found.setdefault(category, Counter()).update(["images", *role.split("+")])
    shown = ("images", *ROLES)
    return {category: {role: counts[role] for role in shown} for category, counts in sorted(found.items())}
