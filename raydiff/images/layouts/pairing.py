"""Which mask is whose: by its name beside its image, or by its place in a tree of masks."""

from __future__ import annotations

import unicodedata
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple

from raydiff.images.names import base_of_mask, stem

FOLDER = "/"  # the rule of a folder of masks for each image; every other one is the ending or beginning of a stem


class Pairs(NamedTuple):
    """Masks that found their images."""

    masks: dict[str, str]  # an image's key -> its mask's path, or for a folder of masks the folder's, ending in a slash
    rules: Counter[str]  # endings by which they were found, and how often
    unused: list[str]  # masks that fit no image, or one that has a mask already


def beside(paths: Iterable[str]) -> dict[str, str]:
    """Masks that lie in the folder of their image and have its name and an ending (`x.jpg`, `x_label.bmp`).

    Returns:
        A mask's path -> its image's. A file so called without such an image beside it is an image itself.
    """
    paths = list(paths)
    images: dict[str, str] = {}
    for path in sorted(paths):
        images.setdefault(stem(path), path)
    found = {}
    for path in paths:
        folder, slash, name = stem(path).rpartition("/")
        called = base_of_mask(name)
        if called and (image := images.get(folder + slash + called[0])):
            found[path] = image
    for mask, image in found.items():
        while image in found:  # x, x_mask and x_mask_gt: a mask has none itself
            image = found[image]
        found[mask] = image
    return found


def pair(images: Collection[str], masks: Mapping[str, str]) -> Pairs:
    """Masks in a tree of their own, given to images by the endings that fit the most of them.

    Args:
        images: keys, paths without extension below the folder that both trees share.
        masks: a mask's path -> its key.
    """
    known = set(images)
    alike: dict[str, str] = {}
    for image in sorted(images):
        alike.setdefault(_folded(image), image)

    def image_of(called: str) -> str | None:
        """The image of a name; case and the form of accents do not count where none has the very name."""
        return called if called in known else alike.get(_folded(called))

    fits: dict[str, list[tuple[str, bool, str]]] = defaultdict(list)  # rule -> image's key, not quite so, mask's path
    for path, key in masks.items():
        folder, slash, name = key.rpartition("/")
        called = base_of_mask(name)
        offers = [(FOLDER, folder), ("", key)]
        if called:
            offers.append((called[1].lower(), folder + slash + called[0]))
        for rule, name in offers:
            if fitting := image_of(name):
                fits[rule].append((fitting, fitting != name, path))
    found, used = Pairs({}, Counter(), []), set()
    # Of two that fit as many, the one that says that it is a mask.
    for rule in sorted(fits, key=lambda rule: (-len(fits[rule]), rule == "", rule)):
        before = set(found.masks)
        for key, _, path in sorted(fits[rule]):
            if key in before or path in used or (rule != FOLDER and key in found.masks):
                continue
            found.masks[key] = path.rpartition("/")[0] + "/" if rule == FOLDER else path
            found.rules[rule] += 1
            used.add(path)
    return found._replace(unused=[path for path in masks if path not in used])


def in_words(rule: str) -> str:
    """A rule as a user would write it."""
    if rule == FOLDER:
        return "<image>/<any name>"
    return f"{rule}<image>" if rule[:1].isalpha() else f"<image>{rule}"


def _folded(key: str) -> str:
    return unicodedata.normalize("NFC", key).casefold()
