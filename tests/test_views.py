"""What networks see of an image: crops, scales, tiles, and one map and one score again from the tiles'."""

import numpy as np
import pytest
import torch
from conftest import fitted, made_images, tiny_score, with_defect
from PIL import Image

import raydiff
from raydiff import methods
from raydiff.errors import ImageError, SettingsError
from raydiff.model.folder import Model
from raydiff.model.scorer import examples_of, inputs_of, score_examples, score_images
from raydiff.nn.positions import PositionStatistics, in_cells
from raydiff.views import Layout, View, ragged
from raydiff.views.region import around, regions

TILED = View(tile=32, overlap=8)


def picture(height, width, seed=0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)


@pytest.mark.parametrize("shape", [(32, 32), (33, 32), (56, 80), (57, 200), (20, 100), (7, 5)])
@pytest.mark.parametrize("overlap", [0, 8, 16])
def test_tiles_cover_every_pixel_and_overlap_enough(shape, overlap):
    layout = Layout(*shape, 32, overlap)
    image = picture(*shape)
    tiles = layout.tiles(image)
    assert len(tiles) == len(layout.origins) == layout.tile_count
    seen = np.zeros(shape, int)
    for (y, x), tile in zip(layout.origins, tiles, strict=True):
        part = image[y : y + 32, x : x + 32]
        np.testing.assert_array_equal(tile[: part.shape[0], : part.shape[1], :3], part)
        seen[y : y + 32, x : x + 32] += 1
    assert seen.min() == 1
    for side, starts in zip(shape, zip(*layout.origins, strict=True), strict=True):
        steps = np.diff(sorted(set(starts)))
        assert (steps <= 32 - overlap).all()
        assert max(starts) == max(0, side - 32)
        assert len(set(starts)) == 1 + int(np.ceil(max(0, side - 32) / (32 - overlap)))  # no more than are needed


def test_what_is_added_to_fill_a_tile_repeats_the_edge():
    image = picture(20, 40)
    (tile,) = Layout(20, 32, 32, 8).tiles(image[:, :32])
    np.testing.assert_array_equal(tile[20:, :, :3], np.repeat(image[19:20, :32], 12, 0))
    np.testing.assert_array_equal(tile[..., 3] > 0, np.arange(32)[:, None].repeat(32, 1) < 20)  # not to be looked at


@pytest.mark.parametrize("shape", [(32, 32), (56, 80), (57, 200), (20, 100), (7, 5)])
def test_tiles_of_one_map_join_to_that_map(shape):
    whole = np.random.default_rng(0).normal(size=(max(32, shape[0]), max(32, shape[1]))).astype(np.float32)
    layout = Layout(*shape, 32, 8)
    found = layout.joined([whole[y : y + 32, x : x + 32] for y, x in layout.origins])
    np.testing.assert_allclose(found, whole[: shape[0], : shape[1]], rtol=1e-5, atol=1e-6)


def test_one_tile_fades_into_the_next():
    layout = Layout(32, 56, 32, 8)  # the second begins at 24
    found = layout.joined([np.zeros((32, 32), np.float32), np.ones((32, 32), np.float32)])
    assert (found[:, :24] == 0).all()
    assert (found[:, 32:] == 1).all()
    np.testing.assert_allclose(found[0, 24:32], np.arange(1, 9) / 9, rtol=1e-5)  # by hand: a line over the overlap


def test_what_is_seen():
    image = picture(60, 80)
    whole = np.array(Image.fromarray(image).resize((32, 32), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(View().seen(image, 32), whole)
    assert View(fit="pad").seen(image, 32).shape == (24, 32, 3)
    np.testing.assert_array_equal(View(tile=32).seen(image, 32), image)
    assert View(tile=64).seen(image, 32).shape == (30, 40, 3)
    assert View(tile=32, scale=0.5).seen(image, 32).shape == (30, 40, 3)
    np.testing.assert_array_equal(View(tile=32, crop=(10, 20, 50, 60)).seen(image, 32), image[20:60, 10:50])
    np.testing.assert_array_equal(View(tile=32, crop=(0.5, 0, 1, 0.5)).seen(image, 32), image[:30, 40:])
    np.testing.assert_array_equal(View(tile=32).seen_mask(image[..., 0] > 99, 32), image[..., 0] > 99)


def test_images_are_worked_on_some_tiles_at_a_time(monkeypatch):
    monkeypatch.setattr("raydiff.views.view.TILES", 6)
    images = [picture(*shape) for shape in ((32, 32), (32, 80), (200, 200), (32, 32), (56, 56), (32, 32))]
    counts = [TILED.layout(image.shape, 32).tile_count for image in images]
    assert counts == [1, 3, 64, 1, 4, 1]
    groups = list(TILED.groups(images, 32))
    assert groups == [slice(0, 2), slice(2, 3), slice(3, 6)]


def test_the_map_of_what_was_seen_goes_where_it_was():
    found = View(crop=(10, 20, 50, 60)).whole_map(np.ones((32, 32), np.float32), 70, 80)
    expected = np.zeros((70, 80), np.float32)
    expected[20:60, 10:50] = 1
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    ("text", "view"),
    [
        ("tile=512,overlap=64", View(tile=512, overlap=64)),
        ("fit=pad, crop=0,10,800,600", View(fit="pad", crop=(0, 10, 800, 600))),
        ("tile=64,scale=0.5", View(tile=64, scale=0.5)),
    ],
)
def test_a_view_on_the_command_line(text, view):
    assert View.parse(View.values(text)) == view


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("tiles=512", "View has no setting 'tiles'; did you mean 'tile'"),
        ("512", "is not NAME=VALUE with commas between"),
        ("overlap=8", "overlap and scale are for tiles; give tile"),
        ("tile=64,fit=pad", "give tile or fit=pad"),
        ("tile=64,overlap=33", "overlap by at most half, 32"),
        ("crop=0,0,10", "View.crop"),
        ("crop=10,0,5,5", "crop is x0,y0,x1,y1"),
    ],
)
def test_a_view_that_cannot_be(text, message):
    with pytest.raises(SettingsError, match=message):
        View.values(text)


def test_a_crop_beyond_the_image_is_the_images_fault():
    with pytest.raises(ImageError, match=r"crop 0, 0, 90, 60 does not lie within the image, which is 80 x 60 pixels"):
        View(crop=(0, 0, 90, 60)).seen(picture(60, 80), 32)


@pytest.fixture(scope="module", params=methods.names())
def tiled(request):
    method, _ = fitted(request.param, made_images(12), view=TILED.model_dump())
    return method


def test_an_image_of_one_tile_is_scored_as_without_a_view(tiled):
    plain, _ = fitted(tiled.name, made_images(12))
    plain.load_state_dict(tiled.state_dict())
    images = made_images(5, seed=3)
    wanted, found = (score_images(method, images, tiny_score(tiled.name)) for method in (plain, tiled))
    np.testing.assert_array_equal(found.scores, wanted.scores)
    np.testing.assert_array_equal(found.maps, wanted.maps)


def test_an_image_of_tiles_has_one_map_and_one_score(tiled):
    score = tiny_score(tiled.name)
    images = [picture(50, 70), made_images(1, seed=4)[0], picture(32, 90, seed=1)]
    found = score_images(tiled, images, score)
    assert [map_.shape for map_ in found.maps] == [(50, 70), (32, 32), (32, 90)]
    for number, image in enumerate(images):
        layout = TILED.layout(image.shape, 32)
        tiles = score_images(tiled, layout.tiles(image), score)
        np.testing.assert_array_equal(found.maps[number], layout.joined(tiles.maps))
        whole = tiled.scores(torch.from_numpy(found.maps[number][None]), score)
        assert found.scores[number] == pytest.approx(float(whole), rel=1e-6)
        for name, values in found.details.items():
            assert values[number] == pytest.approx(tiles.details[name].mean())


def test_it_does_not_depend_on_other_images_or_on_how_many_are_held(tiled, monkeypatch):
    score = tiny_score(tiled.name)
    images = [picture(50, 70, seed) for seed in range(3)] + [picture(33, 40)]
    together = score_images(tiled, images, score)
    monkeypatch.setattr("raydiff.views.view.TILES", 5)
    for order in ([3, 1], [0, 1, 2, 3], [2]):
        again = score_images(tiled, [images[place] for place in order], score)
        np.testing.assert_array_equal(again.scores, together.scores[order])
        for place, number in enumerate(order):
            np.testing.assert_array_equal(again.maps[place], together.maps[number])


def test_positions_are_a_tiles(tiled):
    score = tiny_score(tiled.name)
    plain = score_images(tiled, made_images(8), score)
    positions = PositionStatistics.of({"thing": in_cells(torch.from_numpy(plain.maps))})
    image = picture(50, 70)
    found = score_images(tiled, [image], score, positions, ["thing"])
    layout = TILED.layout(image.shape, 32)
    tiles = score_images(tiled, layout.tiles(image), score, positions, ["thing"] * layout.tile_count)
    np.testing.assert_array_equal(found.maps[0], layout.joined(tiles.maps))


def test_kept_examples_score_as_the_images(tiled):
    score = tiny_score(tiled.name)
    images = [picture(50, 70), made_images(1, seed=4)[0], picture(32, 90, seed=1)]
    inputs = inputs_of(tiled, images)
    wanted = score_images(tiled, images, score)
    for order in ([0, 1, 2], [2, 0]):
        part = inputs.part(order)
        found = score_examples(tiled, part.examples, part.keys, score, layouts=part.layouts)
        np.testing.assert_array_equal(found.scores, wanted.scores[order])
    assert len(set(inputs.image_keys)) == 3


def test_a_saved_model_keeps_its_view(tmp_path):
    method, _ = fitted("nearest_patch", made_images(8), view={"tile": 64, "overlap": 16, "crop": [0, 0, 1, 0.5]})
    model = Model(method, method.ScoreSettings())
    model.save(str(tmp_path / "model"))
    again = raydiff.load(str(tmp_path / "model"), "cpu")
    image = picture(200, 100)
    assert again.view == method.settings.view
    assert again.id == model.id
    found = again.score([image])
    assert found.maps[0].shape == (50, 50)  # half of the image, and two of its pixels one of the network's
    np.testing.assert_array_equal(found.scores, model.score([image]).scores)
    plain, _ = fitted("nearest_patch", made_images(8))
    assert Model(plain, plain.ScoreSettings()).id != model.id


def test_most_tiles_say_what_an_image_shows():
    bright, dark = made_images(8) // 2 + 128, made_images(8) // 2
    method, _ = fitted(
        "nearest_patch", np.concatenate([bright, dark]), categories=["bright"] * 8 + ["dark"] * 8, view={"tile": 32}
    )
    image = np.concatenate([bright[0], bright[1], dark[0]], 1)  # two tiles of three, and seams of both
    found = Model(method, method.ScoreSettings()).score([image, np.concatenate([dark[0], dark[1]], 1)])
    assert found.guessed == ["bright", "dark"]


def test_a_padded_image_has_a_map_of_its_own_shape_alone():
    method, _ = fitted("nearest_patch", made_images(8), view={"fit": "pad"})
    found = Model(method, method.ScoreSettings()).score([picture(40, 80), picture(80, 40), picture(64, 64)])
    assert [map_.shape for map_ in found.maps] == [(16, 32), (32, 16), (32, 32)]


def test_a_defect_on_a_seam_scores_as_one_in_the_middle():
    """The same image with the same defect, moved over the seams by quarters of a tile."""
    size = 64
    base = np.kron(made_images(1, 16), np.ones((1, 1, 1, 1), np.uint8))[0]  # a pattern that repeats each 16 pixels
    normal = np.tile(base, (12, 12, 1))
    method, _ = fitted(
        "nearest_patch",
        np.stack([normal[y : y + size, y : y + size] for y in range(0, 64, 2)]),
        image_size=size,
        view={"tile": size, "overlap": 32},
        backbone={"stages": [1], "grid": 16},
        coreset_ratio=1.0,
    )
    peaks = []
    for place in range(56, 120, 16):  # whole periods of the pattern, so that nothing but the tiles' places changes
        image = normal.copy()
        image[place : place + 8, place : place + 8] = 255 - image[place : place + 8, place : place + 8]
        found = score_images(method, [image], method.ScoreSettings(blur_sigma=2.0))
        peaks.append(float(found.maps[0].max()))
    assert max(peaks) / min(peaks) < 1.1
    plain = score_images(method, [normal], method.ScoreSettings(blur_sigma=2.0))
    assert min(peaks) > 2 * plain.maps[0].max()  # it is seen at all


def test_regions_are_parts_of_the_images_with_a_seam_in_them():
    images = [picture(100, 200, 0), picture(120, 150, 1)]
    found = regions(images, TILED, 32, seed=0)
    assert found.shape == (2, 56, 56, 3)
    assert TILED.layout(found.shape[1:], 32).tile_count == 4
    for image, region in zip(images, found, strict=True):
        windows = np.lib.stride_tricks.sliding_window_view(image, region.shape)
        assert (windows == region).all((2, 3, 4, 5)).any()
    np.testing.assert_array_equal(regions(images, TILED, 32, seed=0), found)
    assert (regions(images, TILED, 32, seed=1) != found).any()
    squares = made_images(3)
    np.testing.assert_array_equal(regions(squares, View(), 32, seed=0), squares)
    assert regions([picture(40, 60), picture(50, 45)], TILED, 32, seed=0).shape == (2, 40, 45, 3)


def test_a_region_lies_around_the_defect():
    images, masks = [picture(100, 200)], np.zeros((1, 100, 200), bool)
    masks[0, 80:90, 100:110] = True
    (image,), (mask,) = around(images, masks, TILED, 32)
    assert image.shape == (56, 56, 3)
    assert mask.sum() == 100
    np.testing.assert_array_equal(image, images[0][44:100, 77:133])  # at the lower edge, and around column 105


def test_examples_are_a_tile_each():
    method, _ = fitted("nearest_patch", made_images(8), view=TILED.model_dump())
    inputs = inputs_of(method, [picture(50, 70), picture(32, 32)])
    assert len(inputs.examples) == 2 * 3 + 1
    tiles = TILED.layout((50, 70), 32).tiles(picture(50, 70))
    torch.testing.assert_close(inputs.examples[:6], examples_of(method, tiles))


def test_arrays_of_several_sizes():
    assert ragged([np.zeros((2, 3)), np.ones((2, 3))]).shape == (2, 2, 3)
    found = ragged([np.zeros((2, 3)), np.ones((3, 2))])
    assert found.dtype == object
    assert [each.shape for each in found] == [(2, 3), (3, 2)]


def test_a_defect_in_a_large_image_is_found_where_it_is():
    method, _ = fitted("nearest_patch", made_images(16), view=TILED.model_dump())
    normal = np.tile(made_images(1, seed=5)[0], (3, 3, 1))
    spoilt = normal.copy()
    spoilt[40:56, 30:46] = with_defect(made_images(1, seed=5))[0][8:24, 8:24]
    found = score_images(method, [normal, spoilt], method.ScoreSettings(blur_sigma=1))
    y, x = np.unravel_index((found.maps[1] - found.maps[0]).argmax(), (96, 96))
    assert 36 <= y < 60
    assert 26 <= x < 50
