"""Verdicts as COCO JSON, which Label Studio, CVAT and FiftyOne export: images, and boxes drawn in them.

An image's verdict is that of the worst of its labels, a defect before unsure before normal; each box of that verdict is
a row. What an image without any label is, the file cannot say: nobody may have looked at it.
"""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote

from raydiff.errors import DataError
from raydiff.images.tables.files import content
from raydiff.verdicts.said import Region, Said, number
from raydiff.verdicts.table import DEFECT, NORMAL, UNSURE, is_region
from raydiff.verdicts.words import Words

_WORST_FIRST = (DEFECT, UNSURE, NORMAL)
_UPLOADED = re.compile(r"[0-9a-f]{8}-(.+)")  # Label Studio puts that before the name of a file that is brought to it


class Coco:
    """A file's images with their labels.

    Attributes:
        labels: how many labels have each name.
        unannotated: how many images have none.
    """

    def __init__(self, uri: str, document: dict[str, Any]) -> None:
        """Raises DataError if a part of the document is not as COCO has it."""
        self.uri = uri
        try:
            names = {each["id"]: str(each["name"]) for each in document.get("categories", ())}
            files = {each["id"]: str(each["file_name"]) for each in document["images"]}
            # Several entries may be of one file.
            self._labels: dict[str, list[tuple[str, Any]]] = {name: [] for name in files.values()}
            for each in document["annotations"]:
                self._labels[files[each["image_id"]]].append((names[each["category_id"]], each.get("bbox")))
        except (KeyError, TypeError, AttributeError) as error:
            raise DataError(
                f"{uri} is not as COCO has it (at {error}): `images` with id and file_name, `annotations` with "
                "image_id and category_id, `categories` with id and name"
            ) from None
        self.labels = Counter(name for found in self._labels.values() for name, _ in found)
        self.unannotated = sum(not found for found in self._labels.values())

    def said(self, words: Words, unannotated_normal: bool) -> Iterator[Said]:
        """The verdicts of its images; of those without labels, if `unannotated_normal`, that they are normal."""
        for file, found in self._labels.items():
            names = spellings(file)
            if not found:
                if unannotated_normal:
                    yield Said(file, names, NORMAL)
                continue
            by: defaultdict[str | None, list[tuple[str, Any]]] = defaultdict(list)
            for label, box in found:
                by[words.of_label(label)].append((label, box))
            for label, _ in by[None]:
                yield Said(file, names, None, fault=f"label {label!r} is none of those given with --defect, --normal")
            worst = next((verdict for verdict in _WORST_FIRST if by[verdict]), None)
            for label, box in by[worst] if worst else ():
                said = Said(file, names, worst, note=label)
                try:
                    yield said._replace(region=_corners(box))
                except (ValueError, TypeError):
                    yield said._replace(fault="the bbox is not x, y, width, height with a width and a height above 0")


def opened(uri: str) -> Coco | None:
    """The COCO file at `uri`; None if it is something else.

    Raises:
        DataError: if it is one and damaged.
        StorageError: if it is missing or cannot be fetched.
    """
    with content(uri) as file:
        if not file.read(64).lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{"):
            return None
        file.seek(0)
        try:
            found = json.loads(file.read())
        except (ValueError, RecursionError):  # JSON lines, of which more than one is no JSON, or a damaged file
            return None
    return Coco(uri, found) if isinstance(found, dict) and "images" in found and "annotations" in found else None


def spellings(file: str) -> tuple[str, ...]:
    """What an image may be called, the likeliest first, that the file says is called so."""
    name = file.replace("\\", "/") if "://" not in file else file
    found = [file, name]
    if "?d=" in name:  # Label Studio's local storage
        name = unquote(name.partition("?d=")[2])
        found.append(name)
    # Label Studio exports what was brought to it in a folder of its own.
    exported = name.removeprefix("images/")
    found.append(exported)
    if uploaded := _UPLOADED.fullmatch(exported.rpartition("/")[2]):
        found.append(uploaded[1])
    return tuple(dict.fromkeys(found))


def _corners(box: Any) -> Region | None:
    if not box:
        return None
    x, y, width, height = map(number, box)
    corners = x, y, x + width, y + height
    if not is_region(corners):
        raise ValueError
    return corners
