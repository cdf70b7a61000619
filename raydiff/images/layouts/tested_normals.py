"""Normals for the test set, where defects are known and nothing says which normals are to be tested beside them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping

from raydiff.images.layouts.found import Finding

TEST_SHARE = 5  # one normal in so many is a test image


def drawn(normals: Iterable[str]) -> set[str]:
    """Some of a category's normals, by a hash of their paths, so the same ones each time."""
    paths = sorted(normals, key=lambda path: hashlib.sha256(path.encode()).digest())
    return set(paths[: len(paths) // TEST_SHARE])


def told(counts: Mapping[str, int]) -> list[Finding]:
    """What is said of them; nothing where there are none. `counts` is by category."""
    some = {name: count for name, count in sorted(counts.items()) if count}
    what = "normals that are test images, a fifth of a category's, as no folder is called test"
    shown = tuple(f"{name}: {count}" for name, count in some.items())
    return [Finding(what, shown, sum(some.values()))] if some else []
