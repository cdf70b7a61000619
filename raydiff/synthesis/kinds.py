"""What a made anomaly may do to a product, beside showing a fragment of another: the kinds that choices are made on.

Real defects are not all foreign fragments. A set of fragments alone is told apart by every candidate alike, so it
chooses by a tie; these kinds begin where an anomaly is just visible.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt, gaussian_filter, map_coordinates

from raydiff.synthesis.fragments import SHAPES, FragmentSettings, Image, Mask, Shape, fragment, line, make_anomaly
from raydiff.synthesis.textures import procedural_texture
from raydiff.views.foreground import foreground

Pixels = NDArray[np.float64]
Change = Callable[[Pixels, Mask, np.random.Generator, float], Pixels]
# of a target and a source, as `make_anomaly`; None if the target has nowhere that this would show
Kind = Callable[[Image, Image, np.random.Generator, FragmentSettings], tuple[Image, Mask] | None]

UNIT = 224  # lengths in pixels are meant for images of this side, and grow with the image
REACH = 16  # pixels around an area that a change may look at
JUST_VISIBLE = 0.7  # of the deviation of the grey levels that it covers: a change below it drowns in the texture


def _fragment(target: Image, source: Image, rng: np.random.Generator, settings: FragmentSettings) -> tuple[Image, Mask]:
    """The paper's: a piece of another image."""
    return make_anomaly(target, source, rng, settings)


def _moved(target: Image, source: Image, rng: np.random.Generator, settings: FragmentSettings) -> tuple[Image, Mask]:
    """A piece of the image itself, elsewhere and turned."""
    return make_anomaly(target, target, rng, settings)


def _changed(change: Change, shapes: tuple[Shape, ...] = SHAPES) -> Kind:
    """The kind that changes an area of the product in place."""

    def make(
        target: Image, source: Image, rng: np.random.Generator, settings: FragmentSettings
    ) -> tuple[Image, Mask] | None:
        height, width = target.shape[:2]
        scale = min(height, width) / UNIT
        places = np.argwhere(foreground(target))
        for _ in range(settings.tries):
            at = fragment(rng, height, width, settings, shapes) + rng.choice(places)
            at = at[((at >= 0) & (at < (height, width))).all(axis=1)]
            mask = np.zeros((height, width), bool)
            mask[at[:, 0], at[:, 1]] = True
            reach = round(REACH * scale)
            ends = zip(at.min(0), at.max(0), strict=True)
            window = tuple(slice(max(0, low - reach), high + 1 + reach) for low, high in ends)
            before, area = target[window].astype(np.float64), mask[window]
            share = gaussian_filter(area.astype(np.float64), 0.7 * scale)[..., None] * area[..., None]
            after = before + share * (change(before, area, rng, scale) - before)
            found = after.round().clip(0, 255).astype(np.uint8)
            visible = max(settings.difference, JUST_VISIBLE * float(before[area].mean(1).std()))
            if np.abs(found - before)[area].mean() >= visible:
                image = target.copy()
                image[window] = found
                return image, mask
        return None

    return make


def _texture(before: Pixels, area: Mask, rng: np.random.Generator, scale: float) -> Pixels:
    """Something else shows through."""
    drawn = procedural_texture(max(area.shape), torch.Generator().manual_seed(int(rng.integers(2**62))))
    texture = drawn.permute(1, 2, 0).numpy()[: area.shape[0], : area.shape[1]]
    return before + rng.uniform(0.25, 1.0) * (texture - before)


def _stain(before: Pixels, area: Mask, rng: np.random.Generator, scale: float) -> Pixels:
    """Darker, brighter or of another colour."""
    tint = rng.uniform(0.4, 1.0, 3) if rng.random() < 0.5 else np.ones(3)
    return before + rng.choice((-1.0, 1.0)) * rng.uniform(15.0, 90.0) * tint


def _noise(before: Pixels, area: Mask, rng: np.random.Generator, scale: float) -> Pixels:
    """Rough."""
    grain = gaussian_filter(rng.standard_normal(area.shape), rng.uniform(0.3, 1.5) * scale)
    return before + (rng.uniform(15.0, 70.0) / grain.std() * grain)[..., None]


def _blurred(before: Pixels, area: Mask, rng: np.random.Generator, scale: float) -> Pixels:
    """Smeared."""
    sigma = np.exp(rng.uniform(np.log(1.5), np.log(6.0))) * scale
    return gaussian_filter(before, (sigma, sigma, 0))


def _erased(before: Pixels, area: Mask, rng: np.random.Generator, scale: float) -> Pixels:
    """Missing: what lies around it goes on over it."""
    left, sigma = ~area[..., None], max(np.sqrt(area.sum()) / 2, 1.0)
    weight = gaussian_filter(left.astype(np.float64), (sigma, sigma, 0))
    return gaussian_filter(before * left, (sigma, sigma, 0)) / np.maximum(weight, 1e-6)


def _warped(before: Pixels, area: Mask, rng: np.random.Generator, scale: float) -> Pixels:
    """Pushed out of place, most in the middle."""
    depth = distance_transform_edt(area)
    angle, length = rng.uniform(0.0, 2.0 * np.pi), rng.uniform(3.0, 12.0) * scale
    y, x = np.mgrid[: area.shape[0], : area.shape[1]].astype(np.float64)
    push = length * depth / max(float(depth.max()), 1.0)
    there = np.stack([y + push * np.sin(angle), x + push * np.cos(angle)])
    return np.stack([map_coordinates(plane, there, order=1, mode="nearest") for plane in before.transpose(2, 0, 1)], 2)


KINDS: dict[str, Kind] = {
    "fragment": _fragment,
    "moved": _moved,
    "texture": _changed(_texture),
    "stain": _changed(_stain),
    "noise": _changed(_noise),
    "blur": _changed(_blurred),
    "erased": _changed(_erased),
    "warp": _changed(_warped),
    "scratch": _changed(_stain, (line,)),
}
