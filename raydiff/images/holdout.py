"""Which normals train, and which are held out to tune and to calibrate."""

from __future__ import annotations

import hashlib
import posixpath
from collections import Counter, defaultdict
from collections.abc import Collection, Sequence

import pyarrow as pa

from raydiff.errors import DataError, SettingsError

ENOUGH_TO_HOLD_OUT = 8  # normals of a category, of which two are held out at least
ENOUGH_FOR_HALVES = 20  # held-out images of a category
CATEGORIES_NAMED = 5  # of those that have too few


def roles(images: pa.Table, holdout: float = 0.25, seed: int = 0) -> list[str]:
    """The role of each row of an image table.

    - "fit": the model may be trained on it;
    - "tune", "calibrate": held out for pseudo-validation, for the alarm threshold. A category with fewer
      than 20 held-out images uses each of them for both: "tune+calibrate";
    - "test": split test;
    - "unused": anomalous, or of unknown label, but in split train: what may be a defect is not learned as a normal.

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
        if split == "train" and label != 0:
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


def check_enough(
    images: pa.Table, given: Sequence[str], per_category: bool = False, unreadable: Collection[str] = ()
) -> None:
    """Whether there are normals enough to fit, to tune on and to calibrate with, so that no step ends for want of them.

    An anomaly is made of two images, so some category has to have two of them to tune on; any one calibrates.

    Args:
        images: an image table.
        given: the role of each of its rows.
        per_category: a run for each category that has images to fit, and so each has to have enough.
        unreadable: uris that cannot be read, and so count for nothing.

    Raises:
        DataError: naming the categories that have too few, and how many are needed.
    """
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    lost: Counter[str] = Counter()
    for uri, category, role in zip(images["uri"].to_pylist(), images["category"].to_pylist(), given, strict=True):
        if role not in ("test", "unused"):
            lost[category] += uri in unreadable
            counts[category].update([] if uri in unreadable else ["normals", *role.split("+")])
    if not any(each["normals"] for each in counts.values()):
        found = f"all {lost.total()} that were found cannot be read" if lost.total() else "none was found"
        raise DataError(f"there is no normal image to train on ({found}); `raydiff index` shows what there is")

    def lacks(run: Collection[str]) -> bool:
        fit, calibrate = (any(counts[name][role] for name in run) for role in ("fit", "calibrate"))
        return not (fit and calibrate and any(counts[name]["tune"] >= 2 for name in run))

    runs = [[name] for name in counts] if per_category else [list(counts)]
    short = sorted(name for run in runs if lacks(run) for name in run)
    if short:
        shown = ", ".join(
            f"{name} {counts[name]['normals']}{_unreadable(lost[name])}" for name in short[:CATEGORIES_NAMED]
        )
        more = f" and {len(short) - CATEGORIES_NAMED} more" if len(short) > CATEGORIES_NAMED else ""
        which = "each category, because each has a model of its own (or leave --per-category out)"
        raise DataError(
            f"too few normal images to hold some out for tuning and calibration ({shown}{more}); give at least "
            f"{ENOUGH_TO_HOLD_OUT} that can be read of {which if per_category else 'one category'}"
        )


def _unreadable(count: int) -> str:
    return f" and {count} that cannot be read" if count else ""


def _held_out(normals: int, holdout: float) -> int:
    share = int(normals * holdout)
    return max(share, 2) if holdout and normals >= ENOUGH_TO_HOLD_OUT else share


def _shuffled(rows: list[int], uris: list[str], seed: int) -> list[int]:
    shared = posixpath.commonprefix([uris[row] for row in rows]).rfind("/") + 1

    def key(row: int) -> bytes:
        return hashlib.sha256(f"{seed}/{uris[row][shared:]}".encode()).digest()

    return sorted(rows, key=key)
