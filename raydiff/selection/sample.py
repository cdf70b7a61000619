"""A bounded sample of an image table."""

from __future__ import annotations

import hashlib

import pyarrow as pa

from raydiff import storage


def sample(images: pa.Table, most: int) -> dict[str, pa.Table]:
    """At most so many rows of each category, evenly drawn by the hash of the file's name."""
    order = sorted(
        range(images.num_rows),
        key=lambda row: hashlib.sha256(storage.name(images["uri"][row].as_py()).encode()).digest(),
    )
    rows: dict[str, list[int]] = {}
    for row in order:
        rows.setdefault(images["category"][row].as_py(), []).append(row)
    return {category: images.take(found[:most]) for category, found in sorted(rows.items())}
