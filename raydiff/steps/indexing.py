"""What a run is made of: its image table, and the role of each image."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

from raydiff import storage
from raydiff.at_work import at_work
from raydiff.errors import CHECK_FILES, DataError, of_file
from raydiff.images import table
from raydiff.images.holdout import check_enough as check_normals
from raydiff.images.holdout import roles
from raydiff.images.index import IndexReport, Problem
from raydiff.images.index import index as index_images
from raydiff.images.layouts.folder_names import FolderNames
from raydiff.images.layouts.known import Known
from raydiff.images.levels import Levels
from raydiff.images.pages import Pages
from raydiff.images.parts import PartPattern
from raydiff.images.survey import AS_FOLDERS_SAY
from raydiff.progress import console
from raydiff.run_folder import ROLES, RunFolder

BOTH = "tune+calibrate"  # a category too small to be held out twice


def index(
    data: str,
    out: str,
    score: str | None = None,
    named: FolderNames = AS_FOLDERS_SAY,
    part_from: PartPattern | None = None,
    levels: Levels | None = None,
    pages: Pages | None = None,
    layout: Known | None = None,
) -> IndexReport:
    """Find the images of `data`, write the image table and give each image its role.

    Args:
        named, part_from, pages, layout: as of `find_images`.
        levels: which stored values are black and white, to look at the images as training will.
    """
    run = RunFolder(out)
    storage.probe(data)
    storage.probe(run.uri)
    if score:
        storage.probe(score)
    with at_work(run.uri):
        return _indexed(run, data, score, named, part_from, levels, pages, layout)


def _indexed(
    run: RunFolder,
    data: str,
    score: str | None,
    named: FolderNames,
    part_from: PartPattern | None,
    levels: Levels | None,
    pages: Pages | None,
    layout: Known | None,
) -> IndexReport:
    report = index_images(
        data, run.images, score, named=named, part_from=part_from, levels=levels, which=pages, layout=layout
    )
    images = table.read(run.images)
    given = pa.array(roles(images))
    counts = []
    for role in ROLES:
        wanted = pa.array([role, BOTH] if role in BOTH.split("+") else [role])
        rows = images.filter(pc.is_in(given, wanted))
        table.write(run.table(role), rows)
        parts = pc.count_distinct(rows[table.PART]).as_py() if table.PART in rows.column_names else 0
        counts.append(f"{rows.num_rows} {role}" + (f" of {parts} part{'s' * (parts != 1)}" if parts else ""))
    _check_readable(run, report)
    console.print(f"roles: {', '.join(counts)}", markup=False)
    return report


def _check_readable(run: RunFolder, report: IndexReport) -> None:
    """Whether there is an image to train on.

    Raises:
        DataError: if there are some, but none that can be read.
    """
    reasons = {problem.uri: problem.reason for problem in report.unreadable}
    fit = table.read(run.table("fit"))["uri"].to_pylist()
    if fit and all(uri in reasons for uri in fit):
        raise DataError(
            f"none of the {len(fit)} images to train on can be read ({of_file(fit[0], reasons[fit[0]])}); {CHECK_FILES}"
        )


def check_enough(out: str, per_category: bool, unreadable: Sequence[Problem] = ()) -> None:
    """Whether the run has normals enough for every step; before hours of training, not after.

    Args:
        per_category: as `split` makes them.
        unreadable: what `index` could not read.

    Raises:
        DataError: if not.
    """
    images = table.read(RunFolder.existing(out).images)
    check_normals(images, roles(images), per_category, {problem.uri for problem in unreadable})


def split(out: str) -> dict[str, str]:
    """A run for each category that has images to fit, by its name; every step works on these as on any run."""
    run = RunFolder.existing(out)
    images = table.read(run.images)
    by_role = {role: table.read(run.table(role)) for role in ROLES}
    found = {}
    for category in sorted(by_role["fit"]["category"].unique().to_pylist()):
        own = RunFolder(run.category(category))
        of_category = pc.field("category") == category
        table.write(own.images, images.filter(of_category))
        for role, rows in by_role.items():
            table.write(own.table(role), rows.filter(of_category))
        found[category] = own.uri
    return found
