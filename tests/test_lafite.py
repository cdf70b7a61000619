"""What is LafitE's own: editing, weights, steps, and a pinned loss curve."""

import pytest
import torch
from conftest import LAFITES_UNET, fitted, made_images, one_category, tiny_settings

from raydiff import methods
from raydiff.errors import SettingsError
from raydiff.methods.editing import edit_weights
from raydiff.methods.lafite import LafitEScore
from raydiff.model.scorer import image_key, score_examples
from raydiff.nn.blocks import Blocks, BlocksSettings
from raydiff.nn.diffusion import keyed_noise
from raydiff.nn.maps import anomaly_map
from raydiff.training.loop import TrainingLoop

# Losses of the first steps of the U-Net's tiny training; a change of them is a change of the method or its training.
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
    torch.testing.assert_close(method.edit(features, one_category(features), LafitEScore(neighbours=1)), features)


def test_editing_mixes_the_nearest_by_their_weights():
    method, examples = fitted("lafite", made_images(6))
    features = method.standardised(examples.examples[:1]) + 0.3
    edited = method.edit(features, one_category(features), LafitEScore(neighbours=3, neighbour_weights="uniform"))
    query = features[0, :, 1, 2]
    nearest = (method.memory_bank - query).norm(dim=1).topk(3, largest=False).indices
    torch.testing.assert_close(edited[0, :, 1, 2], method.memory_bank[nearest].mean(0))


def test_the_error_is_taken_against_the_unedited_features():
    """With a network that returns its clean input, the reconstruction is the edited map, exactly."""
    method, examples = fitted("lafite", made_images(6))
    features = method.standardised(examples.examples[:2]) + 0.5
    score = LafitEScore(neighbours=1, blur_sigma=0)
    edited = method.edit(features, one_category(features), score)

    def perfect(x, t):
        signal, sigma = method.diffusion._levels(t, x)
        noise = (x - signal * edited) / sigma
        return noise if method.diffusion.prediction == "epsilon" else signal * noise - sigma * edited

    method._predict = perfect
    noise = torch.randn(features.shape, generator=torch.Generator().manual_seed(0))
    for steps in (1, 4):
        score = LafitEScore(neighbours=1, denoising_steps=steps)
        error = method._error(features, edited, [noise], 300, score)
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


def test_the_reconstructions_of_several_draws_are_averaged():
    method, examples = fitted("lafite", made_images(2))
    features, keys = method.standardised(examples.examples), ["a", "b"]
    clean = []
    for draw in range(3):
        noise = keyed_noise(keys, features.shape[1:], 7 + draw, features.device)
        noisy = method.diffusion.add_noise(features, noise, torch.tensor([300, 300]))
        with torch.no_grad():
            clean.append(method.diffusion.denoise(noisy, [300], method._predict))
    error = (sum(clean) / 3 - features).norm(dim=1)
    score = LafitEScore(corruption_steps=[300], draws=3, noise_seed=7, feature_editing=False)
    torch.testing.assert_close(method.maps(examples.examples, keys, score).maps, anomaly_map(error, 32, 4.0))


def test_the_bank_can_have_a_share_in_the_error():
    method, examples = fitted("lafite", made_images(4))
    near = method.nearest(method.standardised(examples.examples) + 0, one_category(examples.examples), 1)[
        0
    ].distances.view(4, 4, 4)

    def maps(share, editing):
        score = LafitEScore(bank_weight=share, feature_editing=editing)
        return method.maps(examples.examples + 1, list("abcd"), score).maps

    other = method.nearest(method.standardised(examples.examples + 1), one_category(examples.examples), 1)[
        0
    ].distances.view(4, 4, 4)
    assert not torch.allclose(near, other)
    for editing in (True, False):
        torch.testing.assert_close(maps(1.0, editing), anomaly_map(other, 32, 4.0))
        mixed = 0.3 * maps(1.0, editing) + 0.7 * maps(0.0, editing)
        torch.testing.assert_close(maps(0.3, editing), mixed, rtol=1e-4, atol=1e-4)


def test_noise_is_drawn_from_the_steps_that_are_trained_on():
    method, examples = fitted("lafite", made_images(8), noise_steps=[300, 303])
    seen = []
    predict = method._predict

    def watched(x, t):
        seen.extend(t.tolist())
        return predict(x, t)

    method._predict = watched
    generator = torch.Generator().manual_seed(0)
    for _ in range(10):
        method(examples.examples, generator)
    assert set(seen) == {300, 301, 302}


@pytest.mark.parametrize("steps", [[5, 5], [-1, 10], [0, 1001], [9, 2]])
def test_impossible_noise_steps_are_refused(steps):
    with pytest.raises(SettingsError, match=r"noise_steps .* are not two ascending numbers in 0\.\.1000"):
        tiny_settings("lafite", noise_steps=steps)


def test_blocks_learn_to_tell_a_place_from_its_surroundings():
    """Each position is the mean of the two beside it: a network that sees one position alone cannot know it."""
    torch.manual_seed(0)
    network = Blocks(2, BlocksSettings(width=32, blocks=2))
    optimizer = torch.optim.Adam(network.parameters(), 1e-2)
    clean = torch.randn(32, 2, 6, 6)
    wanted = (clean.roll(1, 3) + clean.roll(-1, 3)) / 2
    t = torch.randint(1000, (32,))
    assert float(network(clean, t).detach().abs().max()) == 0  # it begins with no opinion
    for _ in range(100):
        loss = (network(clean, t) - wanted).square()[..., 1:-1].mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert float(loss.detach()) < 0.05 * float(wanted[..., 1:-1].square().mean())


def test_blocks_know_how_noisy_their_input_is():
    torch.manual_seed(0)
    network = Blocks(2, BlocksSettings(width=16, blocks=2))
    optimizer = torch.optim.Adam(network.parameters(), 3e-3)
    x, t = torch.randn(32, 2, 4, 4), torch.randint(1000, (32,))
    wanted = (t / 500 - 1)[:, None, None, None].expand_as(x)
    for _ in range(200):
        loss = (network(x, t) - wanted).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert float(loss.detach()) < 0.02


def test_lafite_trains_and_scores_with_blocks():
    blocks = {"width": 16, "blocks": 2}
    method, examples = fitted(
        "lafite", made_images(10), network="blocks", blocks=blocks, learning_rate=3e-3, train_steps=200
    )
    loop = TrainingLoop(method, examples, seed=0)
    losses = [loop.advance() for _ in range(200)]
    assert sum(losses[-40:]) < 0.9 * sum(losses[:40])
    assert torch.isfinite(method.maps(examples.examples, list("abcdefghij"), LafitEScore()).maps).all()


@pytest.mark.parametrize(
    "changes",
    [
        {"bank_weight": 1.5},
        {"draws": 0},
        {"corruption_steps": [1000]},
        {"corruption_steps": [3], "denoising_steps": 4},
        {"corruption_steps": []},
        {"neighbours": 0},
    ],
)
def test_impossible_score_settings_are_refused(changes):
    with pytest.raises(SettingsError, match="LafitEScore"):
        LafitEScore.parse(changes)


def test_the_loss_curve_of_the_papers_u_net_is_the_pinned_one():
    method, examples = fitted("lafite", made_images(10), **LAFITES_UNET)
    loop = TrainingLoop(method, examples, seed=0)
    losses = [loop.advance() for _ in range(12)]
    assert losses == pytest.approx(GOLDEN, rel=2e-3)
    untrained, _ = fitted("lafite", made_images(10), **LAFITES_UNET)
    found, before = (
        each.eval().maps(examples.examples, list("abcdefghij"), LafitEScore()).maps
        for each in (loop.finish(), untrained)
    )
    assert torch.isfinite(found).all()
    assert not torch.allclose(found, before)


def test_the_paper_preset_has_the_papers_u_net():
    settings = methods.recipe("lafite", "paper", {"backbone": {"weights": "random"}})
    assert settings.unet.base_channels == 256
    assert settings.unet.multipliers == (1, 2, 3, 4)
    assert settings.prediction == "epsilon"
    assert settings.network == "unet"
    assert settings.noise_steps == (0, 1000)
    assert (LafitEScore().draws, LafitEScore().bank_weight) == (1, 0)
