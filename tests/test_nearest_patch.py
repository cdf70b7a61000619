"""What is nearest_patch's own: PatchCore's recipe as settings, against loops and scikit-learn."""

import numpy as np
import pytest
import torch
from conftest import TINY_BACKBONE, fitted, made_images, one_category, tiny_settings
from sklearn.neighbors import NearestNeighbors

from raydiff.errors import SettingsError
from raydiff.methods.features import as_vectors
from raydiff.methods.nearest_patch import NearestPatchScore, support_weights
from raydiff.model.scorer import examples_of, image_key, score_examples
from raydiff.nn.maps import anomaly_map


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


SECOND = {**TINY_BACKBONE, "name": "mobilenetv3_small_050", "stages": [1]}


@pytest.fixture(scope="module")
def two():
    """A method with two backbones, and its examples."""
    return fitted("nearest_patch", made_images(8), further_backbones=[SECOND])


def test_each_backbone_has_a_bank_of_its_own_and_errors_are_averaged_in_its_units(two):
    method, _ = two
    images = made_images(3, seed=5)
    first, second = method.parts
    assert (first, second) == (192, 8)
    patches = as_vectors(method.standardised(examples_of(method, images))).numpy()
    errors = np.zeros(len(patches))
    for part, scale in ((slice(0, first), method.part_scales[0]), (slice(first, None), method.part_scales[1])):
        search = NearestNeighbors(n_neighbors=2, algorithm="brute").fit(method.memory_bank[:, part].numpy())
        errors += search.kneighbors(patches[:, part])[0].mean(1) / float(scale) / 2
    maps = anomaly_map(torch.from_numpy(errors).float().view(3, 4, 4), 32, 1.0)
    np.testing.assert_allclose(scored(method, images, neighbours=2, blur_sigma=1.0).maps, maps, rtol=1e-3)


def test_a_banks_vectors_are_patches_of_its_backbone(two):
    method, examples = two
    patches = as_vectors(method.standardised(examples.examples))
    for vectors, bank in zip(patches.split(method.parts, 1), method.memory_bank.split(method.parts, 1), strict=True):
        assert torch.cdist(bank, vectors).amin(1).max() < 0.05  # as exact as cdist is
    whole = torch.cdist(method.memory_bank, patches).amin(1)
    assert whole.max() > 0.1  # the rows side by side are not one patch's


def test_the_units_are_what_normal_patches_have(two):
    method, examples = two
    found = method.nearest(method.standardised(examples.examples), one_category(examples.examples), 1)
    for near, scale in zip(found, method.part_scales, strict=True):
        assert float(near.distances.mean()) == pytest.approx(float(scale), rel=1e-4)


def test_with_one_backbone_errors_are_distances():
    method, _ = fitted("nearest_patch", made_images(8))
    assert method.part_scales.tolist() == [1.0]


def test_lafite_edits_each_backbones_part_by_its_own_bank():
    method, examples = fitted("lafite", made_images(8), further_backbones=[SECOND])
    features = method.standardised(examples.examples[:1]) + 0.1
    edited = method.edit(features, one_category(features), method.ScoreSettings(neighbours=1))
    for number, part in enumerate(edited.split(method.parts, 1)):
        bank = method.memory_bank.split(method.parts, 1)[number]
        assert torch.cdist(as_vectors(part), bank).amin(1).max() < 0.05  # as exact as cdist is
    maps = method.maps(examples.examples[:2], ["a", "b"], method.ScoreSettings()).maps
    assert torch.isfinite(maps).all()


def test_backbones_must_share_a_grid():
    with pytest.raises(SettingsError, match=r"averaged on one grid, so give all the same \(given: resnet18 4, .* 5\)"):
        tiny_settings("nearest_patch", further_backbones=[{**SECOND, "grid": 5}])


def test_a_further_backbone_is_as_the_first_in_what_it_does_not_say():
    settings = tiny_settings("nearest_patch", further_backbones=[{"name": "tf_efficientnet_lite0"}])
    (further,) = settings.further_backbones
    assert (further.stages, further.grid) == (settings.backbone.stages, settings.backbone.grid)
    assert (further.weights, settings.backbone.weights) == ("package", "random")


def test_patchcores_image_score_is_refused_with_several(two):
    method, _ = two
    with pytest.raises(SettingsError, match="image_score `patch` is PatchCore's, for one backbone"):
        scored(method, made_images(1), image_score="patch")
