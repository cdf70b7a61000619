"""What is seen of an image that comes in bands of rows, and its map: to the bit as of the whole."""

import numpy as np
import pytest
from PIL import Image

from raydiff.errors import ImageError
from raydiff.views import View
from raydiff.views.banded import map_rows, seen_rows
from raydiff.views.resizing import resized, resized_rows

# Smaller, larger, the same, by whole numbers and not, one direction alone, lying and standing.
SIZES = [
    ((300, 200), (70, 50)),
    ((60, 250), (14, 57)),
    ((900, 50), (300, 60)),
    ((50, 60), (200, 300)),
    ((100, 80), (437, 350)),
    ((999, 77), (219, 17)),
    ((64, 64), (64, 30)),
    ((64, 64), (30, 64)),
    ((33, 40), (33, 40)),
]


def images(height: int, width: int) -> list[np.ndarray]:
    """A picture and a map."""
    rng = np.random.default_rng(height)
    return [rng.integers(0, 256, (height, width, 3)).astype(np.uint8), 50 * rng.random((height, width), np.float32)]


def bands(image: np.ndarray, rows: int) -> list[np.ndarray]:
    return [image[top : top + rows] for top in range(0, len(image), rows)]


def same(found: np.ndarray, wanted: np.ndarray) -> None:
    assert found.dtype == wanted.dtype
    np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize(("of", "to"), SIZES)
def test_in_bands_as_whole(of, to):
    for image in images(*of):
        whole = resized(image, *to)
        for rows in (1, 7, 1000):
            same(np.concatenate(list(resized_rows(bands(image, rows), of[0], *to))), whole)


@pytest.mark.parametrize(("of", "to"), SIZES)
def test_as_pillow_resizes(of, to):
    """In one go, but that it may round between the other two directions."""
    for image in images(*of):
        found = resized(image, *to).astype(float)
        pillows = np.asarray(Image.fromarray(image).resize(to[::-1], Image.Resampling.BILINEAR)).astype(float)
        assert np.abs(found - pillows).max() <= (1 if image.dtype == np.uint8 else 1e-4)
    across = Image.fromarray(images(*of)[0]).resize((to[1], of[0]), Image.Resampling.BILINEAR)
    same(resized(images(*of)[0], *to), np.asarray(across.resize(to[::-1], Image.Resampling.BILINEAR)))


@pytest.mark.parametrize("crop", [None, (10, 20, 90, 130), (0, 0.5, 1, 1), (0.25, 0, 1, 0.75)])
@pytest.mark.parametrize(("tile", "scale"), [(32, 1), (40, 1), (24, 1), (32, 0.6)])
def test_a_view_in_bands(tile, scale, crop):
    view, (image, found) = View(tile=tile, scale=scale, crop=crop), images(150, 100)
    seen = view.seen(image, 32)
    layout = view.layout_of(150, 100, 32)
    assert (layout.height, layout.width) == seen.shape[:2]
    (found,) = images(*seen.shape[:2])[1:]
    whole = view.whole_map(found, 150, 100)
    for rows in (1, 32, 500):
        same(np.concatenate(list(seen_rows(view, bands(image, rows), 150, 100, 32))), seen)
        same(np.concatenate(list(map_rows(view, bands(found, rows), 150, 100, 32))), whole)


def test_what_lies_behind_a_crop_is_not_read():
    read = []

    def each():
        for top in range(0, 100, 10):
            read.append(top)
            yield np.zeros((10, 64, 3), np.uint8)

    assert sum(map(len, seen_rows(View(tile=32, crop=(0, 5, 64, 41)), each(), 100, 64, 32))) == 36
    assert read == [0, 10, 20, 30, 40]


def test_a_crop_beyond_the_image():
    with pytest.raises(ImageError, match="does not lie within the image"):
        next(seen_rows(View(tile=32, crop=(0, 0, 90, 60)), [], 60, 80, 32))
