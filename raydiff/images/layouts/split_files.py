"""Data sets that say in files of their own which images train and which test: VisA and Real-IAD.

- **VisA** (Zou et al., arXiv 2207.14315): `split_csv/1cls.csv` beside `<category>/Data/`, with the columns object,
  split, label, image and mask. The two-class splits beside it train on defects, and are not read.
- **Real-IAD** (Wang et al., arXiv 2403.12580): `realiad_jsons/realiad_jsons/<category>.json` (or a folder less) with
  the lists `train` and `test`, beside `realiad_1024/<category>/` (or raw, 512, 256). Five cameras see each part.

One more is one more entry of `KNOWN`.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import NamedTuple

from raydiff import storage
from raydiff.errors import DataError
from raydiff.images.layouts.found import Finding, Folder, Layout, Row
from raydiff.images.names import few, stem
from raydiff.storage.patience import patiently

GOOD = "good"
_RESOLUTIONS = ("realiad_raw", "realiad_1024", "realiad_512", "realiad_256")  # Real-IAD's folders, the best first


class Listed(NamedTuple):
    """An image as a split file lists it; paths are below the data set's folder."""

    image: str
    category: str
    split: str
    defect: str  # `good`, or its kind
    mask: str


class DataSet(NamedTuple):
    """A data set that comes with split files."""

    name: str
    files: re.Pattern[str]  # their paths; above the group `file` is the data set's folder
    read: Callable[[str, str, Collection[str]], Iterator[Listed]]  # a file's path and text, and the folders beside
    part_from: str | None = None  # names the part that an image shows, as --part-from does


def _visa(file: str, text: str, folders: Collection[str]) -> Iterator[Listed]:
    for row in csv.DictReader(io.StringIO(text)):
        defect = GOOD if row["label"] == "normal" else row["label"]
        yield Listed(row["image"], row["object"], row["split"], defect, row["mask"] or "")


def _real_iad(file: str, text: str, folders: Collection[str]) -> Iterator[Listed]:
    told = json.loads(text)
    category = stem(file).rpartition("/")[2]
    pixels = next((name for name in _RESOLUTIONS if name in folders), _RESOLUTIONS[1])
    below = f"{pixels}/{category}/"
    for split in ("train", "test"):
        for each in told[split]:
            defect = GOOD if each["anomaly_class"] == told["meta"]["normal_class"] else each["anomaly_class"]
            mask = below + each["mask_path"] if each["mask_path"] else ""
            yield Listed(below + each["image_path"], category, split, defect, mask)


KNOWN = (
    DataSet("VisA, with its one-class split", re.compile(r"(?:.*?/)??(?P<file>split_csv/1cls\.csv)"), _visa),
    DataSet(
        "Real-IAD, with its split",
        re.compile(r"(?:.*?/)??(?P<file>(?:realiad_jsons/){1,2}[^/]+\.json)"),
        _real_iad,
        r"(?P<part>[^/]+/(?:OK|NG)/(?:[^/]+/)?S\d+)/",
    ),
)


def split_layout(folder: Folder) -> Layout | None:
    """What split files in the folder say of its images; None where there are none.

    Of a data set of which some categories are not there, the others are taken.

    Raises:
        DataError: if a file is not as its data set has it, or lists images or masks that are not there.
        StorageError: if it cannot be read.
    """
    for known in KNOWN:
        files = [match for path in sorted(folder.ignored) if (match := known.files.fullmatch(path))]
        if files:
            return _layout(folder, known, files)
    return None


def _layout(folder: Folder, known: DataSet, files: Sequence[re.Match[str]]) -> Layout:
    roots = {match.string[: match.start("file")] for match in files}
    if len(roots) > 1:
        raise DataError(f"{folder.uri} holds several data sets that bring their split ({few(sorted(roots))}); give one")
    (root,) = roots
    images = {path.removeprefix(root): uri for path, uri in folder.images.items() if path.startswith(root)}
    tops = {path.partition("/")[0] for path in images}
    listed = [each for match in files for each in _read(folder, known, match, tops)]
    here = {each.category for each in listed if each.image in images}
    wanted = [each for each in listed if each.category in here]
    masks = {*folder.images.values(), *folder.beside.values()}
    found = Layout(known.name, part_from=known.part_from)
    lost = []
    for each in wanted:
        mask = folder.uri_of(root + each.mask) if each.mask and each.defect != GOOD else None
        if each.image not in images or (mask and mask not in masks):
            lost.append(each.image)
            continue
        label = int(each.defect != GOOD)
        dataset = storage.name(folder.uri if not root else root.rstrip("/"))
        found.rows.append(Row(images[each.image], dataset, each.category, each.split, label, each.defect, mask))
    if lost or not wanted:
        names = lost or [each.image for each in listed]
        raise DataError(
            f"{folder.uri}: its split ({files[0].string}) lists {len(names)} images that are not there, or not with "
            f"their mask: {few(names)}; unpack the data set whole, or move the split away to go by its folders"
        )
    used = {row.uri for row in found.rows} | {row.mask_uri for row in found.rows}
    unused = sorted(path for path, uri in images.items() if uri not in used)
    absent = sorted({each.category for each in listed} - here)
    for what, shown in (("images that the split does not list, left out", unused), ("categories not there", absent)):
        if shown:
            found.findings.append(Finding(what, tuple(shown), len(shown)))
    return found


def _read(folder: Folder, known: DataSet, file: re.Match[str], folders: Collection[str]) -> list[Listed]:
    uri = folder.uri_of(file.string)
    try:
        found = list(known.read(file["file"], patiently(storage.read_bytes, uri).decode("utf-8-sig"), folders))
        if {each.split for each in found} - {"train", "test"} or not all(each.image for each in found):
            raise ValueError("a row names no image, or a split other than train and test")
    except (KeyError, TypeError, ValueError, csv.Error) as error:
        raise DataError(
            f"{uri} is not as {known.name} has it ({type(error).__name__}: {error}); fetch it anew, or move it away to "
            "go by the folders"
        ) from None
    return found
