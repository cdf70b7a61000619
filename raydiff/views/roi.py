"""Regions of interest: where on an image to look.

What lies outside is painted over before an image is made smaller, so no network sees any of it: nothing there can
train, enter a bank or raise an alarm, and a score does not depend on it. An image that is looked at in part has a
fourth channel, 255 inside and 0 outside, which travels with it.
"""

from __future__ import annotations

import base64
import io
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw

from raydiff.views.foreground import foreground
from raydiff.views.ragged import Arrays

AUTO = "auto"  # the product, found on each image
ANY = ""  # the category of a region that is every category's
PAINT = (124, 116, 104)  # the mean colour of ImageNet, which is nothing to a pretrained network
LOOKED_AT = 256  # pixels of an image's longer side in which its product is looked for
REACH = 3  # of these around it: what sticks out of the product lies inside, too
SPECK = 0.05  # of the largest piece's area: smaller pieces are no product


def as_text(inside: np.ndarray) -> str:
    """A region (H, W), bool, as a model's settings keep it: base64 of a PNG with a bit a pixel."""
    buffer = io.BytesIO()
    Image.fromarray(inside).convert("1").save(buffer, "PNG", optimize=True)
    return base64.b64encode(buffer.getvalue()).decode("ascii")


@lru_cache(maxsize=64)
def from_text(text: str) -> np.ndarray:
    """The region (H, W), bool, that `as_text` gave; not to be written into.

    Raises:
        ValueError: if the text is no such picture, or no pixel of it is inside.
    """
    try:
        inside = np.array(Image.open(io.BytesIO(base64.b64decode(text, validate=True))).convert("1"))
    except Exception as error:  # what a damaged picture raises is anybody's guess
        raise ValueError(f"a region of interest is kept as a picture in base64, and this is none ({error})") from None
    if not inside.any():
        raise ValueError("a region of interest without a white pixel would show nothing; white is where to look")
    return inside


def resized(inside: np.ndarray, height: int, width: int) -> np.ndarray:
    """A region (H, W), bool, at another size: each pixel takes the nearest one's value."""
    if inside.shape == (height, width):
        return inside
    return np.array(Image.fromarray(inside).resize((width, height), Image.Resampling.NEAREST))


def product(seen: np.ndarray) -> np.ndarray:
    """The region (H, W) of an image (H, W, 3) in which it shows its product (see `foreground`).

    The convex hull of what stands out, specks left out, and a little around it: a piece that is missing of a product,
    and a part of it that looks like the background, are places to look at, too.
    """
    from scipy.ndimage import binary_dilation, label  # slow to load, and no other region needs them

    height, width = seen.shape[:2]
    factor = min(1.0, LOOKED_AT / max(height, width))
    small = Image.fromarray(seen).resize((max(1, round(width * factor)), max(1, round(height * factor))))
    found = foreground(np.asarray(small))
    pieces, _ = label(found)
    areas = np.bincount(pieces[found])
    hull = _convex_hull(np.isin(pieces, np.flatnonzero(areas >= SPECK * areas.max())))
    return resized(binary_dilation(hull, iterations=REACH), height, width)


def _convex_hull(found: np.ndarray) -> np.ndarray:
    """(H, W): the smallest convex region that holds each pixel of one that has some."""
    from scipy.spatial import ConvexHull, QhullError

    rows, columns = np.nonzero(found)
    try:
        corners = ConvexHull(np.stack([columns, rows], 1))
    except QhullError:  # all in one line
        return found
    hull = Image.new("1", found.shape[::-1])
    ImageDraw.Draw(hull).polygon([(int(x), int(y)) for x, y in corners.points[corners.vertices]], fill=1, outline=1)
    return np.array(hull)


def painted(image: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """An image (H, W, 3) with what lies outside painted over."""
    return np.where(inside[..., None], image, np.array(PAINT, np.uint8))


def with_region(image: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """(H, W, 4): an image (H, W, 3) and where it is looked at, (H, W) of bool."""
    return np.concatenate([image, np.where(inside, 255, 0).astype(np.uint8)[..., None]], 2)


def alike(images: Arrays, in_part: bool = False) -> Arrays:
    """Images (H, W, 3 or 4) with a fourth channel each, if one of them has it, or it is asked for; those without it are
    looked at whole.
    """
    if not in_part and len({image.shape[2] for image in images}) == 1:
        return images
    return [image if image.shape[2] == 4 else with_region(image, np.ones(image.shape[:2], bool)) for image in images]


def inside_of(images: np.ndarray) -> np.ndarray | None:
    """Where images (..., H, W, 3 or 4) are looked at, (..., H, W) of bool; None where all is."""
    return images[..., 3] > 0 if images.shape[-1] == 4 else None
