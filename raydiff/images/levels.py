"""Which stored values are black and white, where the file does not say it or says more than its camera gave.

A train setting: it is part of the trained model, and all that reads images for the model applies it. It is one for all
images, or for all of a category, so that brightness stays comparable between them; what lies beyond is clipped.
"""

from __future__ import annotations

import shlex
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Literal

import numpy as np
from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from raydiff.errors import ImageError, SettingsError
from raydiff.images import table
from raydiff.settings import Settings

DEPTHS = (10, 12, 14)
_FULL = 65535  # white of a 16-bit file
_ROWS = 256  # converted at a time, where it takes eight bytes a value


class Levels(Settings):
    """Either a camera's depth, for what it keeps in 16-bit files, or the values of black and white, for all files.

    Attributes:
        bit_depth: 10, 12 or 14. White of 16-bit files is 2**bit_depth - 1; all other files keep their own white.
        low, high: the stored values of black and white, of files of any kind: signed, 32-bit and floats too.
        categories: levels of their own of some categories' images; the others have those above, or each file its own.
    """

    bit_depth: Literal[10, 12, 14] | None = None
    low: float | None = Field(None, allow_inf_nan=False)
    high: float | None = Field(None, allow_inf_nan=False)
    categories: dict[str, Levels] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _one_of_both(self) -> Levels:
        if any(levels.categories for levels in self.categories.values()):
            raise ValueError("the levels of a category are its own; give it no categories")
        if self.categories and not self._for_all:
            return self
        if (self.bit_depth is None) == (self.low is None and self.high is None):
            raise ValueError("give either bit_depth, or low and high")
        if self.bit_depth is None and (self.low is None or self.high is None or not self.low < self.high):
            raise ValueError("low and high are the values of black and white: give both, the lower one first")
        return self

    @model_serializer(mode="wrap")
    def _told(self, told: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """As before categories could have their own, where none has: hashes of it are ids of models."""
        found: dict[str, Any] = told(self)
        return {name: value for name, value in found.items() if name != "categories" or value}

    @classmethod
    def of_options(cls, bit_depth: Sequence[str] | None, levels: Sequence[str] | None) -> Levels | None:
        """Of `--bit-depth 12` and `--levels LOW,HIGH`, with `CATEGORY=` before it for one; None where none is given.

        Raises:
            SettingsError: if one thing is said twice, or one means nothing.
        """
        found: dict[str, Levels] = {}
        for read, items in ((cls._of_depth, bit_depth), (cls._of_range, levels)):
            for item in items or ():
                category, _, value = item.rpartition("=")
                if category in found:
                    of = f" of {category}" if category else ""
                    raise SettingsError(f"--bit-depth and --levels both say which value is white{of}, or one twice")
                found[category] = read(value)
        if set(found) <= {""}:
            return found.get("")
        own = found.pop("").model_dump() if "" in found else {}
        return cls.parse({**own, "categories": {name: each.model_dump() for name, each in found.items()}})

    @classmethod
    def _of_depth(cls, text: str) -> Levels:
        if text not in map(str, DEPTHS):
            known = ", ".join(map(str, DEPTHS))
            raise SettingsError(f"--bit-depth {text} is none of {known}; give --levels LOW,HIGH for others")
        return cls.parse({"bit_depth": int(text)})

    @classmethod
    def _of_range(cls, text: str) -> Levels:
        low, _, high = text.partition(",")
        try:
            return cls(low=float(low), high=float(high))
        except ValueError:
            raise SettingsError(
                f"--levels {text} is not LOW,HIGH: two numbers, the stored value of black and the higher one of "
                "white, as in --levels 0,4095"
            ) from None

    @classmethod
    def kept(cls, train: Mapping[str, Any]) -> Levels | None:
        """Of a trained model, by the train settings in its description."""
        found = train.get("levels")  # a model that was trained before there were any has none
        return cls.parse(found) if found else None

    @property
    def _for_all(self) -> bool:
        """Whether there are any for categories that have none of their own."""
        return self.bit_depth is not None or self.low is not None or self.high is not None

    def of(self, category: str | None) -> Levels | None:
        """Those of a category's images; None where each file's own hold."""
        if category in self.categories:
            return self.categories[category]
        return self.changed(categories={}) if self._for_all else None

    @classmethod
    def of_row(cls, row: Mapping[str, Any], levels: Levels | None) -> Levels | None:
        """Those of the image that a row is of: what the row says, or its category's; None: as the file says.

        Args:
            row: of an image or score table, with `category`.
            levels: of all categories.
        """
        depth = row.get(table.BIT_DEPTH)
        if depth is not None:
            return cls.parse({"bit_depth": depth})
        return levels.of(row.get("category")) if levels else None

    def check(self, known: Collection[str]) -> None:
        """Whether all categories that are named are there.

        Raises:
            SettingsError: if one is not.
        """
        if lost := sorted(set(self.categories) - set(known)):
            raise SettingsError(
                f"levels are given for {lost[0]!r}, which is no category of these images: they have "
                f"{', '.join(sorted(known))}"
            )

    def option(self) -> str:
        """As they are given on the command line."""
        own = [("", self)] if self._for_all else []
        return " ".join(
            f"--bit-depth {shlex.quote(f'{before}{levels.bit_depth}')}"
            if levels.bit_depth
            else f"--levels {shlex.quote(f'{before}{levels.low:.15g},{levels.high:.15g}')}"
            for before, levels in [*own, *((f"{name}=", levels) for name, levels in self.categories.items())]
        )

    def ends(self, kind: np.dtype, white: int, measured: bool = False) -> tuple[float, float] | None:
        """The values of black and white in a file; None where its own hold.

        Args:
            kind: of its values.
            white: its own; 0 = it has none.
            measured: its values are in a unit, whatever its bits can hold.

        Raises:
            ImageError: if the file cannot hold a value as high as white.
        """
        if self.low is not None and self.high is not None:
            if kind.kind == "u" and 0 < white < self.high and not measured:
                raise ImageError(
                    f"the file's values end at {white:,}, and the levels at {self.high:,.15g}: it is kept in other "
                    "numbers than the images that the levels are for; save it as those are"
                )
            return self.low, self.high
        deep = self.bit_depth is not None and kind.kind == "u" and white == _FULL
        return (0.0, 2.0**self.bit_depth - 1) if deep and self.bit_depth else None


def eight_bits(values: np.ndarray, ends: tuple[float, float], inverted: int | None = None) -> np.ndarray:
    """uint8, of the same shape: 0 at `ends[0]` and below, 255 at `ends[1]` and above, in a straight line between.

    Args:
        values: integers or floats of any size.
        inverted: where the lowest value is white, what the values were taken from: `inverted - values` was stored.

    Raises:
        ImageError: if a value is no number.
    """
    if values.dtype.kind == "u" and values.dtype.itemsize <= 2:
        stored = np.arange(np.iinfo(values.dtype).max + 1)
        return _line(inverted - stored if inverted is not None else stored, ends, inverted is not None)[values]
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise ImageError("some of the pixels are no numbers (NaN or infinite); write a number there")
    found = np.empty(values.shape, np.uint8)
    for top in range(0, len(values), _ROWS):
        some = values[top : top + _ROWS]
        some = values.dtype.type(inverted) - some if inverted is not None else some
        found[top : top + _ROWS] = _line(some, ends, inverted is not None)
    return found


def _line(stored: np.ndarray, ends: tuple[float, float], inverted: bool) -> np.ndarray:
    low, high = ends
    share = np.clip((stored.astype(np.float64) - low) / (high - low), 0, 1)
    return np.rint(255 * (1 - share if inverted else share)).astype(np.uint8)


def advice(highest: Mapping[str, int]) -> list[tuple[str, list[str]]]:
    """What is to be said of 16-bit files, and of which categories' it is said.

    One thing of all, where one depth is enough for them: a camera's images may be dark in one category. Else of those
    whose own values lie below.

    Args:
        highest: the highest value that the 16-bit files of each category hold.
    """
    if whole := _advice(max(highest.values(), default=0)):
        return [(whole, list(highest))]
    each = ((name, _advice(value, name)) for name, value in sorted(highest.items()))
    return [(said, [name]) for name, said in each if said]


def _advice(highest: int, category: str = "") -> str | None:
    """None where they use their range."""
    if highest <= 0 or highest >= 2 ** DEPTHS[-1]:
        return None
    depth = next(depth for depth in (8, *DEPTHS) if highest < 2**depth)
    for_one = f"{category}=" * bool(category)
    option = f"--levels {for_one}0,255" if depth == 8 else f"--bit-depth {for_one}{depth}"
    of = f" of {category}" * bool(category)
    return f"16-bit images{of} all of whose values lie below {2**depth:,}, so that they look dark; train with {option}"
