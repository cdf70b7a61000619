"""Which stored values are black and white, where the file does not say it or says more than its camera gave.

A train setting: it is part of the trained model, and all that reads images for the model applies it. It is one for all
images, so that brightness stays comparable between them; what lies beyond is clipped.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from pydantic import Field, model_validator

from raydiff.errors import ImageError, SettingsError
from raydiff.settings import Settings

DEPTHS = (10, 12, 14)
_FULL = 65535  # white of a 16-bit file
_ROWS = 256  # converted at a time, where it takes eight bytes a value


class Levels(Settings):
    """Either a camera's depth, for what it keeps in 16-bit files, or the values of black and white, for all files.

    Attributes:
        bit_depth: 10, 12 or 14. White of 16-bit files is 2**bit_depth - 1; all other files keep their own white.
        low, high: the stored values of black and white, of files of any kind: signed, 32-bit and floats too.
    """

    bit_depth: Literal[10, 12, 14] | None = None
    low: float | None = Field(None, allow_inf_nan=False)
    high: float | None = Field(None, allow_inf_nan=False)

    @model_validator(mode="after")
    def _one_of_both(self) -> Levels:
        if (self.bit_depth is None) == (self.low is None and self.high is None):
            raise ValueError("give either bit_depth, or low and high")
        if self.bit_depth is None and (self.low is None or self.high is None or not self.low < self.high):
            raise ValueError("low and high are the values of black and white: give both, the lower one first")
        return self

    @classmethod
    def of_options(cls, bit_depth: int | None, levels: str | None) -> Levels | None:
        """Of `--bit-depth 12` and `--levels LOW,HIGH`; None where neither is given.

        Raises:
            SettingsError: if both are given, or one means nothing.
        """
        if bit_depth is not None and levels is not None:
            raise SettingsError("--bit-depth and --levels both say which value is white; give one of them")
        if bit_depth is not None:
            if bit_depth not in DEPTHS:
                known = ", ".join(map(str, DEPTHS))
                raise SettingsError(f"--bit-depth {bit_depth} is none of {known}; give --levels LOW,HIGH for others")
            return cls.parse({"bit_depth": bit_depth})
        if levels is None:
            return None
        low, _, high = levels.partition(",")
        try:
            return cls(low=float(low), high=float(high))
        except ValueError:
            raise SettingsError(
                f"--levels {levels} is not LOW,HIGH: two numbers, the stored value of black and the higher one of "
                "white, as in --levels 0,4095"
            ) from None

    @classmethod
    def kept(cls, train: Mapping[str, Any]) -> Levels | None:
        """Of a trained model, by the train settings in its description."""
        found = train.get("levels")  # a model that was trained before there were any has none
        return cls.parse(found) if found else None

    def option(self) -> str:
        """As it is given on the command line."""
        return f"--bit-depth {self.bit_depth}" if self.bit_depth else f"--levels {self.low:.15g},{self.high:.15g}"

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
        assert self.bit_depth is not None
        return (0.0, 2.0**self.bit_depth - 1) if kind.kind == "u" and white == _FULL else None


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


def advice(highest: int) -> str | None:
    """What is to be said of 16-bit files none of whose values is above `highest`; None where they use their range."""
    if highest <= 0 or highest >= 2 ** DEPTHS[-1]:
        return None
    depth = next(depth for depth in (8, *DEPTHS) if highest < 2**depth)
    option = "--levels 0,255" if depth == 8 else f"--bit-depth {depth}"
    return f"16-bit images all of whose values lie below {2**depth:,}, so that they look dark; train with {option}"
