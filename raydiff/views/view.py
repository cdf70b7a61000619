"""The view: which pixels of an image its network inputs are made of, and at what scale."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, Literal, Self

import numpy as np
from PIL import Image
from pydantic import Field, model_validator

from raydiff.errors import ImageError, SettingsError
from raydiff.settings import Settings
from raydiff.views.layout import Layout
from raydiff.views.ragged import Arrays

TILES = 256  # worked on at a time
OVERLAP = 8  # tiles overlap by this part of their side, where nothing else is said


class View(Settings):
    """What a network sees of an image. With none of these the whole image is stretched to the network's square.

    It is fixed by training and is part of the model: training, tuning, calibration and every score use the same.
    """

    tile: int | None = Field(None, ge=16)  # the image is cut into squares of so many of its pixels, each an input
    overlap: int | None = Field(None, ge=0)  # of neighbouring tiles, pixels as of `tile`; None: an eighth of it
    scale: float = Field(1.0, gt=0, le=1)  # the image is made smaller by this before it is cut into tiles
    fit: Literal["stretch", "pad"] = "stretch"  # without tiles: to a square, or with its sides' ratio kept
    crop: tuple[float, float, float, float] | None = None  # x0, y0, x1, y1: pixels, or shares where all are <= 1

    @model_validator(mode="after")
    def _agree(self) -> Self:
        if self.tile is None and (self.overlap is not None or self.scale != 1):
            raise ValueError("overlap and scale are for tiles; give tile, the side of one in pixels, too")
        if self.tile is not None and self.fit == "pad":
            raise ValueError("tiles keep the image's ratio of sides already; give tile or fit=pad")
        if self.tile is not None and self.overlap is not None and 2 * self.overlap > self.tile:
            raise ValueError(f"tiles of {self.tile} pixels overlap by at most half, {self.tile // 2}, of them")
        if self.crop is not None:
            x0, y0, x1, y1 = self.crop
            if min(self.crop) < 0 or x1 <= x0 or y1 <= y0:
                raise ValueError("crop is x0,y0,x1,y1 with x0 < x1 and y0 < y1, none below 0")
        return self

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

    def seen(self, image: np.ndarray, size: int) -> np.ndarray:
        """What is to be seen of an image (H, W, 3) of uint8, at the scale of a network of `size` pixels.

        (size, size, 3) where it is stretched; else as high and wide as the image's sides' ratio makes it.

        Raises:
            ImageError: if the crop lies outside the image.
        """
        cut = image[self._place(image.shape[0], image.shape[1])]
        height, width = self._scaled(cut.shape[0], cut.shape[1], size)
        return np.array(Image.fromarray(cut).resize((width, height), Image.Resampling.BILINEAR))

    def seen_mask(self, mask: np.ndarray, size: int) -> np.ndarray:
        """As `seen`, of a bool mask (H, W): each pixel takes the nearest one's value."""
        cut = mask[self._place(mask.shape[0], mask.shape[1])]
        height, width = self._scaled(cut.shape[0], cut.shape[1], size)
        return np.array(Image.fromarray(cut).resize((width, height), Image.Resampling.NEAREST))

    def layout(self, shape: tuple[int, ...], size: int) -> Layout:
        """How an image that was `seen`, (H, W, ...), is cut into inputs of a network of `size` pixels."""
        if self.is_stretched and shape[:2] != (size, size):
            raise ValueError(f"({size}, {size}, 3) images expected, {shape} given")
        return Layout(shape[0], shape[1], size, self.overlap_seen(size))

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
        if self.tile is None:
            return 0
        overlap = self.tile / OVERLAP if self.overlap is None else self.overlap
        return round(overlap * size / self.tile)

    def whole_map(self, found: np.ndarray, height: int, width: int) -> np.ndarray:
        """The map of a whole image, (height, width), from that of what was seen of it; zero where nothing was."""
        rows, columns = self._place(height, width)
        size = self.cropped(height, width)[::-1]
        part = np.asarray(Image.fromarray(found).resize(size, Image.Resampling.BILINEAR))
        if self.crop is None:
            return part
        whole = np.zeros((height, width), np.float32)
        whole[rows, columns] = part
        return whole

    def cropped(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of what the crop leaves of an image."""
        rows, columns = self._place(height, width)
        return rows.stop - rows.start, columns.stop - columns.start

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
        factor = size / max(height, width) if self.tile is None else self.scale * size / self.tile
        return max(1, round(height * factor)), max(1, round(width * factor))

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
