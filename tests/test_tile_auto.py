"""`tile=auto`: against images that are really cut, and what it says of them."""

from __future__ import annotations

import io
import statistics

import numpy as np
import pyarrow as pa
import pytest
from conftest import tiny_settings
from PIL import Image

from raydiff.errors import DataError, SettingsError
from raydiff.training.tile import with_tile
from raydiff.views import View
from raydiff.views.auto import BUDGET, STEP, chosen

AUTO = View.parse({"tile": "auto"})


def cut(view: View, shapes: list[tuple[int, int]], size: int) -> float:
    """Tiles an image, by cutting images."""
    counts = []
    for shape in shapes:
        seen = view.seen(np.zeros((*shape, 3), np.uint8), size)
        counts.append(len(view.layout(seen.shape, size).tiles(seen)))
    return statistics.fmean(counts)


@pytest.mark.parametrize("shapes", [[(336, 336)], [(100, 336)], [(60, 60)], [(300, 200)] * 3 + [(900, 900)]])
def test_images_hardly_larger_than_the_network_are_seen_whole(shapes):
    view, why = chosen(AUTO, shapes, 224)
    assert view == View()
    assert "no tiles, one input an image" in why
    assert "within 1.5 times the network's 224 lose little" in why


@pytest.mark.parametrize("shapes", [[(337, 337)], [(600, 800)], [(224, 5000)], [(900, 900), (400, 300)]])
def test_each_pixel_is_shown_where_that_is_cheap(shapes):
    view, why = chosen(AUTO, shapes, 224)
    assert view == View(tile=224)
    count = cut(view, shapes, 224)
    assert count <= BUDGET
    assert f"tile=224, {count:.3g} tiles an image" in why
    assert "each of which is one of the network's" in why
    assert ("in the mean" in why) == (len(shapes) > 1)


@pytest.mark.parametrize(
    "shapes", [[(700, 1000)], [(600, 800)], [(1500, 1500), (180, 200)], [(100, 6000)], [(400, 400)] * 3]
)
@pytest.mark.parametrize("size", [24, 64])
def test_it_is_the_smallest_tile_of_the_budget(shapes, size):
    view, why = chosen(AUTO, shapes, size)
    assert view.tile % STEP == 0
    assert view.tile >= size
    count = cut(view, shapes, size)
    assert count <= BUDGET
    if view.tile == size:
        return
    assert cut(View(tile=view.tile - STEP), shapes, size) > BUDGET
    assert f"tile={view.tile}, {count:.3g} tiles an image" in why
    assert f"tile={size} would show each, with {cut(View(tile=size), shapes, size):,.0f} tiles" in why


def test_what_a_crop_leaves_counts():
    whole, _ = chosen(AUTO, [(3000, 4000)], 224)
    view, why = chosen(AUTO.changed(crop=(0, 0, 0.5, 0.5)), [(3000, 4000)], 224)
    assert view == View(tile=chosen(AUTO, [(1500, 2000)], 224).view.tile, crop=(0, 0, 0.5, 0.5))
    assert view.tile < whole.tile
    assert "2,000 x 1,500" in why
    assert chosen(AUTO.changed(crop=(0, 0, 300, 300)), [(3000, 4000)], 224).view == View(crop=(0, 0, 300, 300))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "tile=auto,overlap=8",
            "View: tile=auto chooses scale and overlap too; leave them out, or give tile in pixels",
        ),
        (
            "tile=auto,scale=0.5",
            "View: tile=auto chooses scale and overlap too; leave them out, or give tile in pixels",
        ),
        ("tile=auto,fit=pad", "View: tiles keep the image's ratio of sides already; give tile or fit=pad"),
        ("tile=large", r"View.tile: a number of pixels from 16 on, or auto, is expected \(got 'large'\)"),
        ("tile=8", r"View.tile: a number of pixels from 16 on, or auto, is expected \(got 8\)"),
        ("tile=99.5", r"View.tile: a number of pixels from 16 on, or auto, is expected \(got 99.5\)"),
    ],
)
def test_what_it_does_not_go_with(text, message):
    with pytest.raises(SettingsError, match=f"^{message}$"):
        View.values(text)


def test_nothing_is_seen_before_it_is_chosen():
    with pytest.raises(ValueError, match="tile=auto is to be chosen before an image is seen"):
        AUTO.seen(np.zeros((64, 64, 3), np.uint8), 32)


def table(folder, images: dict[str, bytes]) -> pa.Table:
    uris = []
    for name, data in images.items():
        (folder / name).write_bytes(data)
        uris.append(str(folder / name))
    return pa.table({"uri": uris, "category": ["plate"] * len(uris)})


def encoded(height: int, width: int, kind: str = "PNG", orientation: int = 1) -> bytes:
    exif = Image.Exif()
    exif[274] = orientation
    sink = io.BytesIO()
    Image.new("RGB", (width, height)).save(sink, kind, exif=exif)
    return sink.getvalue()


def test_a_training_looks_at_its_images(tmp_path, capsys):
    """Of 32-pixel networks: a JPEG that lies on its side, and a file that is none."""
    rows = table(
        tmp_path,
        {"a.png": encoded(300, 200), "b.jpg": encoded(200, 300, "JPEG", orientation=6), "c.png": b"no image"},
    )
    settings = tiny_settings("nearest_patch", view={"tile": "auto"})
    found = with_tile(settings, rows)
    assert found == settings.changed(view=chosen(AUTO, [(300, 200)], 32).view.model_dump())
    assert "200 x 300 pixels" in capsys.readouterr().out
    assert with_tile(found, rows) is found
    assert with_tile(settings, rows.take([2, 1, 0])) == found
    cropped = settings.changed(view={"tile": "auto", "crop": (0, 0, 200, 300)})  # upright, so that it lies within both
    assert with_tile(cropped, rows).view.crop == (0, 0, 200, 300)


def test_a_training_none_of_whose_images_can_be_read(tmp_path):
    rows = table(tmp_path, {"a.png": b"no image"})
    settings = tiny_settings("nearest_patch", view={"tile": "auto"})
    with pytest.raises(DataError, match=r"none of 1 images to train on can be read \(.*a.png: this is no PNG"):
        with_tile(settings, rows)
