"""A small copy of an MVTec-AD folder and of weights, to be carried to a machine with a GPU."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from raydiff.errors import DataError
from raydiff.images.decode import decode, decode_mask, resize_mask

LARGEST_MIB = 60
SIDE = 256  # pixels, the longer side of a packed image
QUALITY = 95  # of its JPEG
MASKS = "ground_truth"
KINDS = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")


def pack(data: str, weights: Sequence[str], into: Path, per_folder: int | None = None) -> str:
    """Copy images to `into`/data and weights files to `into`/weights; what there is to say of them.

    Args:
        data: a folder in MVTec AD's layout, `<category>/train/good/` and so on.
        weights: files called `<timm name>.safetensors`, or `<timm name>=<file>`.
        into: may hold other things to be carried; they count for the size.
        per_folder: at most so many images of each folder, evenly; None = all.

    Raises:
        DataError: if there are no images, or all that lies in `into` is larger than 60 MiB.
    """
    root = Path(data)
    images = sorted(path for path in root.glob("*/*/*/*") if path.suffix.lower() in KINDS and path.parts[-3] != MASKS)
    images = [path for folder in _by_folder(images) for path in _evenly(folder, per_folder)]
    if not images:
        raise DataError(f"{data} holds no images; looked for <category>/train/good/<image>, MVTec AD's layout")
    for old in (into / "data", into / "weights"):
        if old.exists():
            shutil.rmtree(old)
        old.mkdir(parents=True)
    for path in images:
        _pack_image(path, root, into / "data")
    for given in weights:
        name, _, file = given.rpartition("=")
        shutil.copyfile(file, into / "weights" / (f"{name}.safetensors" if name else Path(file).name))
    size = sum(path.stat().st_size for path in into.rglob("*") if path.is_file()) / 2**20
    if size > LARGEST_MIB:
        raise DataError(
            f"{into} is {size:.1f} MiB, more than the {LARGEST_MIB} that can be carried; "
            "give --per-folder a number of images, or fewer weights"
        )
    return f"{into}: {len(images)} images, {len(weights)} files of weights, {size:.1f} MiB with all that lies there"


def _by_folder(images: Sequence[Path]) -> list[list[Path]]:
    found: dict[Path, list[Path]] = {}
    for path in images:
        found.setdefault(path.parent, []).append(path)
    return list(found.values())


def _evenly(images: list[Path], most: int | None) -> list[Path]:
    if most is None or len(images) <= most:
        return images
    return [images[round(place)] for place in np.linspace(0, len(images) - 1, most)]


def _pack_image(path: Path, root: Path, into: Path) -> None:
    image = Image.fromarray(decode(path.read_bytes()))
    image.thumbnail((SIDE, SIDE), Image.Resampling.BILINEAR)
    place = into / path.relative_to(root).with_suffix(".jpg")
    place.parent.mkdir(parents=True, exist_ok=True)
    image.save(place, quality=QUALITY)
    category, defect = root / path.relative_to(root).parts[0], path.parent.name
    for mask in (category / MASKS / defect).glob(f"{path.stem}*.png"):
        if mask.stem in (path.stem, f"{path.stem}_mask"):
            side = max(image.size)
            small = Image.fromarray(resize_mask(decode_mask(mask.read_bytes()), side)).resize(
                image.size, Image.Resampling.NEAREST
            )
            place = into / mask.relative_to(root)
            place.parent.mkdir(parents=True, exist_ok=True)
            small.save(place)
