"""An image of a table's row, small, to be looked at: the reports and the viewer show it by the same rules."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from PIL import Image

from raydiff.errors import ImageError
from raydiff.images import pages
from raydiff.images.bands import size_if_large
from raydiff.images.decode import MAX_PIXELS, decode_noted
from raydiff.images.levels import Levels
from raydiff.images.pages import File
from raydiff.images.samples import check_size
from raydiff.views import reduced


class Small(NamedTuple):
    """What is shown of an image."""

    picture: Image.Image  # RGB
    height: int  # of the image in its file, upright, pixels
    width: int


def small(
    row: Mapping[str, Any],
    side: int,
    levels: Levels | None = None,
    max_pixels: int = MAX_PIXELS,
    fetch: Callable[[str], File] = pages.read,
) -> Small:
    """The image that a row is of, so that it fits into a square of `side` pixels; a smaller one stays as it is.

    Args:
        row: of an image or score table, with `uri` and what else it says of how the image is read (`Levels.of_row`).
        levels: the model's, which stored values are black and white.
        max_pixels: larger images are not shown.
        fetch: what fetches a file by its URI.

    Raises:
        ImageError: as `decode`, or if the row names no image.
        StorageError: if the file cannot be read.
        SettingsError: if the row says something of its levels that means nothing.
    """
    if not row["uri"]:
        raise ImageError("the row names no image")
    if size := size_if_large(row["uri"], max_pixels):  # before its file is fetched
        check_size(size[1], size[0], max_pixels)
    file = fetch(row["uri"])
    own = Levels.of_row(row, levels)
    found = decode_noted(file.data, max_pixels, own, file.page, lambda *sides: reduced.factor(max(sides) / side))
    picture = Image.fromarray(found.pixels)
    picture.thumbnail((side, side), Image.Resampling.BOX)
    return Small(picture, *found.size)
