"""Which normals train, and which are held out to tune and to calibrate."""

from __future__ import annotations

import hashlib
import posixpath
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Sequence
from typing import Any

import pyarrow as pa

from raydiff.errors import DataError, SettingsError
from raydiff.images import table
from raydiff.images.whole_groups import halves, nearest

ENOUGH_TO_HOLD_OUT = 8  # normals of a category, of which two are held out at least
ENOUGH_FOR_HALVES = 20  # held-out images of a category
ENOUGH_TO_TUNE = 2  # held-out images of a category: an anomaly is made of two
ENOUGH_GROUPS = 4  # parts, or blocks of time, of a category, of which two are held out and two are left at least
BLOCKS = 32  # of consecutive time, at most, of a category
BLOCK_IMAGES = 4  # of such a block at least, where that leaves blocks enough
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

    Where a category's images are of known parts (column `part`), whole parts are held out, about as many images as that
    share (see `whole_groups`), and an image of no known part is one of its own. Without parts but with times (column
    `time`) they are blocks of consecutive time. Neither a part nor a block is ever in two roles. Halves that whole
    groups do not give, with an image for the threshold and two to tune on, are "tune+calibrate" too.

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
        if groups := _groups(images, rows, columns[0], seed):
            for row, role in _by_groups(groups, held_out):
                found[row] = role
            continue
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
        return not (fit and calibrate and any(counts[name]["tune"] >= ENOUGH_TO_TUNE for name in run))

    runs = [[name] for name in counts] if per_category else [list(counts)]
    short = sorted(name for run in runs if lacks(run) for name in run)
    pairs = zip(images["category"].to_pylist(), given, strict=True)
    held_out = {category for category, role in pairs if role in ("tune", "calibrate", "tune+calibrate")}
    one_part = [name for name in short if counts[name]["normals"] >= ENOUGH_TO_HOLD_OUT and name not in held_out]
    if one_part:
        raise DataError(
            f"all normal images of {one_part[0]} ({counts[one_part[0]]['normals']}) show one part, and parts are held "
            "out whole for tuning and calibration; give images of more parts, or mend what says the part (column part "
            "or --part-from)"
        )
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
    return sorted(rows, key=lambda row: _drawn(uris[row][shared:], seed))


def _drawn(name: str, seed: int) -> bytes:
    return hashlib.sha256(f"{seed}/{name}".encode()).digest()


def _groups(images: pa.Table, rows: list[int], uris: list[str], seed: int) -> list[list[int]]:
    """A category's rows by the part that they show, or else by blocks of time; in an order that `seed` draws.

    There are none where neither is known.
    """
    shared = posixpath.commonprefix([uris[row] for row in rows]).rfind("/") + 1
    named: dict[str, list[int]] = defaultdict(list)

    def known(column: str) -> dict[int, Any]:
        values = images[column].take(rows).to_pylist() if column in images.column_names else []
        return {row: value for row, value in zip(rows, values, strict=False) if value is not None}

    if parts := known(table.PART):
        for row in rows:
            named[f"part {parts[row]}" if row in parts else f"image {uris[row][shared:]}"].append(row)
    elif times := known(table.TIME):
        ordered = sorted(times, key=lambda row: (times[row], uris[row]))
        count = min(len(ordered), BLOCKS, max(len(ordered) // BLOCK_IMAGES, ENOUGH_GROUPS))
        for place, row in enumerate(ordered):
            named[f"block {place * count // len(ordered)}"].append(row)
        for row in rows:
            if row not in times:
                named[f"image {uris[row][shared:]}"].append(row)
    return [named[name] for name in sorted(named, key=lambda name: _drawn(name, seed))]


def _by_groups(groups: list[list[int]], wanted: int) -> Iterator[tuple[int, str]]:
    """Each row of a category's groups and its role, `wanted` of them held out or about as many."""
    two = wanted >= ENOUGH_FOR_HALVES and len(groups) >= ENOUGH_GROUPS
    places = nearest([len(group) for group in groups], wanted, least=2 if two else 1)
    taken = set(places)
    yield from ((row, "fit") for at, group in enumerate(groups) if at not in taken for row in group)
    held_out = [groups[at] for at in places]
    calibrate, tune = halves([len(group) for group in held_out])
    both = sum(map(len, held_out)) < ENOUGH_FOR_HALVES or sum(len(held_out[at]) for at in tune) < ENOUGH_TO_TUNE
    for role, side in (("calibrate", calibrate), ("tune", tune)):
        yield from ((row, "tune+calibrate" if both else role) for at in side for row in held_out[at])
