"""Sets of made anomalies: what each kind changes, where, that it shows, and that it can be done again."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from raydiff.errors import DataError
from raydiff.synthesis.fragments import FragmentSettings
from raydiff.synthesis.kinds import JUST_VISIBLE, KINDS
from raydiff.synthesis.made import make_set

IN_PLACE = [name for name in KINDS if name not in ("fragment", "moved")]


def textures(count: int, side: int = 96, seed: int = 0) -> np.ndarray:
    """Images of grains, in which every kind of anomaly can show."""
    noise = np.random.default_rng(seed).standard_normal((count, side, side, 3))
    soft = gaussian_filter(noise, (0, 1, 1, 0))
    return (128 + 40 * soft / soft.std()).clip(0, 255).astype(np.uint8)


def test_the_same_seed_gives_the_same_set_and_another_another():
    images = textures(3)
    first, again, other = (make_set(images, 12, seed) for seed in (7, 7, 8))
    np.testing.assert_array_equal(first.images, again.images)
    np.testing.assert_array_equal(first.masks, again.masks)
    assert first.kinds == again.kinds
    assert (first.masks != other.masks).any()


def test_a_sample_does_not_depend_on_how_many_are_made():
    images = textures(3)
    few, many = make_set(images, 4, 7), make_set(images, 13, 7)
    np.testing.assert_array_equal(many.images[:4], few.images)
    assert many.kinds[:4] == few.kinds


def test_anomalies_lie_on_the_images_in_turn_and_leave_the_rest_alone():
    images = textures(4)
    before = images.copy()
    made = make_set(images, 30, 0)
    np.testing.assert_array_equal(images, before)
    assert (made.images.shape, made.images.dtype) == ((30, 96, 96, 3), np.uint8)
    assert (made.masks.shape, made.masks.dtype) == ((30, 96, 96), bool)
    for number, (image, mask) in enumerate(zip(made.images, made.masks, strict=True)):
        target = images[number % 4]
        assert mask.any()
        np.testing.assert_array_equal(image[~mask], target[~mask])
        assert (image[mask] != target[mask]).any()


@pytest.mark.parametrize("count", [2, 5, 9, 18])
def test_every_kind_comes_as_often_and_no_image_has_always_the_same(count):
    made = make_set(textures(count), 90, 0)
    assert Counter(made.kinds) == dict.fromkeys(KINDS, 10)
    for target in range(count):
        assert len(set(made.kinds[target::count])) > 2


@pytest.mark.parametrize("kind", IN_PLACE)
def test_a_change_in_place_shows(kind):
    images = textures(2)
    made = make_set(images, 20, 0, (kind,))
    for number, (image, mask) in enumerate(zip(made.images, made.masks, strict=True)):
        before = images[number % 2][mask].astype(float)
        change = np.abs(image[mask] - before).mean()
        assert change >= FragmentSettings().difference
        assert change >= JUST_VISIBLE * before.mean(1).std()


def test_fragments_come_from_another_image_and_moved_pieces_from_the_same():
    grounds = np.array([10, 80, 160, 240], np.uint8)
    images = np.tile(grounds[:, None, None, None], (1, 48, 48, 3))
    made = make_set(images, 12, 0, ("fragment",))
    for number, (image, mask) in enumerate(zip(made.images, made.masks, strict=True)):
        assert set(image[mask].ravel()) < set(grounds) - {grounds[number % 4]}
    halves = images.copy()
    halves[:, :, 24:] = 255 - halves[:, :, 24:]
    moved = make_set(halves, 12, 0, ("moved",))
    for number, image in enumerate(moved.images):
        assert set(image.ravel()) <= set(halves[number % 4].ravel())


def test_what_an_erased_place_shows_goes_on_from_around_it():
    """On a slope the erased place is the slope again; a bright spot on it is gone."""
    slope = np.tile(np.linspace(60, 180, 96)[:, None, None], (1, 96, 3)).astype(np.uint8)
    spotted = slope.copy()
    spotted[::6, ::6] = 255
    made = make_set(np.stack([spotted, spotted]), 30, 0, ("erased", "fragment"))
    for image, mask, kind in zip(*made, strict=True):
        if kind == "erased":
            inner = mask & (gaussian_filter(mask.astype(float), 1) > 0.9)
            assert (np.abs(image[inner].astype(float) - slope[inner]) < 40).all()
    assert "erased" in made.kinds


def test_a_kind_that_would_not_show_gives_way_to_the_next():
    flat = np.full((2, 48, 48, 3), 90, np.uint8)  # nothing to smear, to push or to erase
    made = make_set(flat, 18, 0)
    assert set(made.kinds) == {"texture", "stain", "noise", "scratch", "fragment", "moved"}
    with pytest.raises(DataError, match='none of blur, warp shows on image 0; let "fragment" be among'):
        make_set(flat, 2, 0, ("blur", "warp"))


def test_scratches_are_thin():
    made = make_set(textures(2), 20, 0, ("scratch",), FragmentSettings(shapes=1))
    others = make_set(textures(2), 20, 0, ("stain",), FragmentSettings(shapes=1))

    def thickness(masks: np.ndarray) -> float:
        return float(np.median([np.sqrt(mask.sum()) / np.ptp(np.argwhere(mask), axis=0).max() for mask in masks]))

    assert thickness(made.masks) < 0.6 * thickness(others.masks)


def test_images_need_not_be_square():
    images = np.random.default_rng(0).integers(0, 256, (2, 40, 90, 3), dtype=np.uint8)
    made = make_set(images, 18, 0)
    assert made.masks.shape == (18, 40, 90)
    assert made.masks.any(axis=(1, 2)).all()


def test_a_single_image_has_nothing_to_cut_from():
    with pytest.raises(DataError, match="two are needed"):
        make_set(textures(1), 2, 0)
