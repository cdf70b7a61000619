"""The view: which pixels of an image its network inputs are made of, and at what scale."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from typing import Any, Literal, Self

import numpy as np
from pydantic import Field, SerializerFunctionWrapHandler, field_validator, model_serializer, model_validator
from pydantic_core import PydanticCustomError

from raydiff.errors import ImageError, SettingsError
from raydiff.settings import Settings
from raydiff.views import roi
from raydiff.views.layout import Layout
from raydiff.views.ragged import Arrays
from raydiff.views.reduced import Reduced, factor
from raydiff.views.resizing import resized, resized_at_once

TILES = 256  # worked on at a time
OVERLAP = 8  # tiles overlap by this part of their side, where nothing else is said
LEAST_TILE = 16  # pixels
AUTO: Literal["auto"] = "auto"


class View(Settings):
    """What a network sees of an image. With none of these the whole image is stretched to the network's square.

    It is fixed by training and is part of the model: training, tuning, calibration and every score use the same.
    """

    # the image is cut into squares of so many of its pixels, each an input; `auto` until a training has chosen (`auto`)
    tile: int | Literal["auto"] | None = None
    overlap: int | None = Field(None, ge=0)  # of neighbouring tiles, pixels as of `tile`; None: an eighth of it
    scale: float = Field(1.0, gt=0, le=1)  # the image is made smaller by this before it is cut into tiles
    fit: Literal["stretch", "pad"] = "stretch"  # without tiles: to a square, or with its sides' ratio kept
    crop: tuple[float, float, float, float] | None = None  # x0, y0, x1, y1: pixels, or shares where all are <= 1
    jpeg: Literal["whole", "scaled"] = "whole"  # large JPEGs are unpacked whole, or by libjpeg at a part of their size
    # where to look: at the product, as each image shows it, or in a region of every category ("") or of each, kept as
    # text (see `roi.as_text`); an image's own, in its table's column roi_uri, comes before it
    roi: Literal["auto"] | dict[str, str] | None = None

    @field_validator("tile", mode="before")
    @classmethod
    def _pixels_or_auto(cls, value: Any) -> Any:
        if value in (None, AUTO) or (isinstance(value, int) and value >= LEAST_TILE):
            return value
        raise PydanticCustomError("tile", f"a number of pixels from {LEAST_TILE} on, or {AUTO}, is expected")

    @field_validator("roi")
    @classmethod
    def _regions(cls, given: str | dict[str, str] | None) -> str | dict[str, str] | None:
        for text in given.values() if isinstance(given, dict) else ():
            roi.from_text(text)
        return given

    @model_validator(mode="after")
    def _agree(self) -> Self:
        if self.tile == AUTO and (self.overlap is not None or self.scale != 1):
            raise ValueError("tile=auto chooses scale and overlap too; leave them out, or give tile in pixels")
        if self.tile is None and (self.overlap is not None or self.scale != 1):
            raise ValueError("overlap and scale are for tiles; give tile, the side of one in pixels, too")
        if self.tile is not None and self.fit == "pad":
            raise ValueError("tiles keep the image's ratio of sides already; give tile or fit=pad")
        if isinstance(self.tile, int) and self.overlap is not None and 2 * self.overlap > self.tile:
            raise ValueError(f"tiles of {self.tile} pixels overlap by at most half, {self.tile // 2}, of them")
        if self.crop is not None:
            x0, y0, x1, y1 = self.crop
            if min(self.crop) < 0 or x1 <= x0 or y1 <= y0:
                raise ValueError("crop is x0,y0,x1,y1 with x0 < x1 and y0 < y1, none below 0")
        return self

    @model_serializer(mode="wrap")
    def _told(self, told: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """As before there was a choice, where none was made: hashes of it are ids of models and of what is computed."""
        found: dict[str, Any] = told(self)
        later = {"jpeg": "whole", "roi": None}
        return {name: value for name, value in found.items() if name not in later or value != later[name]}

    @classmethod
    def values(cls, text: str) -> dict[str, Any]:
        """The settings in `tile=512,overlap=64` or `crop=0,0,800,600`, as plain values.

        Raises:
            SettingsError: if it is not NAME=VALUE with commas between, or says nothing that a view has.
        """
        found: dict[str, Any] = {}
        for item in re.split(r",\s*(?=[A-Za-z_]+=)", text):
            name, equals, value = item.strip().partition("=")
            if not equals:
                raise SettingsError(f"--view {text!r} is not NAME=VALUE with commas between, as in tile=512,overlap=64")
            if name == "roi" and value != roi.AUTO:
                raise SettingsError(f"roi={value} in --view: give a mask, or a folder of masks, by --roi {value}")
            try:
                found[name] = json.loads(f"[{value}]" if name == "crop" else value)
            except ValueError:
                found[name] = value
        cls.parse(found)
        return found

    @property
    def is_stretched(self) -> bool:
        """Whether all images become one square of the network's size."""
        return self.tile is None and self.fit == "stretch"

    def seen(
        self,
        image: np.ndarray,
        size: int,
        category: str | None = None,
        own: np.ndarray | None = None,
        reduced: Reduced | None = None,
    ) -> np.ndarray:
        """What is to be seen of an image (H, W, 3) of uint8, at the scale of a network of `size` pixels.

        (size, size, 3) where it is stretched; else as high and wide as the image's sides' ratio makes it. Where it is
        looked at in a region only, a fourth channel says so (see `roi`).

        Args:
            category: what the image shows, where it is known; each may have a region of its own.
            own: the image's own region, bool, (h, w) of its sides' ratio; it counts instead of the view's.

        Args:
            reduced: how it was made smaller already; None: it was not.

        Raises:
            ImageError: if the crop lies outside the image, or the view has no region for the category or none in the
                crop.
        """
        by, full_height, full_width, top, left = reduced or Reduced(1, image.shape[0], image.shape[1], 0, 0)
        rows, columns = self._place(full_height, full_width)
        height, width = self._scaled(rows.stop - rows.start, columns.stop - columns.start, size)
        inside = None
        whole = self._region(category) if own is None else own
        if whole is not None:
            there = roi.resized(whole, full_height, full_width)
            inside = roi.resized(there[rows, columns], height, width)
            if not inside.any():
                raise ImageError("its region of interest has no pixel in what the view shows of it; mend the mask")
            image = roi.painted(image, roi.resized(there, image.shape[0], image.shape[1]))
        # of pixels that the crop's edges divide the part within counts, and none beyond
        upper, lower = (top + edge / by for edge in (rows.start, rows.stop))
        first, last = (left + edge / by for edge in (columns.start, columns.stop))
        y, x = math.floor(upper), math.floor(first)
        box = first - x, upper - y, last - x, lower - y
        resize = resized if self.tile else resized_at_once  # images that are cut into tiles may come in bands
        found = resize(image[y : math.ceil(lower), x : math.ceil(last)], height, width, box)
        if own is None and self.roi == roi.AUTO:
            inside = roi.product(found)
            found = roi.painted(found, inside)
        return found if inside is None else roi.with_region(found, inside)

    def reduction(self, height: int, width: int, size: int) -> int:
        """By how much a JPEG of this size may be unpacked smaller for a network of `size` pixels; 1 = not at all.

        Raises:
            ImageError: if the crop lies outside the image.
        """
        if self.jpeg == "whole":
            return 1
        cropped = self.cropped(height, width)
        return factor(min(whole / part for whole, part in zip(cropped, self._scaled(*cropped, size), strict=True)))

    def seen_mask(self, mask: np.ndarray, size: int) -> np.ndarray:
        """As `seen`, of a bool mask (H, W): each pixel takes the nearest one's value."""
        cut = mask[self._place(mask.shape[0], mask.shape[1])]
        return roi.resized(cut, *self._scaled(cut.shape[0], cut.shape[1], size))

    def layout(self, shape: tuple[int, ...], size: int) -> Layout:
        """How an image that was `seen`, (H, W, ...), is cut into inputs of a network of `size` pixels."""
        if self.is_stretched and shape[:2] != (size, size):
            raise ValueError(f"({size}, {size}, 3) images expected, {shape} given")
        return Layout(shape[0], shape[1], size, self.overlap_seen(size))

    def tile_count(self, height: int, width: int, size: int) -> int:
        """Into how many tiles an image of this size is cut for a network of `size` pixels.

        Raises:
            ImageError: if the crop lies outside the image.
        """
        return self.layout_of(height, width, size).tile_count

    def layout_of(self, height: int, width: int, size: int) -> Layout:
        """As `layout`, of an image of this size in its file.

        Raises:
            ImageError: if the crop lies outside the image.
        """
        return self.layout(self.shape_seen(height, width, size), size)

    def shape_seen(self, height: int, width: int, size: int) -> tuple[int, int]:
        """Height and width of what is `seen` of an image of this size.

        Raises:
            ImageError: if the crop lies outside the image.
        """
        return self._scaled(*self.cropped(height, width), size)

    def is_large(self, layout: Layout) -> bool:
        """Whether an image has more tiles than are worked on at a time, and none of them is filled up."""
        return layout.tile_count > TILES and min(layout.height, layout.width) >= layout.size

    def groups(self, images: Arrays, size: int) -> Iterator[slice]:
        """Consecutive images, as they are seen, that have TILES tiles together at most, or a single one."""
        start, held = 0, 0
        for place, image in enumerate(images):
            count = self.layout(image.shape, size).tile_count
            if held and held + count > TILES:
                yield slice(start, place)
                start, held = place, 0
            held += count
        yield slice(start, len(images))

    def overlap_seen(self, size: int) -> int:
        """The overlap of tiles, pixels of a network of `size`."""
        side = self._side
        if side is None:
            return 0
        overlap = side / OVERLAP if self.overlap is None else self.overlap
        return round(overlap * size / side)

    def whole_map(self, found: np.ndarray, height: int, width: int) -> np.ndarray:
        """The map of a whole image, (height, width), from that of what was seen of it; zero where nothing was."""
        rows, columns = self._place(height, width)
        resize = resized if self.tile else resized_at_once
        part = resize(found, *self.cropped(height, width))
        if self.crop is None:
            return part
        whole = np.zeros((height, width), np.float32)
        whole[rows, columns] = part
        return whole

    def cropped(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of what the crop leaves of an image."""
        rows, columns = self._place(height, width)
        return rows.stop - rows.start, columns.stop - columns.start

    def _region(self, category: str | None) -> np.ndarray | None:
        """The region of a category's images, of some size; None where all of an image is looked at."""
        if not isinstance(self.roi, dict):
            return None
        text = self.roi.get(category or roi.ANY, self.roi.get(roi.ANY))
        if text is None:
            told = f"its category {category} has none" if category else "its category is not known"
            raise ImageError(
                f"the model looks at a region of interest a category ({', '.join(sorted(self.roi))}), and {told}"
            )
        return roi.from_text(text)

    def box(self, height: int, width: int) -> tuple[int, int, int, int]:
        """Where the crop lies in an image: x and y of its upper left corner, width, height.

        Raises:
            ImageError: if it lies outside the image.
        """
        rows, columns = self._place(height, width)
        return columns.start, rows.start, columns.stop - columns.start, rows.stop - rows.start

    def _scaled(self, height: int, width: int, size: int) -> tuple[int, int]:
        if self.is_stretched:
            return size, size
        side = self._side
        times = size / max(height, width) if side is None else self.scale * size / side
        return max(1, round(height * times)), max(1, round(width * times))

    @property
    def _side(self) -> int | None:
        """A tile's, pixels of the image."""
        if isinstance(self.tile, str):
            raise ValueError(f"tile={self.tile} is to be chosen before an image is seen")
        return self.tile

    def _place(self, height: int, width: int) -> tuple[slice, slice]:
        if self.crop is None:
            return slice(0, height), slice(0, width)
        units = (width, height) if max(self.crop) <= 1 else (1, 1)
        x0, y0, x1, y1 = (round(value * units[number % 2]) for number, value in enumerate(self.crop))
        if x1 > width or y1 > height or x1 <= x0 or y1 <= y0:
            raise ImageError(
                f"the crop {', '.join(f'{value:g}' for value in self.crop)} does not lie within the image, which is "
                f"{width} x {height} pixels"
            )
        return slice(y0, y1), slice(x0, x1)
