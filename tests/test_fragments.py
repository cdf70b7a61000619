"""Made anomalies: what changes, where, and that it can be done again."""

from __future__ import annotations

import numpy as np
import pytest

from raydiff.errors import DataError, SettingsError
from raydiff.synthesis.fragments import (
    SHAPES,
    FragmentSettings,
    foreground,
    fragment,
    make_anomaly,
)

SETTINGS = FragmentSettings()


def noise_images(count: int, side: int = 64, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, side, side, 3), dtype=np.uint8)


def disc_image(side: int = 96, radius: int = 20) -> np.ndarray:
    """A bright disc in the middle of a dark background with a little grain."""
    y, x = np.mgrid[:side, :side] - side / 2
    image = np.random.default_rng(1).integers(18, 23, (side, side, 3), dtype=np.uint8)
    image[np.hypot(y, x) < radius] = (200, 150, 90)
    return image


def test_the_mask_is_exactly_what_changed():
    images = noise_images(2)
    made, mask = make_anomaly(images[0], images[1], np.random.default_rng(3), SETTINGS)
    changed = (made != images[0]).any(axis=2)
    assert mask.any()
    assert not changed[~mask].any()
    assert changed[mask].mean() > 0.99  # on noise, a pasted pixel is the same one time in 16 million


def test_the_pasted_pixels_come_from_the_source():
    target = np.zeros((64, 64, 3), np.uint8)
    source = np.arange(64 * 64, dtype=np.uint16).reshape(64, 64)
    source = np.stack([source % 256, source // 256, np.full_like(source, 255)], axis=2).astype(np.uint8)
    made, mask = make_anomaly(target, source, np.random.default_rng(0), SETTINGS)
    assert (made[mask][:, 2] == 255).all()
    there = made[mask][:, 0].astype(int) + 256 * made[mask][:, 1].astype(int)  # each pixel says where it was cut
    moved = np.stack(np.divmod(there, 64), axis=1) - np.argwhere(mask)
    assert (np.abs(moved).max(axis=1) > 0).mean() > 0.9


def test_target_and_source_are_left_alone():
    images = noise_images(2)
    before = images.copy()
    make_anomaly(images[0], images[1], np.random.default_rng(3), SETTINGS)
    np.testing.assert_array_equal(images, before)


def test_images_of_unlike_shapes_are_refused():
    with pytest.raises(DataError, match="same shape"):
        make_anomaly(noise_images(1)[0], noise_images(1, 32)[0], np.random.default_rng(0), SETTINGS)


def test_sizes_are_log_uniform_between_the_bounds():
    rng = np.random.default_rng(0)
    areas = np.array([len(fragment(rng, 96, 96, SETTINGS)) for _ in range(240)]) / 96**2
    inside = (areas > 0.8 * SETTINGS.smallest) & (areas < 1.2 * SETTINGS.largest)
    assert inside.mean() > 0.97  # the second drawing corrects the union's overlaps, not exactly
    place = np.log(areas / SETTINGS.smallest) / np.log(SETTINGS.largest / SETTINGS.smallest)
    quarters = np.histogram(place.clip(0, 1), bins=4, range=(0, 1))[0] / 240
    np.testing.assert_allclose(quarters, 0.25, atol=0.08)


def test_fragments_have_their_middle_and_no_pixel_twice():
    rng = np.random.default_rng(1)
    for _ in range(50):
        offsets = fragment(rng, 96, 64, SETTINGS)
        assert (offsets == 0).all(axis=1).any()
        assert len(np.unique(offsets, axis=0)) == len(offsets)


@pytest.mark.parametrize("shape", SHAPES)
def test_each_shape_has_about_unit_area(shape):
    step = 0.01
    v, u = np.mgrid[-4:4:step, -4:4:step]
    areas = [shape(np.random.default_rng(seed), v, u, 0.0).sum() * step**2 for seed in range(10)]
    np.testing.assert_allclose(areas, 1.0, atol=0.12)


def test_lines_are_thin_and_stay_as_thick_as_a_pixel():
    line = SHAPES[3]
    v, u = np.mgrid[-30:31, -30:31] / 6.0  # a sixth of a side to a pixel
    for seed in range(10):
        columns = line(np.random.default_rng(seed), v, u, 1.5 / 6).any(axis=0)
        assert columns[columns.argmax() : columns.size - columns[::-1].argmax()].all()  # no gaps


def test_a_fragment_that_changes_too_little_is_drawn_again():
    """Background on background does not show; on an image that is mostly that, draws must avoid it."""
    images = [disc_image(), disc_image()]
    rng = np.random.default_rng(0)
    for _ in range(30):
        made, mask = make_anomaly(images[0], images[1], rng, SETTINGS)
        difference = np.abs(made.astype(int) - images[0].astype(int))[mask].mean()
        assert difference >= SETTINGS.difference


def test_most_fragments_lie_on_the_object():
    image, rng = disc_image(), np.random.default_rng(0)  # an eighth of it is object
    masks = [make_anomaly(image, image, rng, SETTINGS)[1] for _ in range(40)]
    middles = np.array([np.argwhere(mask).mean(axis=0) for mask in masks]) - 48
    assert (np.hypot(*middles.T) < 26).mean() > 0.6


def test_one_draw_alone_often_changes_too_little():
    image, settings = disc_image(), SETTINGS.changed(tries=1)
    rng = np.random.default_rng(0)
    changes = []
    for _ in range(60):
        made, mask = make_anomaly(image, image, rng, settings)
        changes.append(np.abs(made.astype(int) - image.astype(int))[mask].mean())
    assert min(changes) < SETTINGS.difference


def test_flat_images_end_after_the_tries_with_the_best():
    flat = np.full((32, 32, 3), 90, np.uint8)
    made, mask = make_anomaly(flat, flat + np.uint8(3), np.random.default_rng(0), SETTINGS)
    assert mask.any()
    assert (made[mask] == 93).all()


def test_foreground_is_the_object_on_plain_ground_and_everything_on_texture():
    disc = disc_image()
    y, x = np.mgrid[:96, :96] - 48.0
    np.testing.assert_array_equal(foreground(disc), np.hypot(y, x) < 20)
    assert foreground(noise_images(1)[0]).all()
    assert foreground(np.full((32, 32, 3), 7, np.uint8)).all()


def test_images_need_not_be_square():
    images = np.random.default_rng(0).integers(0, 256, (2, 40, 90, 3), dtype=np.uint8)
    _, mask = make_anomaly(*images, np.random.default_rng(0), SETTINGS)
    assert mask.shape == (40, 90)
    assert mask.any()


def test_settings_out_of_order_are_refused():
    with pytest.raises(SettingsError, match="smallest"):
        FragmentSettings.parse({"smallest": 0.1, "largest": 0.05})
