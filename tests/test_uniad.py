"""What is UniAD's own: jitter, dropout, the loss, editing and the recipes; its network has a file of its own."""

import numpy as np
import pytest
import torch
from conftest import TINY_BACKBONE, fitted, made_images, one_category, tiny_settings
from torch import nn

from raydiff import methods
from raydiff.errors import SettingsError
from raydiff.methods.lafite import LafitEScore
from raydiff.methods.uniad import UniADScore, jittered
from raydiff.model.scorer import image_key, score_examples
from raydiff.nn.maps import anomaly_map
from raydiff.nn.seeded import seeded
from raydiff.training.loop import TrainingLoop
from raydiff.views import roi

# Randomness in training


def test_jitter_grows_with_the_norm_of_a_position():
    features = torch.randn(4, 30, 16, 16) * torch.linspace(0, 3, 16)
    noise = jittered(features, 20.0, torch.Generator().manual_seed(0)) - features
    wanted = 20.0 * features.norm(dim=1) / 30
    assert not noise[..., 0].any()  # nothing is there
    ratio = noise[..., 1:] / wanted[:, None, :, 1:]
    assert float(ratio.mean()) == pytest.approx(0, abs=0.02)
    assert float(ratio.std()) == pytest.approx(1, abs=0.02)
    torch.testing.assert_close(ratio.square().mean(1).sqrt().mean((0, 1)), torch.ones(15), rtol=0.1, atol=0)
    assert torch.equal(jittered(features, 0.0, torch.Generator()), features)


def test_dropout_follows_the_generator_and_leaves_other_draws_alone():
    def drawn(seed):
        with seeded(torch.Generator().manual_seed(seed), torch.device("cpu")):
            return nn.functional.dropout(torch.ones(1000), 0.1)

    torch.manual_seed(5)
    wanted = torch.rand(3)
    torch.manual_seed(5)
    first = drawn(0)
    assert torch.equal(torch.rand(3), wanted)
    assert torch.equal(drawn(0), first)
    assert not torch.equal(drawn(1), first)
    assert 50 < int((first == 0).sum()) < 150


def test_dropout_is_in_the_loss_of_a_training_alone():
    method, examples = fitted("uniad", made_images(6))
    assert method.settings.transformer.dropout > 0

    def loss(seed):
        return float(method(examples.examples, torch.Generator().manual_seed(seed)).detach())

    still = loss(0)
    assert loss(0) == still
    method.network.train()
    assert loss(0) != still
    assert loss(0) == loss(0)


def test_the_loss_is_the_mean_square_of_what_the_network_misses_inside():
    images = made_images(4)
    part = np.zeros((32, 32), bool)
    part[:, :16] = True
    method, examples = fitted("uniad", images, jitter=0.0)
    seen = method.example(torch.from_numpy(np.stack([roi.with_region(image, part) for image in images])))
    clean = method.standardised(seen)
    inside = method.inside(seen)
    assert inside[:, :, :2].all()
    assert not inside[:, :, 2:].any()
    with torch.no_grad():
        missed = method.network(clean, inside) - clean
        found = method(seen, torch.Generator().manual_seed(0))
        whole = method(examples.examples, torch.Generator().manual_seed(0))
        features = method.standardised(examples.examples)
        everywhere = torch.ones(4, 4, 4, dtype=torch.bool)
        wanted = nn.functional.mse_loss(method.network(features, everywhere), features)
    torch.testing.assert_close(found, missed[..., :2].square().mean())
    torch.testing.assert_close(whole, wanted)


def test_steps_are_clipped_at_the_authors_norm(monkeypatch):
    asked = []

    def clipped(parameters, norm):
        asked.append(norm)

    monkeypatch.setattr(nn.utils, "clip_grad_norm_", clipped)
    for name in ("uniad", "lafite"):
        TrainingLoop(*fitted(name, made_images(6)), seed=0).advance()
    assert asked == [0.1, 1.0]


def test_it_learns_what_lies_around_and_cannot_copy():
    """On waves the loss falls; yet a place that none of its surroundings tell of stays unknown."""
    method, examples = fitted("uniad", made_images(16), train_steps=150, jitter=5.0)
    loop = TrainingLoop(method, examples, seed=0)
    losses = [loop.advance() for _ in range(150)]
    assert sum(losses[-20:]) < 0.8 * sum(losses[:20])
    method = loop.finish()
    features = method.standardised(examples.examples)
    inside = method.inside(examples.examples)
    odd = features.clone()
    odd[:, :, 1, 2] += 5
    with torch.no_grad():
        moved = method.network(odd, inside) - method.network(features, inside)
    assert float(moved[:, :, 1, 2].norm()) < 0.5 * float((odd - features)[:, :, 1, 2].norm())


# Scores


def maps_by_hand(method, examples, edited=None):
    features = method.standardised(examples)
    with torch.no_grad():
        found = method.network(features if edited is None else edited, method.inside(examples))
    return (found - features).square().sum(1).sqrt()


def test_a_map_is_the_distance_over_channels_without_blur():
    method, examples = fitted("uniad", made_images(4))
    found = method.maps(examples.examples, list("abcd"), UniADScore()).maps
    torch.testing.assert_close(found, anomaly_map(maps_by_hand(method, examples.examples), 32, 0))
    assert UniADScore().pool == 16


def test_edited_features_are_reconstructed_and_compared_with_the_unedited():
    method, examples = fitted("uniad", made_images(6))
    lafite, _ = fitted("lafite", made_images(6))
    given = examples.examples[:3] + 1
    features = method.standardised(given)
    edited = lafite.edit(features, one_category(features), LafitEScore(neighbours=3))
    assert not torch.allclose(edited, features, atol=0.1)
    torch.testing.assert_close(lafite.memory_bank, method.memory_bank)
    found = method.maps(given, list("abc"), UniADScore(feature_editing=True, neighbours=3)).maps
    torch.testing.assert_close(found, anomaly_map(maps_by_hand(method, given, edited), 32, 0))


def test_without_editing_the_bank_does_not_matter():
    method, examples = fitted("uniad", made_images(4))
    keys = [image_key(image) for image in made_images(4)]

    def scores(edit):
        return score_examples(method, examples.examples, keys, UniADScore(feature_editing=edit)).scores

    plain, edited = scores(False), scores(True)
    assert not UniADScore().feature_editing
    method.memory_bank.mul_(-3)
    assert (scores(False) == plain).all()
    assert (scores(True) != edited).any()


# Settings


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ({"width": 30, "heads": 8}, "width 30 must be even and a multiple of the 8 heads"),
        ({"width": 9, "heads": 3}, "width 9 must be even"),
        ({"neighbourhood": 4}, "neighbourhood 4 has no middle; give an odd number"),
        ({"neighbourhood": 5}, r"hides all of a grid of 4 from its middle; give a grid of 6 or more"),
    ],
)
def test_impossible_shapes_are_refused(shape, message):
    with pytest.raises(SettingsError, match=message):
        tiny_settings("uniad", transformer=shape)


def test_the_smallest_grid_that_is_asked_for_is_taken():
    backbone = {**TINY_BACKBONE, "grid": 6}
    assert tiny_settings("uniad", backbone=backbone, transformer={"neighbourhood": 5}).backbone.grid == 6


def test_the_paper_preset_has_the_authors_settings():
    settings = methods.recipe("uniad", "paper", {"backbone": {"weights": "random"}})
    backbone, shape = settings.backbone, settings.transformer
    assert (settings.image_size, backbone.name, backbone.grid) == (224, "efficientnet_b4", 14)
    assert (backbone.stages, backbone.neighbourhood, settings.standardised) == ((0, 1, 2, 3), 1, False)
    assert (shape.width, shape.heads, shape.encoder_layers, shape.decoder_layers) == (256, 8, 4, 4)
    assert (shape.feedforward, shape.dropout, shape.neighbourhood, settings.jitter) == (1024, 0.1, 7, 20)
    assert (settings.batch_size, settings.learning_rate, settings.weight_decay) == (64, 1e-4, 1e-4)
    assert (settings.decay_from, settings.warmup_steps, settings.ema_decay) == (0.8, 0, 0)
    assert settings.train_steps == pytest.approx(1000 * 3629 / 64, rel=1e-3)
