"""Pictures of rows, made when they are asked for: the image, small, and its heat map to be laid over it."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from functools import partial
from typing import Any, Literal

import numpy as np
from PIL import Image
from pydantic import BaseModel, Field

from raydiff import storage
from raydiff.errors import RaydiffError
from raydiff.images import packed_archive
from raydiff.images import table as images
from raydiff.images.decode import MAX_PIXELS, decode
from raydiff.images.encoded import data_uri, jpeg
from raydiff.images.levels import Levels
from raydiff.images.small import small
from raydiff.review.colours import Scales
from raydiff.review.recent import Recent
from raydiff.review.table import Table
from raydiff.scoring.maps import read_map
from raydiff.views import View, roi

_SIDES = {"small": 256, "large": 2048}  # of a picture's longer side, pixels
KEPT_BYTES = 64 * 2**20  # of small pictures that were made last
SEVERAL_PIXELS = 16_000_000  # images of more, or of unknown size, are read one at a time: each may take a GB
_JPEG_QUALITY = {"small": 82, "large": 90}
_OF_ROW = ["uri", "category", "category_guessed", "height", "width", "threshold", "map_uri", "score", images.BIT_DEPTH]

Size = Literal["small", "large"]


class Picture(BaseModel):
    """What there is to see of a row."""

    image: str | None = Field(None, description="data URI of a JPEG")
    width: int = Field(0, description="of the image itself, upright, pixels")
    height: int = 0
    error: str | None = Field(None, description="why there is no picture of the image")
    heat: str | None = Field(None, description="data URI of the heat map, to be laid over `box` of the image")
    box: list[int] = Field(default_factory=list, description="x, y, width, height in the image, pixels")
    no_heat: str | None = Field(None, description="why there is no heat map")


class Pictures:
    """Makes the pictures of a table's rows; may be used by several threads."""

    def __init__(
        self, table: Table, model: dict[str, Any] | None, max_pixels: int = MAX_PIXELS, archive_uri: str = ""
    ) -> None:
        """Args:
        model: its description (see `model.describe`), for levels, view and colours; None where it is not at hand.
        max_pixels: larger images are not shown.
        archive_uri: that was scored; if it is packed, images that are gone are taken from it.
        """
        self._table = table
        self._max_pixels = max_pixels
        self._archive = archive_uri
        self._scales = Scales(table, model)
        train = model["settings"]["train"] if model else {}
        self._levels = Levels.kept(train)
        self._view = View.parse(train["view"]) if "view" in train else None
        self._input = int(train["image_size"]) if train else None  # side of the networks' input, pixels
        self._kept: Recent[Picture] = Recent(KEPT_BYTES)
        self._large = threading.Lock()

    def of(self, row: int, size: Size) -> Picture:
        """The picture of a row; what cannot be shown is told in it.

        Raises:
            StorageError, DataError: as `Files.take`, if the row itself cannot be read.
        """
        kept = self._kept.get(row) if size == "small" else None
        if kept is not None:
            return kept
        told = self._table.files.take([row], _OF_ROW).to_pylist()[0]
        with self._room(told):
            found = self._made(told, size, self._table.files.shard(row))
        if size == "small":
            self._kept.put(row, found, 1000 + len(found.image or "") + len(found.heat or ""))
        return found

    @contextlib.contextmanager
    def _room(self, row: dict[str, Any]) -> Iterator[None]:
        pixels = (row["height"] or 0) * (row["width"] or 0)
        with contextlib.nullcontext() if 0 < pixels <= SEVERAL_PIXELS else self._large:
            yield

    def _made(self, row: dict[str, Any], size: Size, shard: str) -> Picture:
        fetch = partial(packed_archive.fetch, archive_uri=self._archive, shard=shard)
        try:
            picture, height, width = small(row, _SIDES[size], self._levels, self._max_pixels, fetch)
        except RaydiffError as error:
            return Picture(error=str(error))
        found = Picture(image=data_uri("image/jpeg", jpeg(picture, _JPEG_QUALITY[size])), width=width, height=height)
        try:
            return found.model_copy(update=self._heat(row, picture, height, width))
        except RaydiffError as error:
            return found.model_copy(update={"no_heat": str(error)})

    def _heat(self, row: dict[str, Any], picture: Image.Image, height: int, width: int) -> dict[str, Any]:
        """What `Picture` says of the heat map.

        Args:
            picture: what it is laid over.
            height, width: of the image itself.
        """
        from raydiff.images.overlay import layer  # and matplotlib, for which the first page need not wait

        place = row["map_uri"]
        if not place:
            return {"no_heat": "no map was written of this image; score with --maps tiff to have one"}
        if place.endswith(".png"):
            return self._lifted(place, picture, height, width)
        scale = self._scales.of(row["category"] or "", row["category_guessed"], row["threshold"])
        if scale is None:
            return {"no_heat": "no score says what is much heat here"}
        found = layer(shrunk(read_map(place), *picture.size), *scale)
        return {"heat": data_uri("image/png", found), "box": [0, 0, width, height]}

    def _lifted(self, place: str, picture: Image.Image, height: int, width: int) -> dict[str, Any]:
        """Of a map that was written as a picture, the part of the image that was looked at with its heat over it."""
        from raydiff.images.overlay import lifted

        laid = Image.fromarray(decode(storage.read_bytes(place), self._max_pixels))
        x, y, wide, high = box = self._view.box(height, width) if self._view else (0, 0, width, height)
        if laid.size != (wide, high):
            return {"no_heat": "the map shows a part of the image, and the model knows which: give it with --model"}
        across, down = picture.width / width, picture.height / height
        size = max(1, round(wide * across)), max(1, round(high * down))
        right, lower = min(picture.width, (x + wide) * across), min(picture.height, (y + high) * down)
        part = picture.resize(size, Image.Resampling.BILINEAR, (x * across, y * down, right, lower))
        shown = np.asarray(laid.resize(size, Image.Resampling.BOX))
        outside = (shown == roi.PAINT).all(axis=2, keepdims=True)  # of a region of interest, where there is no heat
        below = np.where(outside, shown, np.asarray(self._as_seen(part, height, width)))
        heat = jpeg(Image.fromarray(lifted(shown, below, np.asarray(part))), _JPEG_QUALITY["large"])
        return {"heat": data_uri("image/jpeg", heat), "box": [*box]}

    def _as_seen(self, part: Image.Image, height: int, width: int) -> Image.Image:
        """What was looked at of an image, with no more detail than the network saw, on which its heat was laid."""
        if self._view is None or self._input is None:
            return part
        seen = self._view.shape_seen(height, width, self._input)[::-1]
        smaller = min(seen[0], part.width), min(seen[1], part.height)
        return part.resize(smaller, Image.Resampling.BILINEAR).resize(part.size, Image.Resampling.BILINEAR)


def shrunk(anomaly_map: np.ndarray, width: int, height: int) -> np.ndarray:
    """A map (H, W) in fewer pixels, (height, width) float32, each the highest of those that it stands for.

    A mean would hide a small defect in a small picture. Along a side that is not longer than asked for it stays.
    """
    found = anomaly_map
    for axis, side in enumerate((height, width)):
        if found.shape[axis] > side:
            starts = np.arange(side) * found.shape[axis] // side
            found = np.fmax.reduceat(found, starts, axis=axis)  # passes over NaN
    return np.ascontiguousarray(found, np.float32)
