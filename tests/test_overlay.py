"""A heat map laid over its image, and its colour scale."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from raydiff.errors import DataError
from raydiff.images.overlay import OPACITY, layer, map_scale, overlay


def test_overlay_keeps_what_is_normal_and_heats_what_is_not() -> None:
    image = np.full((4, 6, 3), 120, dtype=np.uint8)
    heat = np.full((4, 6), 0.9, dtype=np.float32)
    heat[0, 0], heat[0, 1], heat[0, 2], heat[1, 1] = 2.0, 50.0, 1.5, np.nan
    laid = overlay(image, heat, 1.0, 2.0)
    assert laid.dtype == np.uint8
    assert laid.shape == image.shape
    assert (laid[2:] == 120).all()
    assert (laid[1, 1] == 120).all()
    assert (laid[0, 0] == laid[0, 1]).all()  # full heat is full heat
    full, half = (np.abs(laid[0, i].astype(int) - 120).max() for i in (0, 2))
    assert full > half > 20
    assert (image == 120).all()
    with pytest.raises(DataError, match="resize the map"):
        overlay(image, heat[:2], 1.0, 2.0)


def test_a_layer_laid_over_its_image_is_the_overlay() -> None:
    heat = np.linspace(-1.0, 4.0, 400, dtype=np.float32).reshape(20, 20)
    heat[3, 3] = np.nan
    image = np.random.default_rng(0).integers(0, 256, (20, 20, 3), dtype=np.uint8)
    seen = np.asarray(Image.open(io.BytesIO(layer(heat, 0.5, 3.0))).convert("RGBA"), dtype=float)
    share = OPACITY * seen[..., 3:] / 255
    np.testing.assert_allclose(share * seen[..., :3] + (1 - share) * image, overlay(image, heat, 0.5, 3.0), atol=3)
    assert (seen[..., 3][(heat <= 0.5) | np.isnan(heat)] == 0).all()
    assert (seen[..., 3][heat >= 3] == 255).all()


def test_overlay_of_a_scale_without_width_is_all_or_nothing() -> None:
    image = np.full((1, 2, 3), 50, dtype=np.uint8)
    laid = overlay(image, np.array([[1.0, 1.1]], dtype=np.float32), 1.0, 1.0)
    assert (laid[0, 0] == 50).all()
    assert (laid[0, 1] != 50).any()


def test_map_scale_leaves_normal_maps_mostly_clear() -> None:
    rng = np.random.default_rng(1)
    maps = [rng.normal(5, 1, (300, 200)).astype(np.float32) for _ in range(4)]
    low, high = map_scale(maps)
    pixels = np.concatenate([each.ravel() for each in maps])
    assert (pixels <= low).mean() == pytest.approx(0.9, abs=0.01)
    assert (pixels <= (low + high) / 2).mean() == pytest.approx(0.999, abs=0.001)
    with pytest.raises(DataError, match="at least one"):
        map_scale([])
    with pytest.raises(DataError, match="at least one"):
        map_scale([np.full((3, 3), np.nan, dtype=np.float32)])
