"""Heat maps that were written as pictures (`--maps png`), in the viewer: at each strength as those of float maps."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from made_archive import calibration, score_rows, write_archive
from PIL import Image

from raydiff.images.overlay import OPACITY, layer, lifted, overlay
from raydiff.review.serving import opened
from raydiff.review.thumbnails import Picture, Size
from raydiff.scoring.maps import write_map
from raydiff.views import View, roi

CALIBRATED = calibration(("bolt",))
LOW, HIGH = CALIBRATED.of("bolt").colour_scale()
HEIGHT, WIDTH = 200, 320
CROP = (0.25, 0.25, 0.75, 0.75)  # shares of the image


def pictured(folder: Path, image: np.ndarray, found: np.ndarray, size: Size, **settings: Any) -> Picture:
    """The viewer's picture of the only image of an archive.

    Args:
        found: its map, float, or the picture of its heat map.
        settings: the model's, for training.
    """
    kind = "tiff" if found.dtype == np.float32 else "png"
    place = str(folder / f"maps/0.{kind}")
    Path(place).parent.mkdir(parents=True)
    if kind == "tiff":
        write_map(place, found)
    else:
        Image.fromarray(found).save(place)
    Image.fromarray(image).save(folder / "0.png")
    rows = score_rows(1, CALIBRATED)
    told = {"uri": str(folder / "0.png"), "map_uri": place, "height": image.shape[0], "width": image.shape[1]}
    for name, value in told.items():
        field = rows.schema.field(name)
        rows = rows.set_column(rows.schema.get_field_index(name), field, pa.array([value], field.type))
    viewer = opened(write_archive(folder, rows, CALIBRATED, kind, **settings))
    made = viewer.pictures.of(0, size)
    viewer.table.files.close()
    assert made.no_heat is None
    return made


def decoded(uri: str | None) -> Image.Image:
    assert uri
    return Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1])))


def shown(made: Picture, strength: float) -> np.ndarray:
    """What a browser makes of a picture with its heat map at this strength; float (h, w, 3)."""
    image = np.asarray(decoded(made.image).convert("RGB"), dtype=float)
    across, down = image.shape[1] / made.width, image.shape[0] / made.height
    x, y, wide, high = made.box
    left, top, right, lower = round(x * across), round(y * down), round((x + wide) * across), round((y + high) * down)
    heat = np.asarray(decoded(made.heat).convert("RGBA").resize((right - left, lower - top)), dtype=float)
    share = strength * heat[..., 3:] / 255
    part = image[top:lower, left:right]
    image[top:lower, left:right] = share * heat[..., :3] + (1 - share) * part
    return image


def scene(height: int = HEIGHT, width: int = WIDTH) -> tuple[np.ndarray, np.ndarray]:
    """An image, and a map that rises from no heat to more than the full one."""
    y, x = np.mgrid[:height, :width]
    grey = 120 + 60 * np.sin(x / 23) * np.cos(y / 31)
    image = np.stack([grey, 0.8 * grey + 20, 200 - 0.7 * grey], axis=-1).round().astype(np.uint8)
    away = ((y - height / 2) ** 2 + (x - width / 2) ** 2) / (height / 6) ** 2
    return image, (LOW - 0.5 + (HIGH - LOW) * 1.4 * np.exp(-away / 2)).astype(np.float32)


@pytest.mark.parametrize("strength", [0.25, 0.5, 0.75, 1.0])
@pytest.mark.parametrize("size", ["small", "large"])
@pytest.mark.parametrize("crop", [None, CROP], ids=["whole", "cropped"])
def test_a_picture_of_heat_is_shown_as_its_map_would_be(tmp_path, crop, size, strength):
    image, found = scene()
    view = View(tile=WIDTH, crop=crop)
    x, y, wide, high = view.box(HEIGHT, WIDTH)
    part = slice(y, y + high), slice(x, x + wide)
    whole = np.full_like(found, LOW - 1)
    whole[part] = found[part]
    settings = {"image_size": WIDTH, "view": view.model_dump(mode="json")}
    float_map = pictured(tmp_path / "tiff", image, whole, size, **settings)
    picture = pictured(tmp_path / "png", image, overlay(image[part], found[part], LOW, HIGH), size, **settings)
    assert picture.box == [x, y, wide, high]
    expected, got = shown(float_map, strength), shown(picture, strength)
    assert np.abs(expected - shown(float_map, 0.0)).max() > 100 * strength  # there is heat to be seen
    # What is left is JPEG's, and in a small picture, whose pixels show the highest heat of several or their mean, that.
    off = np.abs(got - expected)
    assert off.mean() < 1.5 * strength
    assert np.quantile(off, 0.99) < 7 * strength
    assert off.max() < 20 * strength


def test_the_image_stays_sharp_where_the_network_saw_less_of_it(tmp_path):
    image, found = scene()
    image[:, ::2] -= 24
    image[:, 1::2] += 24
    view = View()
    seen = Image.fromarray(view.seen(image, 64))
    small_map = np.asarray(Image.fromarray(found).resize((64, 64), Image.Resampling.BILINEAR))
    laid = Image.fromarray(overlay(np.asarray(seen), small_map, LOW, HIGH)).resize(
        (WIDTH, HEIGHT), Image.Resampling.BILINEAR
    )
    settings = {"image_size": 64, "view": view.model_dump(mode="json")}
    picture = pictured(tmp_path, image, np.asarray(laid), "large", **settings)
    cold = view.whole_map(small_map, HEIGHT, WIDTH) < LOW - 0.4
    assert np.abs(shown(picture, 1.0) - image)[cold].mean() < 3


def test_what_lies_outside_a_region_of_interest_stays_as_it_is(tmp_path):
    image, found = scene()
    inside = np.zeros((HEIGHT, WIDTH), bool)
    inside[48:152, 80:240] = True
    view = View(tile=WIDTH, roi={"": roi.as_text(inside)})
    laid = overlay(view.seen(image, WIDTH)[..., :3], np.where(inside, found, LOW - 1).astype(np.float32), LOW, HIGH)
    settings = {"image_size": WIDTH, "view": view.model_dump(mode="json")}
    seen = shown(pictured(tmp_path, image, laid, "large", **settings), 1.0)
    beyond = np.ones_like(inside)
    beyond[32:168, 64:256] = False  # JPEG's blocks at the edge show some of both
    assert np.abs(seen - image)[beyond].mean() < 2


def test_lifted_heat_is_the_overlay_at_its_own_opacity_and_the_layer_at_any():
    image, found = scene()
    laid = overlay(image, found, LOW, HIGH)
    heat = lifted(laid, image, image)
    np.testing.assert_allclose(OPACITY * heat + (1 - OPACITY) * image, laid, atol=0.5)
    clear = np.asarray(Image.open(io.BytesIO(layer(found, LOW, HIGH))).convert("RGBA"), dtype=float)
    share = clear[..., 3:] / 255
    np.testing.assert_allclose(heat, share * clear[..., :3] + (1 - share) * image, atol=3)
