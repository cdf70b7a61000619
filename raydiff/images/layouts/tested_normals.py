"""Normals for the test set, where defects are known and nothing says which normals are to be tested beside them."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping

from raydiff.images.layouts.found import Finding
from raydiff.images.parts import PartPattern
from raydiff.images.whole_groups import nearest

TEST_SHARE = 5  # one normal in so many is a test image


def drawn(normals: Iterable[str], part_from: PartPattern | None = None) -> set[str]:
    """Some of a category's normals, by a hash of their paths, so the same ones each time; no part in part.

    Args:
        part_from: names the part that a path's image shows, if that is to be kept whole.
    """
    paths = sorted(normals, key=lambda path: hashlib.sha256(path.encode()).digest())
    wanted = len(paths) // TEST_SHARE
    if part_from is None:
        return set(paths[:wanted])
    groups: dict[str, list[str]] = defaultdict(list)
    for path in paths:
        part = part_from.part(path)
        groups[f"path {path}" if part is None else f"part {part}"].append(path)
    found = list(groups.values())
    return {path for at in nearest([len(group) for group in found], wanted) for path in found[at]}


def told(counts: Mapping[str, int]) -> list[Finding]:
    """What is said of them; nothing where there are none. `counts` is by category."""
    some = {name: count for name, count in sorted(counts.items()) if count}
    what = "normals that are test images, a fifth of a category's, as no folder is called test"
    shown = tuple(f"{name}: {count}" for name, count in some.items())
    return [Finding(what, shown, sum(some.values()))] if some else []
