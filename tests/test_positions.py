"""Position statistics against loops in numpy, and what they are for: places where normals look odd."""

import numpy as np
import pytest
import torch
from conftest import fitted, made_images
from scipy.ndimage import gaussian_filter
from sklearn.metrics import roc_auc_score

import raydiff
from raydiff.errors import SettingsError
from raydiff.model.folder import Model
from raydiff.model.scorer import examples_of, image_key, score_examples
from raydiff.nn.positions import (
    CELLS,
    SHRINKAGE,
    SMOOTHING,
    PositionGrid,
    PositionStatistics,
    by_category,
    in_cells,
    left_out,
)


def normal_maps(count, size=64, seed=0, border=4.0):
    """(count, size, size) noise that is larger, and more varied, at the border of the image."""
    noise = torch.randn(count, size, size, generator=torch.Generator().manual_seed(seed)).abs()
    noise[:, : size // 8] *= border
    noise[:, -size // 8 :] *= border
    return noise


def lower_median(values):
    return np.sort(values.ravel())[(values.size - 1) // 2]


def test_a_grid_is_what_its_docstring_says():
    cells = in_cells(normal_maps(7))
    values = cells.double().numpy()
    weight = 7 / (7 + SHRINKAGE)
    own = gaussian_filter(values.mean(0), SMOOTHING)
    mean = weight * own + (1 - weight) * lower_median(own)
    own = gaussian_filter(((values - mean) ** 2).mean(0), SMOOTHING)
    variance = weight * own + (1 - weight) * lower_median(own)
    grid = PositionGrid.of(cells)
    np.testing.assert_allclose(grid.mean, np.maximum(mean, lower_median(mean)), rtol=1e-4)
    np.testing.assert_allclose(grid.deviation, np.sqrt(np.maximum(variance, lower_median(variance))), rtol=1e-4)


def test_cells_are_means_of_their_pixels():
    maps = normal_maps(2, size=32)
    cells = in_cells(maps)
    assert cells.shape == (2, CELLS, CELLS)
    torch.testing.assert_close(cells[1, 3, 5], maps[1, 6:8, 10:12].mean())
    assert in_cells(maps[:, :8, :8]).shape == (2, 8, 8)  # a map smaller than the grid has a cell a pixel


def test_each_map_is_told_against_its_category():
    statistics = PositionStatistics.of({"a": in_cells(normal_maps(9)), "b": in_cells(5 * normal_maps(9, seed=1))})
    maps = normal_maps(3, seed=2)
    found = statistics.standardised(maps, ["a", "b", None])
    for place, grid in enumerate((statistics.categories["a"], statistics.categories["b"], statistics.all)):
        mean, deviation = torch.nn.functional.interpolate(grid.tensors[None], (64, 64), mode="bilinear")[0]
        torch.testing.assert_close(found[place], (maps[place] - mean) / deviation)
    unknown = statistics.standardised(maps, ["a", "b", "never seen"])
    torch.testing.assert_close(unknown, found)


def test_no_place_counts_for_quieter_than_half_of_them():
    quiet = normal_maps(20)
    quiet[:, 24:40, 24:40] *= 0.01
    cells = in_cells(quiet)
    grid = PositionGrid.of(cells)
    assert float(cells[:, 8, 8].mean()) < grid.mean[8][8] / 10
    assert grid.mean[8][8] == min(map(min, grid.mean))
    assert grid.deviation[8][8] > 10 * float(cells[:, 8, 8].std())


def test_a_single_flat_map_has_a_deviation():
    grid = PositionGrid.of(in_cells(torch.full((1, 64, 64), 2.0)))
    assert np.all(np.isfinite(grid.deviation))
    assert np.min(grid.deviation) > 0


def test_an_image_that_is_left_out_is_told_against_the_others():
    cells = in_cells(normal_maps(5))
    found = list(left_out(cells))
    assert len(found) == 5
    assert found[2] == PositionGrid.of(cells[[0, 1, 3, 4]])


def test_cells_are_sorted_by_category():
    cells = in_cells(normal_maps(4))
    found = by_category(cells, ["b", "a", "b", "a"])
    assert torch.equal(found["a"], cells[[1, 3]])
    assert torch.equal(found["b"], cells[[0, 2]])


@pytest.mark.parametrize("normals", [8, 60])
def test_defects_are_found_where_normals_are_odd_at_the_border(normals):
    """The largest value of a map: false alarms of the border hide defects that lie elsewhere."""
    grid = PositionStatistics.of({"a": in_cells(normal_maps(normals))})
    good, bad = normal_maps(200, seed=5), normal_maps(200, seed=6)
    bad[:, 28:36, 28:36] += 1.5
    maps = torch.cat([good, bad])
    labels = [0] * 200 + [1] * 200
    standing = grid.standardised(maps, ["a"] * 400)
    before, after = (roc_auc_score(labels, in_cells(each).amax((1, 2)).numpy()) for each in (maps, standing))
    assert before < 0.75
    assert after > 0.95


def test_a_model_scores_against_its_positions(tmp_path):
    method, _ = fitted("nearest_patch", made_images(8), categories=["a"] * 8)
    images = made_images(5, seed=3)
    plain = Model(method, method.ScoreSettings()).score(list(images))
    positions = PositionStatistics.of({"a": in_cells(torch.from_numpy(plain.maps))})
    model = Model(method, method.ScoreSettings(), positions=positions)
    found = model.score(list(images), ["a", None, "a", "a", None])
    wanted = positions.standardised(torch.from_numpy(plain.maps), ["a"] * 5)  # the only one that None can be
    np.testing.assert_allclose(found.maps, wanted, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found.scores, method.scores(wanted, model.score_settings), rtol=1e-4, atol=1e-5)
    alone = model.score([images[2]], ["a"])  # beside no other
    np.testing.assert_array_equal(alone.maps[0], found.maps[2])
    with pytest.raises(SettingsError, match="5 images and 2 categories; give each image one, or None"):
        model.score(list(images), ["a", "a"])

    model.save(str(tmp_path))
    again = raydiff.load(str(tmp_path), "cpu")
    assert again.positions == positions
    assert again.id == model.id
    assert again.id != Model(method, method.ScoreSettings()).id
    np.testing.assert_array_equal(again.score(list(images), ["a"] * 5).maps, model.score(list(images), ["a"] * 5).maps)


def test_more_images_than_a_chunk_keep_their_categories():
    method, _ = fitted("nearest_patch", made_images(8), categories=["a", "b"] * 4)
    images = made_images(19, seed=3)
    names = [("a", "b", None)[number % 3] for number in range(19)]
    plain = score_examples(
        method, examples_of(method, images), [image_key(image) for image in images], method.ScoreSettings()
    )
    maps = torch.from_numpy(plain.maps)
    positions = PositionStatistics.of({"a": in_cells(maps[:9]), "b": in_cells(2 * maps[9:])})
    found = Model(method, method.ScoreSettings(), positions=positions).score(list(images), names)
    assert [guess is None for guess in found.guessed] == [name is not None for name in names]
    shown = [guess or name for guess, name in zip(found.guessed, names, strict=True)]
    np.testing.assert_allclose(found.maps, positions.standardised(maps, shown), rtol=1e-4, atol=1e-5)


def test_an_image_without_a_category_is_taken_for_what_its_patches_look_like():
    """The bank knows which product each of its vectors is from."""
    dark, bright = made_images(12) // 3, 255 - made_images(12, seed=1) // 3
    method, _ = fitted("nearest_patch", np.concatenate([dark[:8], bright[:8]]), categories=["bolt"] * 8 + ["nut"] * 8)
    assert list(method.categories) == ["bolt", "nut"]
    images = [*dark[8:], *bright[8:]]
    assert method.likely_categories(examples_of(method, np.stack(images))) == ["bolt"] * 4 + ["nut"] * 4
    maps = torch.from_numpy(Model(method, method.ScoreSettings()).score(images).maps)
    positions = PositionStatistics.of({"bolt": in_cells(maps[:4]), "nut": in_cells(maps[4:])})
    model = Model(method, method.ScoreSettings(), positions=positions)
    found = model.score(images, ["bolt", None, "no product of ours", None, "nut", None, "bolt", None])
    assert found.guessed == [None, "bolt", "bolt", "bolt", None, "nut", None, "nut"]
    told = model.score(images, ["bolt"] * 4 + ["nut", "nut", "bolt", "nut"])
    np.testing.assert_array_equal(found.scores, told.scores)
    assert model.score(images).guessed == ["bolt"] * 4 + ["nut"] * 4


def test_a_method_without_a_bank_guesses_nothing():
    method, _ = fitted("diffusion_ad", made_images(8))
    assert not method.categories
    assert Model(method, method.ScoreSettings()).score([made_images(1)[0]]).guessed == [None]
