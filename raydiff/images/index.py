"""`raydiff index`: write the image table, and say what is in it and what is wrong with it."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from rich.console import Console
from rich.table import Table

from raydiff.errors import ImageError, StorageError
from raydiff.images import pages, table
from raydiff.images.decode import decode_noted
from raydiff.images.holdout import roles
from raydiff.images.layouts.folder_names import FolderNames
from raydiff.images.layouts.found import Finding
from raydiff.images.layouts.known import Known
from raydiff.images.levels import Levels, advice
from raydiff.images.mask_faults import OtherSize, fault, one_factor
from raydiff.images.masks import DECODES_AT_ONCE, FETCHES_AT_ONCE, read_mask
from raydiff.images.pages import File, Pages, Shared
from raydiff.images.parts import PartPattern
from raydiff.images.repeats import repeated, thumbnail, to_compare
from raydiff.images.survey import AS_FOLDERS_SAY, survey
from raydiff.progress import console, phase

NAMES_PRINTED = 5  # of each kind of finding


class Group(NamedTuple):
    """The images that share category, split and defect."""

    category: str
    split: str
    defect: str | None  # None: unknown
    images: int
    masks: int


class Problem(NamedTuple):
    """A file that cannot be used, and why."""

    uri: str
    reason: str


class Look(NamedTuple):
    """What is wrong with a row's image, and with its mask."""

    image: Problem | None = None
    mask: Problem | None = None
    other_size: OtherSize | None = None  # of the mask than of the image
    note: Problem | None = None  # what is odd about an image that can be read all the same
    thumbnail: np.ndarray | None = None  # see `repeats`
    highest: int | None = None  # of the values stored in a 16-bit file


@dataclass(frozen=True)
class IndexReport:
    """What `index` found."""

    table_uri: str
    layout: str
    groups: tuple[Group, ...]
    without_normals: tuple[str, ...]  # categories that have nothing to train on
    unlabelled: tuple[str, ...]  # uris of images in train that may be defects
    without_mask: tuple[str, ...]  # uris of anomalous images
    checked: bool  # whether the files were read; if not, the next four are empty
    unreadable: tuple[Problem, ...]  # images; they stay in the table and become rows with an error
    noted: tuple[Problem, ...]  # images that can be read all the same
    bad_masks: tuple[Problem, ...]  # unreadable, all black, or of another size than their image
    other_sizes: tuple[OtherSize, ...]  # of those masks that have another size than their image
    ignored: tuple[str, ...]  # these four as in `found.Found`
    misplaced: tuple[str, ...]
    unused_masks: tuple[str, ...]
    findings: tuple[Finding, ...]
    depths: Mapping[str, tuple[int, int]] = field(default_factory=dict)  # of a category's 16-bit files: highest, number
    levels: Levels | None = None  # with which the images were read
    layout_name: str | None = None  # these two as in `found.Found`
    why: str | None = None


def index(
    data_uri: str,
    out_uri: str,
    score_uri: str | None = None,
    check: bool = True,
    named: FolderNames = AS_FOLDERS_SAY,
    part_from: PartPattern | None = None,
    levels: Levels | None = None,
    which: Pages | None = None,
    layout: Known | None = None,
) -> IndexReport:
    """Write the image table of `data_uri` and `score_uri` (see `survey.find_images`) to the file `out_uri`.

    With `check`, every image and mask is fetched and decoded once, by `levels` if there are any, and held-out images
    that repeat images to train on are looked for.

    Args:
        which: which pages of a file are images; by default a file of several is none.
        layout: as of `survey.find_images`.

    Raises:
        SettingsError: if there are levels of a category that is not there.
        DataError: if the layout is none that is known, or not clear.
        StorageError: if a folder cannot be listed or the table cannot be written.
    """
    found = survey(data_uri, score_uri, named, part_from, which, layout)
    if levels:
        levels.check(found.images["category"].unique().to_pylist())
    table.write(out_uri, found.images)
    given = roles(found.images)
    compared = to_compare(found.images, given)
    thumbnails: dict[str, np.ndarray] = {}
    images: Counter[tuple[str, str, str | None]] = Counter()
    masks: Counter[tuple[str, str, str | None]] = Counter()
    normals: Counter[str] = Counter()
    unlabelled: list[str] = []
    without_mask: list[str] = []
    unreadable: list[Problem] = []
    noted: list[Problem] = []
    bad_masks: list[Problem] = []
    other_sizes: list[OtherSize] = []
    depths: dict[str, tuple[int, int]] = {}
    look = partial(examine, threading.Semaphore(DECODES_AT_ONCE), levels=levels, fetch=Shared())
    with phase("index", total=len(found.images)) as progress, ThreadPoolExecutor(FETCHES_AT_ONCE) as pool:
        # In batches, so that not all wait in the pool's queue.
        for batch in found.images.select(table.SCHEMA.names).to_batches(table.ROW_GROUP):
            rows = batch.to_pylist()
            wanted = [row["uri"] in compared for row in rows]
            looks = pool.map(look, rows, wanted) if check else [Look()] * len(rows)
            for row, found_out in zip(rows, looks, strict=True):
                key = (row["category"], row["split"], row["defect"])
                images[key] += 1
                masks[key] += row["mask_uri"] is not None
                normals[row["category"]] += row["split"] == "train" and row["label"] == 0
                if row["split"] == "train" and row["label"] is None:
                    unlabelled.append(row["uri"])
                if row["label"] == 1 and row["mask_uri"] is None:
                    without_mask.append(row["uri"])
                if found_out.image:
                    unreadable.append(found_out.image)
                if found_out.thumbnail is not None:
                    thumbnails[row["uri"]] = found_out.thumbnail
                if found_out.highest is not None:
                    highest, count = depths.get(row["category"], (0, 0))
                    depths[row["category"]] = max(highest, found_out.highest), count + 1
                if found_out.note:
                    noted.append(found_out.note)
                if found_out.mask:
                    bad_masks.append(found_out.mask)
                if found_out.other_size:
                    other_sizes.append(found_out.other_size)
                progress.advance(note=f"{len(unreadable)} unreadable" if unreadable else "")
    repeats = repeated(found.images, given, thumbnails)
    order = sorted(images, key=lambda key: (key[0], key[1] == "test", key[2] or ""))
    return IndexReport(
        table_uri=out_uri,
        layout=found.layout,
        groups=tuple(Group(*key, images[key], masks[key]) for key in order),
        without_normals=tuple(sorted(category for category, count in normals.items() if not count)),
        unlabelled=tuple(unlabelled),
        without_mask=tuple(without_mask),
        checked=check,
        unreadable=tuple(unreadable),
        noted=tuple(noted),
        bad_masks=tuple(bad_masks),
        other_sizes=tuple(other_sizes),
        ignored=found.ignored,
        misplaced=found.misplaced,
        unused_masks=found.unused_masks,
        findings=(*found.findings, repeats) if repeats else found.findings,
        depths=depths,
        levels=levels,
        layout_name=found.layout_name,
        why=found.why,
    )


def print_report(report: IndexReport, to: Console = console) -> None:
    """Print a report: the counts as a table, then what deserves attention, with a few names each."""
    counts = Table("category", "split", "defect")
    counts.add_column("images", justify="right")
    counts.add_column("masks", justify="right")
    category = None
    for group in report.groups:
        if group.category != category:
            counts.add_section()
            category = group.category
        numbers = (str(group.images), str(group.masks or ""))
        counts.add_row(group.category, group.split, group.defect or "unknown", *numbers)
    to.print(counts)
    total = sum(group.images for group in report.groups)
    if report.layout_name:
        to.print(f"layout: {report.layout_name}, {report.why}", markup=False)
    to.print(f"{total} images ({report.layout}), in {report.table_uri}", markup=False)
    if not report.checked:
        to.print("the files were not read, so unreadable ones are not known", markup=False)
    if report.levels:
        to.print(f"images were read with {report.levels.option()}: train with it, too", markup=False)
    for what, names, number in attention(report):
        # Bold, and one below the other at the end, so that no eye slides over it.
        to.print(f"{what}: {number}", style="bold", markup=False)
        for name in names[:NAMES_PRINTED]:
            to.print(f"    {name}", markup=False)
        if len(names) > NAMES_PRINTED:
            to.print(f"    and {len(names) - NAMES_PRINTED} more", markup=False)


def attention(report: IndexReport) -> list[Finding]:
    """What deserves attention: of the layout, of the images and masks themselves, and what has no place."""
    found = (
        ("categories with no normals to train on", report.without_normals),
        ("images of unknown label under train, neither trained on nor tested", report.unlabelled),
        ("anomalous images without a mask, left out of pixel metrics", report.without_mask),
        ("unreadable images, they will be rows with an error", _lines(report.unreadable)),
        ("images that are odd, but can be read", _lines(report.noted)),
        ("masks that cannot be used, their images are left out of pixel metrics", _lines(report.bad_masks)),
        ("masks without an image", report.unused_masks),
        ("images at no place that has a meaning, left out", report.misplaced),
        ("files that are no images, left out", report.ignored),
    )
    findings = [*report.findings]
    findings += [Finding(what, tuple(names), len(names)) for what, names in found if names]
    if not report.levels:
        for said, names in advice({category: highest for category, (highest, _) in report.depths.items()}):
            findings.append(Finding(said, (), sum(report.depths[category][1] for category in names)))
    if said := one_factor(report.other_sizes):
        findings.append(Finding("masks of another size than their image", (said,), len(report.other_sizes)))
    return findings


def _lines(problems: tuple[Problem, ...]) -> tuple[str, ...]:
    return tuple(f"{problem.uri}: {problem.reason}" for problem in problems)


def examine(
    decoding: threading.Semaphore,
    row: dict[str, Any],
    compared: bool = False,
    levels: Levels | None = None,
    fetch: Callable[[str], File] = pages.read,
) -> Look:
    """Read a row's image, by `fetch`, and its mask once; `compared`: with the image's thumbnail."""
    try:
        data = fetch(row["uri"])
        with decoding:
            pixels, said, highest, _ = decode_noted(data.data, levels=Levels.of_row(row, levels), page=data.page)
            highest = highest if row.get(table.BIT_DEPTH) is None else None  # whose depth its row says is not dark
            shape = pixels.shape
            small = thumbnail(pixels) if compared else None
            del pixels  # a hundred times its file
    except (ImageError, StorageError) as error:
        return Look(Problem(row["uri"], str(error)))
    note = Problem(row["uri"], said) if said else None
    if row["mask_uri"] is None:
        return Look(note=note, thumbnail=small, highest=highest)
    try:
        mask = read_mask(row["mask_uri"], decoding)
    except (ImageError, StorageError) as error:
        return Look(mask=Problem(row["mask_uri"], str(error)), note=note, thumbnail=small, highest=highest)
    found = fault(mask, shape)
    if not found:
        return Look(note=note, thumbnail=small, highest=highest)
    other = found if isinstance(found, OtherSize) else None
    return Look(None, Problem(row["mask_uri"], str(found)), other, note, small, highest)
