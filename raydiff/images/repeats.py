"""Held-out images that show again what an image to train on shows: then their scores say nothing of new parts.

Several exposures of one part differ in brightness and a little in place, and agree in the fine texture that is the
part's own. So the images of a category are compared by small thumbnails of their local contrast, less what is common to
the category (its design, its light, how it is turned and shifted): the mean and the main components. What is left of
two images is compared by its correlation.

It is made to say nothing rather than something wrong. Images of one printed design that lie differently are alike, too,
but each then to many others; a repeat is alike to a few, so one that is near to many counts for nothing. Of few images
nothing can be told, since what is common to them is not known.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
from PIL import Image

from raydiff.images.layouts.found import Finding

SIDE = 64  # of a thumbnail, pixels
MOST_IMAGES = 8192  # that are compared, of all categories together: 64 MB of thumbnails
MOST_OF_CATEGORY = 2048
FEWEST_OF_CATEGORY = 64
ALIKE = 0.6  # correlation of two images that show the same
NEAR, MANY = 0.4, 10  # with this correlation, before components are taken out, to so many images it is a design's
MOST_COMPONENTS, IMAGES_A_COMPONENT = 32, 8
# Of a category's held-out images. If a share f of them scores as what was learned, a threshold for the false-alarm
# rate r gives up to r / (1 - f): below a tenth that is little, and real sets hold a picture or two that is there twice.
TOLD_SHARE, TOLD_IMAGES = 0.1, 2
PAIRS_SHOWN = 2  # of a category
_FINE, _AROUND = 2, 4  # pixels on each side: what is taken for the local mean, and for the local contrast
WHAT = (
    "held-out images that repeat images to train on, so the false-alarm rate cannot be promised; say which images show "
    "one part, with a column part or --part-from"
)


def to_compare(images: pa.Table, roles: Sequence[str]) -> set[str]:
    """The uris of the normals that are compared: some of each category, drawn evenly by a hash of their uris."""
    normals: dict[str, list[str]] = defaultdict(list)
    for uri, category, role in zip(images["uri"].to_pylist(), images["category"].to_pylist(), roles, strict=True):
        if role not in ("test", "unused"):
            normals[category].append(uri)
    most = min(MOST_OF_CATEGORY, MOST_IMAGES // max(len(normals), 1))
    found: set[str] = set()
    for uris in normals.values():
        if len(uris) >= FEWEST_OF_CATEGORY <= most:
            found.update(sorted(uris, key=lambda uri: hashlib.sha256(uri.encode()).digest())[:most])
    return found


def thumbnail(pixels: np.ndarray) -> np.ndarray:
    """The local contrast of an image, uint8 (height, width, 3), as float16 (SIDE, SIDE); zero where it is flat.

    A brighter or a more contrasty picture of the same has the same.
    """
    grey = Image.fromarray(pixels).convert("L").resize((SIDE, SIDE), Image.Resampling.BOX)
    light = np.log(np.asarray(grey, np.float32) + 8)  # a longer exposure multiplies; 8 of 255 bounds the noise of black
    fine = light - _box_mean(light, _FINE)
    contrast = np.sqrt(_box_mean(fine * fine, _AROUND))
    return (fine / (contrast + 0.5 * np.median(contrast) + 1e-4)).astype(np.float16)


def repeated(images: pa.Table, roles: Sequence[str], thumbnails: Mapping[str, np.ndarray]) -> Finding | None:
    """What is said of held-out images that repeat images to train on; None where too few do.

    Args:
        roles: of each row, as of `holdout.roles`.
        thumbnails: by uri, as many of `to_compare` as could be read.
    """
    sides: dict[str, tuple[list[str], list[str]]] = defaultdict(lambda: ([], []))
    for uri, category, role in zip(images["uri"].to_pylist(), images["category"].to_pylist(), roles, strict=True):
        if uri in thumbnails:
            sides[category][role != "fit"].append(uri)
    lines: list[str] = []
    total = 0
    for category, (fit, held_out) in sorted(sides.items()):
        if len(fit) + len(held_out) < FEWEST_OF_CATEGORY or not fit or not held_out:
            continue
        pairs = _pairs([*held_out, *fit], len(held_out), thumbnails)
        if len(pairs) < max(TOLD_IMAGES, TOLD_SHARE * len(held_out)):
            continue
        total += len(pairs)
        lines.append(f"{category}: {len(pairs)} of the {len(held_out)} held-out images that were compared")
        lines += [f"{one} repeats {other}" for one, other in pairs[:PAIRS_SHOWN]]
    return Finding(WHAT, tuple(lines), total) if lines else None


def _pairs(uris: list[str], held_out: int, thumbnails: Mapping[str, np.ndarray]) -> list[tuple[str, str]]:
    """Each of the first `held_out` images that repeats one of the others, and which; the most alike first."""
    values = np.stack([thumbnails[uri] for uri in uris]).reshape(len(uris), -1).astype(np.float32)
    values -= values.mean(0)
    whole = _unit(values)
    near = np.sort(whole[:held_out] @ whole[held_out:].T, axis=1)[:, -MANY:]
    of_a_design = near.shape[1] == MANY and near[:, 0] > NEAR
    own = _unit(_without_components(values))
    alike = own[:held_out] @ own[held_out:].T
    best = alike.argmax(1)
    correlation = np.where(of_a_design, -1.0, alike[np.arange(held_out), best])
    order = np.argsort(-correlation, kind="stable")
    return [(uris[at], uris[held_out + best[at]]) for at in order if correlation[at] >= ALIKE]


def _without_components(values: np.ndarray) -> np.ndarray:
    """Rows, float32 (images, values) of mean zero, less their main components."""
    count = min(MOST_COMPONENTS, len(values) // IMAGES_A_COMPONENT)
    main = np.linalg.eigh(values @ values.T)[1][:, -count:]  # of the rows, which are fewer than the values
    return values - main @ (main.T @ values)


def _unit(values: np.ndarray) -> np.ndarray:
    centred = values - values.mean(1, keepdims=True)
    return centred / np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-6)


def _box_mean(image: np.ndarray, reach: int) -> np.ndarray:
    """The mean of the square that reaches so many pixels to each side, mirrored at the border."""
    size = 2 * reach + 1
    for axis in (0, 1):
        padded = np.pad(image, [(reach, reach) if at == axis else (0, 0) for at in (0, 1)], mode="reflect")
        image = np.lib.stride_tricks.sliding_window_view(padded, size, axis=axis).mean(-1)
    return image
