"""What is nearest_patch's own: PatchCore's recipe as settings, against loops and scikit-learn."""

import numpy as np
import pytest
import torch
from conftest import fitted, made_images
from sklearn.neighbors import NearestNeighbors

from raydiff.methods.features import as_vectors
from raydiff.methods.nearest_patch import NearestPatchScore, support_weights
from raydiff.scoring.scorer import examples_of, image_key, score_examples


def scored(method, images, **settings):
    keys = [image_key(image) for image in images]
    return score_examples(method, examples_of(method, images), keys, NearestPatchScore(**settings))


@pytest.mark.parametrize("support", [2, 9, 500])
def test_an_image_scores_as_in_patchcore(support):
    """Equation 7 of the paper, one image and one number at a time."""
    method, _ = fitted("nearest_patch", made_images(8))
    images = made_images(3, seed=5)
    bank = method.memory_bank.numpy().astype(np.float64)
    search = NearestNeighbors(algorithm="brute").fit(bank)
    wanted = []
    for image in images:
        patches = as_vectors(method.standardised(examples_of(method, image[None]))).numpy().astype(np.float64)
        distances, indices = search.kneighbors(patches, 1)
        farthest = int(distances[:, 0].argmax())
        own = bank[indices[farthest, 0]]
        _, around = search.kneighbors(own[None], min(support, len(bank)))
        to_support = [float(np.linalg.norm(patches[farthest] - bank[index])) for index in around[0]]
        weight = 1 - np.exp(to_support[0]) / np.exp(to_support).sum()
        wanted.append(weight * distances[farthest, 0])
    found = scored(method, images, image_score="patch", support=support)
    np.testing.assert_allclose(found.scores, wanted, rtol=1e-4)


def test_a_support_of_one_weighs_nothing():
    assert support_weights(torch.rand(4, 3), torch.rand(5, 3), torch.arange(4), 1).tolist() == [1.0] * 4


def test_the_image_score_leaves_the_maps_alone():
    method, _ = fitted("nearest_patch", made_images(8))
    images = made_images(3, seed=5)
    window, patch = (scored(method, images, image_score=kind) for kind in ("window", "patch"))
    np.testing.assert_array_equal(window.maps, patch.maps)
    assert not np.allclose(window.scores, patch.scores)


def test_features_can_be_taken_as_they_are():
    images = made_images(8)
    method, examples = fitted("nearest_patch", images, standardised=False)
    torch.testing.assert_close(method.standardised(examples.examples), examples.examples.float())
    other, _ = fitted("nearest_patch", images)
    assert not torch.allclose(other.standardised(examples.examples), examples.examples.float(), atol=0.1)
