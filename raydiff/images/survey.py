"""What images there are: several layouts, one image table.

- **Folders of a known layout**: `layouts.known` is the table of them, in the order in which they are looked for.
  MVTec AD and its relatives are one; the root may be one category, a folder of categories, or a folder of such folders:
  each of these is then a dataset.
- **Folders that the user names** normal and anomalous, see `layouts.sorted_folders`.
- **Table**: CSV, JSON lines, a list of URIs or Parquet, see `tables`.

What is none of these, or would train on images that may not be normal, is refused.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

import pyarrow as pa

from raydiff import storage
from raydiff.errors import DataError, StorageError
from raydiff.images.ingested import check_whole
from raydiff.images.layouts.folder_names import FolderNames
from raydiff.images.layouts.found import Finding, Folder, Found, Row, as_table, list_folder
from raydiff.images.layouts.known import Known, recognised
from raydiff.images.layouts.sorted_folders import sorted_layout
from raydiff.images.names import IMAGE_EXTENSIONS, MASKS, category_of, few
from raydiff.images.pages import Pages, expanded
from raydiff.images.parts import PartPattern, with_parts
from raydiff.images.parts import findings as findings_of_parts
from raydiff.images.tables import own_table
from raydiff.progress import phase
from raydiff.storage import walking

AS_FOLDERS_SAY = FolderNames()


def find_images(
    uri: str,
    score_uri: str | None = None,
    named: FolderNames = AS_FOLDERS_SAY,
    part_from: PartPattern | None = None,
    pages: Pages | None = None,
    layout: Known | None = None,
) -> pa.Table:
    """The image table of the folder or table at `uri`.

    `score_uri` is a folder of images to score: they become rows of split test with no label. It has one
    folder a category; where there is but one category, its folders are free.

    Args:
        named: folders that hold normals and anomalies, if their names are the user's own.
        pages: which pages of a file are images, each with a row of its own; by default a file is one image.
        part_from: names the part that an image shows, by the image's path below the folder, or below the table's.
        layout: which one the folder has to be of; by default the first that fits.

    Raises:
        DataError: if the layout is none of the above, or not clear, or not the one that is wanted, saying what was
            looked for and what was found; if `part_from` names no part in any path.
        StorageError: if a URI cannot be listed or read.
    """
    return survey(uri, score_uri, named, part_from, pages, layout).images


def survey(
    uri: str,
    score_uri: str | None = None,
    named: FolderNames = AS_FOLDERS_SAY,
    part_from: PartPattern | None = None,
    pages: Pages | None = None,
    layout: Known | None = None,
) -> Found:
    """As `find_images`, with an account of the files that are not in the table, and of the parts."""
    uri = storage.absolute(uri)
    found = _survey(uri, score_uri, named, part_from, layout)
    part_from = part_from or PartPattern.parse(found.part_from)
    images = found.images
    if pages:
        with phase("counting pages", len(images), "files") as shown:
            images = expanded(images, pages, part_from is None, shown.advance)
    if part_from:
        images = with_parts(images, part_from, _folders(uri, score_uri))
    return replace(found, images=images, findings=(*found.findings, *findings_of_parts(images)))


def _folders(uri: str, score_uri: str | None) -> list[str]:
    """What the paths of images are below."""
    if own_table.is_table(uri):
        return [uri.rpartition("/")[0]]
    given = [uri] if score_uri is None else [uri, storage.absolute(score_uri)]
    return [walking.root(*storage.filesystem(each)) for each in given]


def _survey(
    uri: str, score_uri: str | None, named: FolderNames, part_from: PartPattern | None, layout: Known | None
) -> Found:
    if layout and named:
        raise DataError(
            f"--layout {layout.name} reads folders by its own names, and --normal and --anomalous by yours; give one"
        )
    if own_table.is_table(uri):
        if score_uri is not None:
            raise DataError(f"{uri} is a table: list the images to score in it, with split test")
        if named:
            raise DataError(f"{uri} is a table: its column label says what is normal, not --normal and --anomalous")
        if layout:
            raise DataError(f"{uri} is a table, and --layout says how folders lie; leave it out")
        return Found(own_table.read(uri), "table")

    if storage.is_local(uri) and not storage.exists(uri):
        raise StorageError(f"{uri} is not there; check the folder and the name")
    for each in [uri] if score_uri is None else [uri, score_uri]:
        check_whole(each)
    folder = list_folder(uri)
    to_score = None if score_uri is None else list_folder(storage.absolute(score_uri))
    if to_score is not None:
        folder, to_score = _apart(folder, _without_masks(to_score))
    if not folder.images:
        raise DataError(
            f"{uri} holds no images; looked for {', '.join(IMAGE_EXTENSIONS)} as <category>/train/good/<image> "
            f"(MVTec AD layout), <image> or <category>/<image> (normals); found {few(_names(folder))}"
        )
    if named:
        name, why, found = None, None, sorted_layout(folder, named, part_from)
    else:
        known, why = recognised(folder, layout)
        name, found = known.name, known.read(folder)
    rows, ignored, findings = found.rows, folder.ignored, (*folder.findings, *found.findings)
    if to_score is not None:
        rows = rows + _rows_to_score(to_score, {row.category for row in rows})
        ignored += to_score.ignored
        findings += to_score.findings
        if masks := to_score.beside:
            what = "masks beside images to score, left out"
            findings += (Finding(what, tuple(map(storage.name, masks.values())), len(masks)),)
    return Found(
        as_table(rows, uri),
        found.name,
        ignored,
        tuple(found.misplaced),
        tuple(found.unused_masks),
        findings,
        found.part_from,
        name,
        why,
    )


def _apart(normals: Folder, to_score: Folder) -> tuple[Folder, Folder]:
    """Two folders without the one in the other, should one lie inside the other."""
    if normals.uri == to_score.uri:
        raise DataError(f"{normals.uri} cannot hold the normals and the images to score; use two folders")
    in_normals = set(to_score.images.values()) & set(normals.images.values())
    outer = normals if len(normals.uri) < len(to_score.uri) else to_score
    images = {path: uri for path, uri in outer.images.items() if uri not in in_normals}
    kept = outer._replace(images=images, beside={path: uri for path, uri in outer.beside.items() if path in images})
    return (kept, to_score) if outer is normals else (normals, kept)


def _without_masks(folder: Folder) -> Folder:
    """A folder of images to be scored without what lies in ground_truth/."""
    masks = [path for path in folder.images if MASKS in path.lower().split("/")[:-1]]
    images = {path: uri for path, uri in folder.images.items() if path not in set(masks)}
    return folder._replace(images=images, ignored=(*folder.ignored, *masks))


def _rows_to_score(folder: Folder, categories: Collection[str]) -> list[Row]:
    if not folder.images:
        raise DataError(f"{folder.uri} holds no images to score; found {few(_names(folder))}")
    dataset = storage.name(folder.uri)
    rows, lost = [], []
    for path, uri in folder.images.items():
        named = category_of(path, categories)
        if named is None:
            lost.append(path)
        else:
            rows.append(Row(uri, dataset, named, "test", None))
    if lost:
        raise DataError(
            f"{folder.uri}: looked for one folder a category ({few(sorted(categories))}), which says what the "
            f"images show; found {few(lost)}"
        )
    return rows


def _names(folder: Folder) -> list[str]:
    """What a folder without images holds instead."""
    return [*folder.ignored, *(name for finding in folder.findings for name in finding.names)]
