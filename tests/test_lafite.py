"""What is LafitE's own: editing, weights, steps, and a pinned loss curve."""

import pytest
import torch
from conftest import fitted, made_images

from raydiff import methods
from raydiff.errors import SettingsError
from raydiff.methods.lafite import LafitEScore, edit_weights
from raydiff.scoring.scorer import image_key, score_examples
from raydiff.training.loop import TrainingLoop

# Losses of the first steps of the tiny training; a change of them is a change of the method or its training.
GOLDEN = [1.0296, 1.0176, 1.091, 1.0168, 1.0161, 1.0127, 1.0354, 0.9949, 0.9775, 1.0078, 1.0409, 0.9966]


@pytest.mark.parametrize("kind", ["uniform", "inverse_distance", "softmax"])
def test_weights_sum_to_one_and_favour_the_near(kind):
    weights = edit_weights(torch.tensor([[0.5, 1.0, 4.0], [2.0, 2.0, 2.0]]), kind)
    torch.testing.assert_close(weights.sum(1), torch.ones(2))
    torch.testing.assert_close(weights[1], torch.full((3,), 1 / 3))
    if kind != "uniform":
        assert weights[0].tolist() == sorted(weights[0].tolist(), reverse=True)


def test_inverse_distance_weights_in_closed_form():
    torch.testing.assert_close(edit_weights(torch.tensor([[1.0, 4.0]]), "inverse_distance"), torch.tensor([[0.8, 0.2]]))


def test_one_neighbour_on_a_bank_vector_returns_it():
    method, _ = fitted("lafite", made_images(6))
    features = method.memory_bank[:16].T.reshape(1, -1, 4, 4)
    torch.testing.assert_close(method.edit(features, LafitEScore(neighbours=1)), features)


def test_editing_mixes_the_nearest_by_their_weights():
    method, examples = fitted("lafite", made_images(6))
    features = method.standardised(examples.examples[:1]) + 0.3
    edited = method.edit(features, LafitEScore(neighbours=3, neighbour_weights="uniform"))
    query = features[0, :, 1, 2]
    nearest = (method.memory_bank - query).norm(dim=1).topk(3, largest=False).indices
    torch.testing.assert_close(edited[0, :, 1, 2], method.memory_bank[nearest].mean(0))


def test_the_error_is_taken_against_the_unedited_features():
    """With a network that returns its clean input, the reconstruction is the edited map, exactly."""
    method, examples = fitted("lafite", made_images(6))
    features = method.standardised(examples.examples[:2]) + 0.5
    score = LafitEScore(neighbours=1, blur_sigma=0)
    edited = method.edit(features, score)

    def perfect(x, t):
        signal, sigma = method.diffusion._levels(t, x)
        noise = (x - signal * edited) / sigma
        return noise if method.diffusion.prediction == "epsilon" else signal * noise - sigma * edited

    method._predict = perfect
    noise = torch.randn(features.shape, generator=torch.Generator().manual_seed(0))
    for steps in (1, 4):
        score = LafitEScore(neighbours=1, denoising_steps=steps)
        error = method._error(features, edited, noise, 300, score)
        torch.testing.assert_close(error, (edited - features).norm(dim=1), rtol=1e-3, atol=1e-3)


def test_several_corruption_steps_are_averaged():
    method, examples = fitted("lafite", made_images(4))
    keys = [image_key(image) for image in made_images(4)]
    maps = [
        score_examples(method, examples.examples, keys, LafitEScore(corruption_steps=steps)).maps
        for steps in ((200,), (600,), (200, 600))
    ]
    torch.testing.assert_close(torch.from_numpy(maps[2]), torch.from_numpy((maps[0] + maps[1]) / 2))


def test_without_editing_the_bank_does_not_matter():
    method, examples = fitted("lafite", made_images(4))
    keys = [image_key(image) for image in made_images(4)]

    def scores(edit):
        return score_examples(method, examples.examples, keys, LafitEScore(feature_editing=edit)).scores

    plain, edited = scores(False), scores(True)
    method.memory_bank.mul_(-3)
    assert (scores(False) == plain).all()
    assert (scores(True) != edited).any()


@pytest.mark.parametrize(
    "changes",
    [
        {"corruption_steps": [1000]},
        {"corruption_steps": [3], "denoising_steps": 4},
        {"corruption_steps": []},
        {"neighbours": 0},
    ],
)
def test_impossible_score_settings_are_refused(changes):
    with pytest.raises(SettingsError, match="LafitEScore"):
        LafitEScore.parse(changes)


def test_the_loss_curve_is_the_pinned_one():
    method, examples = fitted("lafite", made_images(10))
    loop = TrainingLoop(method, examples, seed=0)
    losses = [loop.advance() for _ in range(12)]
    assert losses == pytest.approx(GOLDEN, rel=2e-3)


def test_the_paper_preset_has_the_papers_u_net():
    settings = methods.recipe("lafite", "paper", {"backbone": {"weights": "random"}})
    assert settings.unet.base_channels == 256
    assert settings.unet.multipliers == (1, 2, 3, 4)
    assert settings.prediction == "epsilon"
