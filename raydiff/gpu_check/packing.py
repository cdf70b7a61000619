"""A small copy of an MVTec-AD folder and of weights, to be carried to a machine with a GPU."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from raydiff import storage
from raydiff.errors import DataError
from raydiff.images.decode import decode
from raydiff.images.masks import read_mask
from raydiff.images.survey import find_images

LARGEST_MIB = 60
SIDE = 256  # pixels, the longer side of a packed image
QUALITY = 95  # of its JPEG
MARK = "packed-for-gpu-check"  # an empty file beside the folders that were made here, and may be replaced


def pack(data: str, weights: Sequence[str], into: Path, per_folder: int | None = None) -> str:
    """Copy images to `into`/data and weights files to `into`/weights; what there is to say of them.

    Args:
        data: a folder in MVTec AD's layout, `<category>/train/good/` and so on.
        weights: files called `<timm name>.safetensors`, or `<timm name>=<file>`.
        into: may hold other things to be carried; they count for the size.
        per_folder: at most so many images of each folder, evenly; None = all.

    Raises:
        DataError: if there are no images (see `find_images`), if `into` has folders of these names that were not made
            here, or if all that lies in it is larger than 60 MiB.
    """
    root = Path(storage.absolute(data))
    folders = itertools.groupby(find_images(data).to_pylist(), lambda row: Path(row["uri"]).parent)
    rows = [row for _, images in folders for row in _evenly(list(images), per_folder)]
    _make_room(into, root)
    for row in rows:
        _pack_image(row, root, into / "data")
    for given in weights:
        name, _, file = given.rpartition("=")
        shutil.copyfile(file, into / "weights" / (f"{name}.safetensors" if name else Path(file).name))
    size = sum(path.stat().st_size for path in into.rglob("*") if path.is_file()) / 2**20
    if size > LARGEST_MIB:
        raise DataError(
            f"{into} is {size:.1f} MiB, more than the {LARGEST_MIB} that can be carried; "
            "give --per-folder a number of images, or fewer weights"
        )
    return f"{into}: {len(rows)} images, {len(weights)} files of weights, {size:.1f} MiB with all that lies there"


def _make_room(into: Path, root: Path) -> None:
    """Empty folders for what is packed, in the place of those of a run before and of no others."""
    if root.is_relative_to(into.absolute()):
        raise DataError(f"{root} lies in {into}, where its copy would go; give another folder as --into")
    for folder in (into / "data", into / "weights"):
        if folder.exists():
            if not (into / MARK).exists():
                raise DataError(f"{folder} is there and was not packed by this command; give another folder as --into")
            shutil.rmtree(folder)
        folder.mkdir(parents=True)
    (into / MARK).touch()


def _evenly(rows: list[dict[str, Any]], most: int | None) -> list[dict[str, Any]]:
    if most is None or len(rows) <= most:
        return rows
    return [rows[round(place)] for place in np.linspace(0, len(rows) - 1, most)]


def _pack_image(row: dict[str, Any], root: Path, into: Path) -> None:
    path = Path(row["uri"])
    image = Image.fromarray(decode(path.read_bytes()))
    image.thumbnail((SIDE, SIDE), Image.Resampling.BILINEAR)
    place = into / path.relative_to(root).with_suffix(".jpg")
    place.parent.mkdir(parents=True, exist_ok=True)
    image.save(place, quality=QUALITY)
    if row["mask_uri"]:
        mask = Image.fromarray(read_mask(row["mask_uri"])).resize(image.size, Image.Resampling.NEAREST)
        place = into / Path(row["mask_uri"]).relative_to(root).with_suffix(".png")
        place.parent.mkdir(parents=True, exist_ok=True)
        mask.save(place)
