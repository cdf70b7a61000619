"""DAGM 2007: `Class1/Train/0001.PNG`, and `Class1/Train/Label/0002_label.PNG` for those with a defect, alone."""

from __future__ import annotations

import re
from collections import Counter

from raydiff.images.layouts.found import Finding, Folder, Layout, Row, category_names
from raydiff.images.layouts.marked import DEFECT
from raydiff.images.names import SPLITS, stem

_PLACE = re.compile(r"((?P<category>.+)/)?(?P<split>train|test)/(?P<label>label/)?(?P<file>[^/]+)", re.IGNORECASE)
_LABEL = "_label"


_Key = tuple[str, str, str]  # category, split and stem, which an image and its mask share


def why_label_folders(folder: Folder) -> str | None:
    """By which mask a folder is so; None where it is not, or no mask in a folder `Label` is of an image beside it."""
    images, masks = _images_and_masks(folder)
    mask = next((masks[key] for key in masks if key in images), None)
    return mask and f"by masks in folders called Label, such as {mask}"


def label_folders_layout(folder: Folder) -> Layout:
    """What the folders say."""
    images, masks = _images_and_masks(folder)
    found = Layout("DAGM's layout (masks of defects in a folder Label)")
    names = category_names({tuple(filter(None, key[0].split("/"))) for key in images}, folder.uri)
    unused: Counter[str] = Counter()
    for key, path in images.items():
        category, split = names[tuple(filter(None, key[0].split("/")))], SPLITS[key[1].lower()]
        mask = folder.uri_of(masks[key]) if key in masks else None
        unused[f"{category[1]}/{key[1]}"] += split == "train" and mask is not None
        found.rows.append(
            Row(folder.images[path], *category, split, int(mask is not None), DEFECT if mask else "good", mask)
        )
    found.unused_masks += [masks[key] for key in masks.keys() - images.keys()]
    if counts := +unused:
        what = "images of defects under train/, neither trained on nor tested"
        found.findings.append(
            Finding(what, tuple(f"{name}: {count}" for name, count in counts.items()), counts.total())
        )
    return found


def _images_and_masks(folder: Folder) -> tuple[dict[_Key, str], dict[_Key, str]]:
    """Their paths; nothing where any lies elsewhere."""
    images: dict[_Key, str] = {}
    masks: dict[_Key, str] = {}
    for path in folder.images:
        place = _PLACE.fullmatch(path)
        if place is None:
            return {}, {}
        name = stem(place["file"]).removesuffix(_LABEL if place["label"] else "")
        (masks if place["label"] else images)[place["category"] or "", place["split"], name] = path
    return images, masks
