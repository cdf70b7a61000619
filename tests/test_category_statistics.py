"""Several products in one model: each in its own units and with its own bank, told apart by what images look like."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from conftest import fitted, made_images
from sklearn.neighbors import NearestCentroid, NearestNeighbors

from raydiff.methods.features import as_vectors
from raydiff.model.folder import Model, load
from raydiff.model.scorer import examples_of
from raydiff.nn.category_statistics import CategorySums, likeliest


@pytest.fixture
def features() -> tuple[torch.Tensor, torch.Tensor]:
    """Features (12, 5, 4, 4) of three categories of unlike scales, and the categories."""
    generator = torch.Generator().manual_seed(0)
    shown = torch.tensor([0, 2, 1, 0, 0, 2, 1, 1, 0, 2, 0, 2])
    scale, shift = torch.rand(3, 5, generator=generator) + 0.1, torch.randn(3, 5, generator=generator)
    drawn = torch.randn(12, 5, 4, 4, generator=generator) + torch.randn(12, 5, 1, 1, generator=generator)
    return drawn * scale[shown][..., None, None] + shift[shown][..., None, None], shown


def test_mean_and_deviation_of_each_category(features):
    values, shown = features
    sums = CategorySums(3, 5)
    for batch, places in zip(values.half().split(5), shown.split(5), strict=True):
        sums.add(batch, places)
    values = values.half().double().numpy()
    assert sums.images == [5, 3, 4]
    within = np.zeros(5)
    for place in range(3):
        own = values[shown.numpy() == place]
        np.testing.assert_allclose(sums.mean[place], own.mean((0, 2, 3)))
        np.testing.assert_allclose(sums.deviation[place], own.std((0, 2, 3)))
        within += np.square(own.mean((2, 3)) - own.mean((0, 2, 3))).sum(0)
    np.testing.assert_allclose(sums.image_deviation, np.sqrt(within / 12))


def test_the_likeliest_is_the_nearest_centroid(features):
    values, shown = features
    deviation = torch.rand(5, generator=torch.Generator().manual_seed(1)) + 0.1
    looks = (values.mean((2, 3)) / deviation).numpy()
    nearest = NearestCentroid().fit(looks, shown.numpy())
    mean = torch.from_numpy(nearest.centroids_).float() * deviation
    others = values.repeat(4, 1, 1, 1) + torch.randn(48, 5, 1, 1, generator=torch.Generator().manual_seed(2))
    wanted = nearest.predict((others.mean((2, 3)) / deviation).numpy())
    assert likeliest(others, mean, deviation).tolist() == wanted.tolist()
    assert len(set(wanted)) == 3


@pytest.fixture(scope="module")
def products() -> tuple[np.ndarray, np.ndarray]:
    """Two products: dark ones of low contrast, bright ones of high."""
    return made_images(12) // 4, 255 - made_images(12, seed=1) // 2


@pytest.fixture(scope="module")
def both(products):
    dark, bright = products
    images = np.stack([dark[:8], bright[:8]], 1).reshape(16, *dark.shape[1:])  # in turn
    return fitted("nearest_patch", images, categories=["nut", "bolt"] * 8)[0]


def test_each_product_is_seen_as_by_a_model_of_its_own(both, products):
    for images, name in zip(products, ("nut", "bolt"), strict=True):
        alone, examples = fitted("nearest_patch", images[:8])
        place = list(both.categories).index(name)
        others = examples_of(both, images[8:])
        torch.testing.assert_close(both.standardised(others), alone.standardised(others))
        torch.testing.assert_close(both.feature_std[place], alone.feature_std[0])
        assert both.likely_categories(others) == [name] * 4
        standard = both.standardised(examples.examples)
        torch.testing.assert_close(standard.mean((0, 2, 3)), torch.zeros(192), atol=1e-4, rtol=0)


def test_an_image_is_held_against_its_own_products_bank(both, products):
    assert both.bank_categories.tolist() == sorted(both.bank_categories.tolist())
    assert torch.bincount(both.bank_categories).tolist() == [26, 26]
    images = np.concatenate([products[0][8:], products[1][8:]])[[0, 4, 1, 5, 6]]
    examples = examples_of(both, images)
    shown = both.shown(examples)
    assert shown.tolist() == [1, 0, 1, 0, 0]
    standard = both.standardised(examples)
    (found,) = both.nearest(standard, shown, 3)
    for row, place in enumerate(shown.tolist()):
        own = (both.bank_categories == place).nonzero()[:, 0].numpy()
        search = NearestNeighbors(n_neighbors=3, algorithm="brute").fit(both.memory_bank[own].numpy())
        distances, indices = search.kneighbors(as_vectors(standard[row : row + 1]).numpy())
        rows = slice(16 * row, 16 * row + 16)
        np.testing.assert_allclose(found.distances[rows], distances, rtol=1e-3)
        np.testing.assert_array_equal(found.indices[rows, 0], own[indices[:, 0]])


@pytest.mark.parametrize("name", ["nearest_patch", "lafite"])
def test_what_is_beside_an_image_of_another_product_does_not_change_its_score(name, products, tmp_path):
    dark, bright = products
    method, _ = fitted(name, np.concatenate([dark[:8], bright[:8]]), categories=["nut"] * 8 + ["bolt"] * 8)
    model = Model(method, method.ScoreSettings())
    images = [dark[8], bright[8], bright[9], dark[9]]
    together = model.score(images)
    for place, image in enumerate(images):
        np.testing.assert_array_equal(model.score([image]).maps[0], together.maps[place])
    model.save(str(tmp_path))
    np.testing.assert_array_equal(load(str(tmp_path), "cpu").score(images).maps, together.maps)


def test_with_fewer_vectors_than_neighbours_all_of_a_bank_count(products):
    method, _ = fitted("nearest_patch", np.concatenate(products), categories=["nut"] * 12 + ["bolt"] * 12, bank_size=6)
    examples = examples_of(method, products[0][:2])
    (found,) = method.nearest(method.standardised(examples), method.shown(examples), 8)
    assert found.distances.shape == (32, 6)
