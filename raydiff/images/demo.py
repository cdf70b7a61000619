"""Demo images: three products drawn by code, with defects and masks, for a first run without any download."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from raydiff.images.drawn_set import write_set
from raydiff.images.products import PRODUCTS, Product
from raydiff.images.products.camera import camera_settings, photograph

VERSION = 1  # of the drawings: a change that moves a pixel raises it
VISIBLE = 0.03  # a defect's mask is where it changes the scene by more than this, of 1


class Picture(NamedTuple):
    """One image of the set: which piece of which product, and the files it becomes, relative to the folder."""

    product: Product
    split: str
    number: int  # within the split, over all defects
    defect: str | None
    image_file: str
    mask_file: str | None
    camera: NDArray[np.float64]  # a row of `camera_settings`


def draw(
    folder: str,
    seed: int = 0,
    train: int = 160,
    test_good: int = 40,
    test_defective: int = 60,
    size: int = 192,
) -> None:
    """Draw the demo set into a local folder, in MVTec's layout.

    A folder that already holds exactly this set is left as it is; a killed run leaves nothing in `folder`.

    Args:
        folder: where to; must be empty, absent or an earlier call's.
        seed: another seed draws other pieces of the same products.
        train: normal images to train on, for each product.
        test_good: normal images to test on, for each product.
        test_defective: defective images to test on, for each product, spread over its kinds of defect.
        size: side of the square images, in pixels.

    Raises:
        DataError: if the folder holds something else, or is not on this machine's disk.
    """
    card = {  # what decides the pixels
        "version": VERSION,
        "seed": seed,
        "train": train,
        "test_good": test_good,
        "test_defective": test_defective,
        "size": size,
    }
    todo = list(pictures(seed, train, test_good, test_defective))
    write_set(folder, card, [(each.image_file, each.mask_file, partial(paint, each, seed, size)) for each in todo])


def pictures(seed: int, train: int, test_good: int, test_defective: int) -> Iterator[Picture]:
    """All pictures of a set, in the order in which they are drawn."""
    for product in PRODUCTS:
        for split, count in (("train", train), ("test", test_good), ("defective", test_defective)):
            camera = camera_settings(np.random.default_rng(_key(seed, product, split)), count)
            for number in range(count):
                index, defect = number, None
                if split == "defective":
                    index, kind = divmod(number, len(product.defects))
                    defect = product.defects[kind]
                file = f"{product.name}/{'train' if split == 'train' else 'test'}/{defect or 'good'}/{index:03d}.png"
                mask = f"{product.name}/ground_truth/{defect}/{index:03d}_mask.png" if defect else None
                yield Picture(product, split, number, defect, file, mask, camera[number])


def paint(picture: Picture, seed: int, size: int) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """A picture's image (size, size, 3) and the mask (size, size) of its defect.

    The mask is the region where the scene differs visibly from the same piece's without the defect.
    """
    key = [*_key(seed, picture.product, picture.split), picture.number]
    part, flaw, grain = ([*key, stream] for stream in range(3))

    def scene(defect: str | None) -> NDArray[np.float64]:
        return picture.product.draw(np.random.default_rng(part), np.random.default_rng(flaw), size, defect)

    drawn = scene(picture.defect)
    image = photograph(np.random.default_rng(grain), drawn, picture.camera)
    if picture.defect is None:
        return image, np.zeros((size, size), bool)
    return image, _region(np.abs(drawn - scene(None)).max(axis=0) > VISIBLE)


def _region(changed: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """What a person would outline: the changed pixels with holes filled and gaps up to 8 % of a side closed."""
    reach = 0.04 * len(changed)
    padded = np.pad(changed, int(reach) + 1)
    grown = ndimage.distance_transform_edt(~padded) <= reach
    closed = ndimage.distance_transform_edt(grown) > reach
    inner = slice(int(reach) + 1, -int(reach) - 1)
    return ndimage.binary_fill_holes(closed[inner, inner] | changed)


def _key(seed: int, product: Product, split: str) -> list[int]:
    """A random stream's name, the same whatever else is drawn."""
    return [seed, *product.name.encode(), *split.encode()]
