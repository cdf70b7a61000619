"""JPEGs that are unpacked at a part of their size, against whole ones that Pillow makes smaller."""

from __future__ import annotations

import io
import json
from typing import Any

import numpy as np
import pytest
from conftest import fitted, made_images
from PIL import Image, ImageOps

import raydiff
from raydiff.errors import ImageError
from raydiff.images.decode import decode, decode_noted, see
from raydiff.images.pages import File
from raydiff.images.stream import Reading, read_image
from raydiff.model.description import describe, model_id
from raydiff.model.folder import Model
from raydiff.views import View

SCALED = View(jpeg="scaled")
ORIENTATION = 274
UPRIGHT = range(1, 9)
CLOSE = 4  # levels: libjpeg keeps other frequencies than the average does


def photo(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Shapes of all sizes from a few pixels up, the larger the stronger, as a photograph has them."""
    rng = np.random.default_rng(seed)
    found = np.full((height, width, 3), 128.0)
    for cell, strength in ((3, 0.06), (12, 0.15), (48, 0.6)):
        coarse = rng.integers(0, 256, (height // cell + 1, width // cell + 1, 3)).astype(np.uint8)
        found += strength * (np.asarray(Image.fromarray(coarse).resize((width, height))) - 128.0)
    return np.clip(found, 0, 255).astype(np.uint8)


def jpeg(image: np.ndarray, orientation: int = 1, **options: Any) -> bytes:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    sink = io.BytesIO()
    Image.fromarray(image).save(sink, "JPEG", quality=95, exif=exif, **options)
    return sink.getvalue()


def plainly(data: bytes, size: tuple[int, int], crop: tuple[int, int, int, int] | None = None) -> np.ndarray:
    """What is to be seen by Pillow alone, from the whole picture; `size` and `crop` as Pillow has them, x first."""
    image = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    image = image.crop(crop) if crop else image
    return np.asarray(image.resize(size, Image.Resampling.BILINEAR))


def apart(one: np.ndarray, other: np.ndarray) -> int:
    assert one.shape == other.shape
    return int(np.abs(one.astype(int) - other).max())


BIG = photo(515, 701)


@pytest.mark.parametrize(
    ("height", "width", "size", "by"),
    [
        (515, 701, 32, 8),  # 515 / 8 is 64 and a bit, two times 32
        (511, 701, 32, 4),
        (515, 256, 32, 4),  # of both sides the less
        (515, 701, 128, 2),
        (515, 701, 129, 1),
        (60, 80, 32, 1),
    ],
)
def test_how_much_smaller_an_image_may_be_unpacked(height, width, size, by):
    assert SCALED.reduction(height, width, size) == by
    assert View().reduction(height, width, size) == 1


def test_it_is_told_by_what_is_seen_and_not_by_the_image():
    scaled = {"jpeg": "scaled"}
    assert View(**scaled, tile=64).reduction(4000, 4000, 32) == 1  # half: whole
    assert View(**scaled, tile=128).reduction(4000, 4000, 32) == 2
    assert View(**scaled, tile=64, scale=0.25).reduction(4000, 4000, 32) == 4
    assert View(**scaled, crop=(0, 0, 100, 130)).reduction(4000, 4000, 32) == 1
    assert View(**scaled, crop=(0, 0, 0.5, 0.5)).reduction(4000, 4000, 250) == 4
    assert View(**scaled, fit="pad").reduction(1000, 4000, 32) == 8


@pytest.mark.parametrize("size", [24, 32, 60, 64, 100, 128])
@pytest.mark.parametrize("subsampling", [0, 2])
def test_it_shows_what_the_whole_image_shows(size, subsampling):
    data = jpeg(BIG, subsampling=subsampling)
    found = see(data, SCALED, size)
    assert apart(found.pixels, plainly(data, (size, size))) <= CLOSE
    assert np.abs(found.pixels - plainly(data, (size, size)).astype(float)).mean() < 1
    assert (found.height, found.width) == BIG.shape[:2]
    assert decode_noted(data, reduction=lambda height, width: SCALED.reduction(height, width, size)).reduced.by > 1


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize("crop", [None, (101, 37, 490, 460)])
def test_a_turned_image_is_seen_upright_and_in_its_place(orientation, crop):
    """Both sides end one pixel behind a multiple of eight: turned, a pixel of which an eighth counts comes first."""
    data = jpeg(photo(513, 521), orientation)
    view = View(jpeg="scaled", crop=crop)
    found = see(data, view, 24)
    assert decode_noted(data, reduction=lambda height, width: view.reduction(height, width, 24)).reduced.by == 8
    assert (found.height, found.width) == ((513, 521) if orientation < 5 else (521, 513))
    wanted = plainly(data, (24, 24), crop)
    assert apart(found.pixels[1:-1, 1:-1], wanted[1:-1, 1:-1]) <= CLOSE
    assert apart(found.pixels, wanted) <= 2 * CLOSE  # at its edge a crop has a part of a pixel that was unpacked


def test_a_crop_ends_between_the_pixels_that_are_unpacked():
    """Black up to column 203 and white from there on: a crop at the edge sees one colour alone."""
    image = np.zeros((520, 520, 3), np.uint8)
    image[:, 203:] = 255
    data = jpeg(image, subsampling=0)
    for crop in ((203, 0, 520, 520), (0, 0, 203, 520)):
        found = see(data, View(jpeg="scaled", crop=crop), 16).pixels
        assert apart(found[:, 1:-1], plainly(data, (16, 16), crop)[:, 1:-1]) <= CLOSE
    shares = see(data, View(jpeg="scaled", crop=(0.5, 0, 1, 1)), 16)
    np.testing.assert_array_equal(shares.pixels, see(data, View(jpeg="scaled", crop=(260, 0, 520, 520)), 16).pixels)


def test_tiles_and_padded_images_too():
    data = jpeg(BIG)
    for view, size in ((View(jpeg="scaled", tile=160), (140, 103)), (View(jpeg="scaled", fit="pad"), (32, 24))):
        found = see(data, view, 32)
        assert found.pixels.shape == (size[1], size[0], 3)
        assert apart(found.pixels, plainly(data, size)) <= CLOSE


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_grey_and_ink(mode):
    sink = io.BytesIO()
    Image.fromarray(BIG).convert(mode).save(sink, "JPEG", quality=95)
    whole = Image.fromarray(decode(sink.getvalue())).resize((32, 32), Image.Resampling.BILINEAR)
    assert apart(see(sink.getvalue(), SCALED, 32).pixels, np.asarray(whole)) <= CLOSE


def test_what_is_not_reduced_is_seen_to_the_bit_as_ever():
    """Files of other kinds, small factors, and those that only the whole picture tells to be complete."""
    sinks = {kind: io.BytesIO() for kind in ("PNG", "TIFF", "WebP")}
    for kind, sink in sinks.items():
        Image.fromarray(BIG).save(sink, kind, **({"lossless": True} if kind == "WebP" else {}))
    data = jpeg(BIG)
    files = [sink.getvalue() for sink in sinks.values()]
    for each in (*files, jpeg(BIG, progressive=True), data[:-2], jpeg(BIG[:120, :120])):
        np.testing.assert_array_equal(see(each, SCALED, 16).pixels, View().seen(decode(each), 16))
    np.testing.assert_array_equal(see(data, SCALED, 200).pixels, View().seen(decode(data), 200))
    for view in (View(), View(tile=64), View(crop=(3, 5, 77, 400)), View(fit="pad", crop=(0, 0, 0.5, 1))):
        np.testing.assert_array_equal(see(data, view, 32).pixels, view.seen(decode(data), 32))


def test_a_cut_file_is_refused_at_any_scale():
    data = jpeg(BIG)
    for share in (0.3, 0.6, 0.9, 0.99):
        cut = data[: int(len(data) * share)]
        for whole in (cut, cut + b"\xff\xd9"):
            with pytest.raises(ImageError, match="truncated"):
                see(whole, View(), 32)
            with pytest.raises(ImageError, match="truncated"):
                see(whole, SCALED, 32)


@pytest.mark.parametrize("size", [24, 60, 128])
def test_a_file_whose_last_blocks_are_missing_is_judged_alike(size):
    """The last block is one pixel wide and high, so that at half its size a pixel beside it is another block's."""
    data = jpeg(photo(513, 521), subsampling=0)
    judged = []
    for spare in range(2, 40):
        for view in (View(), SCALED):
            try:
                see(data[:-spare] + b"\xff\xd9", view, size)
                judged.append(True)
            except ImageError:
                judged.append(False)
    assert judged[::2] == judged[1::2]
    assert not all(judged)


def test_the_limit_is_on_the_whole_image():
    with pytest.raises(ImageError, match="701 x 515 pixels, more than the limit of 300,000"):
        see(jpeg(BIG), SCALED, 32, max_pixels=300_000)
    with pytest.raises(ImageError, match="crop 0, 0, 702, 8 does not lie within the image, which is 701 x 515"):
        see(jpeg(BIG), View(jpeg="scaled", crop=(0, 0, 702, 8)), 32)


def test_a_bulk_runs_row_is_the_files():
    data = jpeg(BIG, orientation=6)
    found = read_image(File(data), Reading(32, SCALED))
    assert (found.height, found.width, found.error) == (701, 515, "")
    np.testing.assert_array_equal(found.pixels, see(data, SCALED, 32).pixels)


def test_a_model_keeps_how_it_sees_and_one_without_a_choice_keeps_its_id(tmp_path):
    method, _ = fitted("nearest_patch", made_images(8), view={"jpeg": "scaled"})
    plain, _ = fitted("nearest_patch", made_images(8))
    scaled, whole = (Model(each, each.ScoreSettings()) for each in (method, plain))
    scaled.save(str(tmp_path / "scaled"))
    whole.save(str(tmp_path / "whole"))
    told = describe(str(tmp_path / "whole"))
    before = {"tile": None, "overlap": None, "scale": 1.0, "fit": "stretch", "crop": None}
    assert told["settings"]["train"]["view"] == before  # format 5 as it was, so that an old model has the id it had
    assert json.loads(View().model_dump_json()) == before
    assert model_id(told) == whole.id != scaled.id
    again = raydiff.load(str(tmp_path / "scaled"), "cpu")
    assert again.view == SCALED
    assert again.id == scaled.id
    data = jpeg(BIG)
    seen = again.seen(data).pixels
    np.testing.assert_array_equal(seen, see(data, SCALED, 32).pixels)
    np.testing.assert_array_equal(again.score_seen([seen]).scores, scaled.score_seen([seen]).scores)
    np.testing.assert_array_equal(whole.seen(data).pixels, View().seen(decode(data), 32))
