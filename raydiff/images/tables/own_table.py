"""A user's own table of images as an image table.

CSV in its many kinds, JSON lines, a list of URIs or Parquet (see `tables.formats`). Only `uri` is required; relative
uris start from the folder of the table. What is left out is filled in:

- `dataset` and `category`: the table's name without its extension;
- `split` without `label`: train is normal, test unknown; `label` without `split`: normals train, all others
  test; with neither, `defect` says what is normal, and without that all images are normals to train on (an archive's,
  which are to be scored, are unknown);
- `defect`: "good" for normals, else unknown; `mask_uri`: none.

A column `roi_uri` names a mask that says where to look at an image (see `regions`), `bit_depth` is its camera's (see
`levels`). A column `part` says which physical part an image shows, a column `time` when it was taken: `holdout` asks
for them, and an archive's summary for the day.
All other columns are carried along into the score table. What was taken for what is printed when a table has been read.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from raydiff import storage
from raydiff.errors import DataError, StorageError
from raydiff.images import table
from raydiff.images.tables import columns, formats
from raydiff.images.tables.files import Batch, row_name
from raydiff.images.tables.notes import Notes
from raydiff.images.tables.times import Times
from raydiff.images.tables.unnamed_labels import UnnamedLabels
from raydiff.images.tables.words import VALIDATION, Cells, defect_named
from raydiff.progress import console


class _Read(NamedTuple):
    rows: pa.Table  # of an image table, with `time` where it is to train on
    days: pa.Array
    batch: Batch


def is_table(uri: str) -> bool:
    """Whether `uri` names a table and not a folder.

    Raises:
        DataError: if it is a local file that is neither.
    """
    if formats.has_tables_name(uri):
        return not storage.is_folder(uri)
    if storage.is_local(uri) and os.path.isfile(storage.absolute(uri)):
        raise DataError(f"{uri} is a file; give its folder, or a table: CSV, JSON lines, Parquet or a .txt of URIs")
    return False


def read(uri: str) -> pa.Table:
    """The image table that the user's table at `uri` (absolute) stands for, with its further columns.

    Raises:
        DataError: if it cannot be parsed, is empty or does not fit, naming the column and the row.
        StorageError: if it is missing or cannot be read.
    """
    notes = Notes()
    rows, lines = [], []
    for each in _read(uri, notes, to_train=True):
        rows.append(each.rows)
        lines.append(
            pa.array(each.batch.lines, pa.int64()) if each.batch.lines else pa.nulls(len(each.rows), pa.int64())
        )
    found = _once(pa.concat_tables(rows), pa.concat_arrays(lines), uri, notes)
    _print(notes)
    return table.validate(found, uri)


def read_batches(uri: str) -> Iterator[pa.Table]:
    """As `read`, but a batch of rows at a time, in the table's order, with a column `day` (date32, null unknown).

    Images whose label is not told are unknown, as those to be scored are. One that is named again is left to the
    reader.
    """
    notes = Notes()
    place = len(table.SCHEMA)
    for each in _read(uri, notes, to_train=False):
        yield each.rows.add_column(place, pa.field(table.DAY, pa.date32()), each.days)
    _print(notes)


def _print(notes: Notes) -> None:
    for sentence in notes.sentences():
        console.print(f"table: {sentence}", markup=False)


def _read(uri: str, notes: Notes, to_train: bool) -> Iterator[_Read]:
    if not storage.exists(uri):
        raise StorageError(f"{uri} is not there; check the bucket, the folder and the name")
    file = formats.opened(uri)
    found = columns.settle(file.schema, uri, notes)
    time = found.known.get(table.TIME)
    times = Times(time, lambda: file.batches([time]), uri, notes) if time is not None else None
    unnamed = UnnamedLabels(found, uri) if to_train else None
    rows = 0
    for batch in file.batches(found.wanted):
        if unnamed:
            unnamed.see(batch.columns)
        cells = Cells(batch, uri, notes)
        images = pa.table(list(_filled(cells, found.known, uri, to_train).values()), table.SCHEMA)
        if table.ROI in found.known:
            masks = cells.places(found.known[table.ROI], uri.rpartition("/")[0], required=False)
            images = images.append_column(table.ROI, pa.array(masks, pa.string()))
        if table.BIT_DEPTH in found.known:
            depths = cells.depths(found.known[table.BIT_DEPTH])
            images = images.append_column(table.BIT_DEPTH, pa.array(depths, pa.int64()))
        if table.PART in found.known:
            parts = cells.names(found.known[table.PART], required=False)
            images = images.append_column(table.PART, pa.array(parts, pa.string()))
        if times and to_train:
            images = images.append_column(table.TIME, times.taken(batch))
        for name, field in found.extra.items():
            images = images.append_column(field, _carried(batch.columns[name], field.type))
        days = times.days(batch) if times and not to_train else pa.nulls(len(images), pa.date32())
        yield _Read(table.checked(images, uri, batch.row), days, batch)
        rows += len(images)
    if not rows:
        raise DataError(f"{uri} has no rows; give one row for each image")
    if unnamed:
        unnamed.refuse()
    for sentence in file.said():
        notes.say(sentence)


def _carried(column: pa.ChunkedArray, kind: pa.DataType) -> pa.ChunkedArray:
    if isinstance(column.type, pa.BaseExtensionType):
        column = pa.chunked_array([chunk.storage for chunk in column.chunks], column.type.storage_type)
    return column.cast(kind)


def _filled(cells: Cells, known: dict[str, str], uri: str, to_train: bool) -> dict[str, list[Any]]:
    """All columns of an image table, those that are missing made from the others."""
    count = len(cells.batch.columns)
    folder = uri.rpartition("/")[0]
    name = formats.stem(uri)
    found: dict[str, list[Any]] = {}

    def given(column: str, required: bool = False) -> list[str | None] | None:
        return cells.names(known[column], required) if column in known else None

    uri_column = known["uri"]
    uris = cells.images(uri_column, folder) if to_train else cells.places(uri_column, folder, required=True)
    masks = cells.places(known["mask_uri"], folder, required=False) if "mask_uri" in known else [None] * count
    splits = cells.splits(known["split"]) if "split" in known else None
    labels: list[int | None]
    if "label" in known:
        labels = cells.labels(known["label"])
        if "defect" in known:
            labels = _agreed(cells, labels, splits, known)
    else:
        labels = cells.labels_of_defects(known["defect"]) if "defect" in known else [None] * count
        if splits:
            pairs = zip(labels, splits, strict=True)
            labels = [0 if label is None and split in ("train", VALIDATION) else label for label, split in pairs]
        elif "defect" not in known and to_train:
            cells.notes.say("no column label, split or defect: all images are taken for normals to train on")
            if any(masks):
                row = next(row for row, mask in enumerate(masks) if mask)
                raise DataError(
                    f"{uri}: {cells.batch.row(row)} has a mask, and no column 'label' says whether it is anomalous; "
                    "add one with 0 or 1"
                )
            labels = [0] * count
    if splits is None:
        splits = [VALIDATION] * count  # what a label alone says
    defects = given("defect") or [None] * count
    found["uri"] = uris
    found["dataset"] = given("dataset", required=True) or [name] * count
    found["category"] = given("category", required=True) or [name] * count
    found["split"] = [
        ("train" if label == 0 else "test") if split == VALIDATION else split
        for split, label in zip(splits, labels, strict=True)
    ]
    found["label"] = labels
    found["defect"] = [defect_named(defect, label) for defect, label in zip(defects, labels, strict=True)]
    found["mask_uri"] = masks
    if any(mask and label == 0 for mask, label in zip(masks, labels, strict=True)):
        cells.notes.say("some normals have a mask; masks of normals are not used")
    return found


def _agreed(
    cells: Cells, labels: list[int | None], splits: list[str] | None, known: dict[str, str]
) -> list[int | None]:
    """The labels, and where there is none in the train split, what the defect says: holding one, it is no normal.

    Raises:
        DataError: if a label and a defect contradict each other, naming the row.
    """
    said = cells.labels_of_defects(known["defect"], beside_labels=True)
    for row, pair in enumerate(zip(labels, said, strict=True)):
        if pair in ((0, 1), (1, 0)):
            defect = cells.batch.columns[known["defect"]][row].as_py()
            raise DataError(
                f"{cells.where}: {cells.batch.row(row)} has label {pair[0]} and defect {defect!r}, which contradict "
                "each other; mend one of them (label 1 and the defect's name, or 0 and good)"
            )
    if splits is None:
        return labels
    return [
        1 if label is None and defect == 1 and split == "train" else label
        for label, defect, split in zip(labels, said, splits, strict=True)
    ]


def _once(images: pa.Table, lines: pa.Array, uri: str, notes: Notes) -> pa.Table:
    """Each image once.

    Raises:
        DataError: if two rows say different things of one image, naming both.
    """
    counts = images["uri"].value_counts()
    if len(counts) == len(images):
        return images
    twice = counts.filter(pc.greater(counts.field("counts"), 1)).field("values")
    again = pc.indices_nonzero(pc.is_in(images["uri"], value_set=twice)).to_pylist()
    first: dict[str, tuple[int, dict[str, Any]]] = {}
    left_out = set()
    for row, found in zip(again, images.take(again).to_pylist(), strict=True):
        before, same = first.setdefault(found["uri"], (row, found))
        if before == row:
            continue
        for name in images.column_names:
            if found[name] != same[name] and not (found[name] != found[name] and same[name] != same[name]):
                places = [row_name(at + 1, lines[at].as_py()) for at in (before, row)]
                raise DataError(
                    f"{uri}: {places[0]} and {places[1]} both name {found['uri']!r}, but {name} is {same[name]!r} in "
                    f"one and {found[name]!r} in the other; leave one out"
                )
        left_out.add(row)
    notes.say(f"{len(left_out)} rows name an image again, with the same in each column; each image counts once")
    kept = pa.array([row not in left_out for row in range(len(images))])
    return images.filter(kept)
