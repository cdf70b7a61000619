"""Which normals train, and which are held out to tune and to calibrate."""

from __future__ import annotations

import hashlib
import posixpath
from collections import defaultdict

import pyarrow as pa

from raydiff.errors import SettingsError

ENOUGH_FOR_HALVES = 20  # held-out images of a category


def roles(images: pa.Table, holdout: float = 0.25, seed: int = 0) -> list[str]:
    """The role of each row of an image table.

    - "fit": the model may be trained on it;
    - "tune", "calibrate": held out for pseudo-validation, for the alarm threshold. A category with fewer
      than 20 held-out images uses each of them for both: "tune+calibrate";
    - "test": split test;
    - "unused": anomalous, but in split train.

    In each category the share `holdout` of the normals is held out, rounded down, but at least 2 of 8 or
    more. Which ones is decided by a hash of `seed` and of the path inside the folder that the category's
    normals share: the same images in another place, or beside other categories, play the same roles.

    Raises:
        SettingsError: if `holdout` is not at least 0 and below 1.
    """
    if not 0 <= holdout < 1:
        raise SettingsError(f"holdout is the share of normals held out: at least 0, below 1 (got {holdout})")
    found = ["test"] * len(images)
    normals: dict[str, list[int]] = defaultdict(list)
    columns = [images[name].to_pylist() for name in ("uri", "category", "split", "label")]
    for row, (_, category, split, label) in enumerate(zip(*columns, strict=True)):
        if split == "train" and label == 1:
            found[row] = "unused"
        elif split == "train":
            normals[category].append(row)
    for rows in normals.values():
        held_out = _held_out(len(rows), holdout)
        for place, row in enumerate(_shuffled(rows, columns[0], seed)):
            if place >= held_out:
                found[row] = "fit"
            elif held_out < ENOUGH_FOR_HALVES:
                found[row] = "tune+calibrate"
            else:
                found[row] = ("tune", "calibrate")[place % 2]
    return found


def _held_out(normals: int, holdout: float) -> int:
    share = int(normals * holdout)
    return max(share, 2) if holdout and normals >= 8 else share


def _shuffled(rows: list[int], uris: list[str], seed: int) -> list[int]:
    shared = posixpath.commonprefix([uris[row] for row in rows]).rfind("/") + 1

    def key(row: int) -> bytes:
        return hashlib.sha256(f"{seed}/{uris[row][shared:]}".encode()).digest()

    return sorted(rows, key=key)
