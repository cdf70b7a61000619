"""GLAD against its paper's steps written out one image at a time, and its limits."""

import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import ListedExamples, fitted, made_images, tiny_settings, with_defect
from scipy.spatial.distance import cdist
from sklearn.metrics import roc_auc_score

from raydiff.errors import SettingsError
from raydiff.methods import glad
from raydiff.methods.glad import GLAD, GLADScore
from raydiff.model.scorer import examples_of, score_images
from raydiff.nn.codec import Autoencoder, AutoencoderSettings, Pixels
from raydiff.nn.diffusion import keyed_noise, spaced_timesteps
from raydiff.nn.tokens import nearest_token_distance
from raydiff.training.loop import TrainingLoop


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def untrained(**changes):
    torch.manual_seed(0)
    return GLAD(tiny_settings("glad", **changes)).eval()


@pytest.fixture(scope="module")
def method():
    return untrained()


@pytest.fixture(scope="module")
def start(method):
    """Latents of six images and their noise."""
    images = torch.from_numpy(np.concatenate([made_images(3), with_defect(made_images(3, seed=1))]))
    with torch.no_grad():
        latents = method._encode(images.permute(0, 3, 1, 2) / 255)
    return latents, keyed_noise("abcdef", latents.shape[1:], 0, torch.device("cpu"))


@pytest.fixture(scope="module")
def between(method, start):
    """A switch distance that half of the images reach in the end."""
    score = GLADScore(start_step=500, denoising_steps=5, least_step=0, switch_distance=2.0)
    with torch.no_grad():
        return float(method.reconstruct(*start, score)[1]["probing_score"].median()) + 1e-6


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_the_target_of_every_step_stands_for_the_normal_image(prediction):
    """ATP: the target's clean estimate is z_n, whatever was mixed in. With the wrong sign it would be 2 x_s - z_n."""
    method = untrained(prediction=prediction).double()
    normal, shown, noise = torch.randn(3, 1000, 2, 3, 3, generator=generator(), dtype=torch.float64)
    t = torch.arange(1000)
    mixed = method.soft_start(normal, shown, t)
    torch.testing.assert_close(mixed[0], normal[0])
    torch.testing.assert_close(mixed[500], (normal[500] + shown[500]) / 2)
    target = method.anomaly_oriented_target(mixed, normal, noise, t)
    clean, _ = method.diffusion.estimates(target, method.diffusion.add_noise(mixed, noise, t), t)
    torch.testing.assert_close(clean, normal)


def test_without_anomalies_the_target_is_the_noise(method):
    normal, noise = torch.randn(2, 4, 4, 8, 8, generator=generator())
    t = torch.tensor([0, 10, 500, 999])
    torch.testing.assert_close(method.anomaly_oriented_target(normal, normal, noise, t), noise)


def by_hand(method, latent, noise, score):
    """The adaptive denoising of one image, step by step: latent and noise (1, C, h, w)."""
    abar = method.diffusion.alpha_bar
    corrupted = lambda clean, eps, at: abar[at].sqrt() * clean + (1 - abar[at]).sqrt() * eps  # noqa: E731
    timesteps = spaced_timesteps(score.start_step, score.denoising_steps)
    x, chosen, largest = corrupted(latent, noise, score.start_step), 0, 0.0
    for at, following in itertools.pairwise([*timesteps, None]):
        eps = method._predict(x, torch.tensor([at]))
        path = (x - (1 - abar[at]).sqrt() * eps) / abar[at].sqrt()
        clean = path
        if not chosen:
            restarted = (corrupted(latent, noise, at) - (1 - abar[at]).sqrt() * eps) / abar[at].sqrt()
            tokens = [method._features(method._decode(each))[-1][0].flatten(1).T for each in (restarted, path)]
            distance = torch.from_numpy(cdist(*(each.detach().double() for each in tokens), "cosine").min(1))
            seen = float(distance.sort().values[-10:].mean())
            largest = max(largest, seen)
            if score.switch_distance is not None and seen > score.switch_distance:
                chosen, clean = at, restarted
                if score.fusion:
                    grid = distance.float().view(1, 1, 4, 4)
                    mask = F.interpolate(grid, latent.shape[-2:], mode="bilinear").sigmoid()
                    clean = mask * path + (1 - mask) * restarted
            elif at < score.least_step:
                chosen, clean = at, restarted
        if following is not None:
            x = corrupted(clean, eps, following)
    return clean, chosen, largest


@pytest.mark.parametrize("fusion", [True, False])
@pytest.mark.parametrize(("share", "least"), [(1.0, 0), (1.0, 150), (0.7, 0), (None, 300)])
def test_adaptive_denoising_is_that_of_each_image_alone(method, start, between, share, least, fusion):
    latents, noise = start
    switch = None if share is None else share * between
    score = GLADScore(start_step=500, denoising_steps=5, least_step=least, switch_distance=switch, fusion=fusion)
    with torch.no_grad():
        clean, details = method.reconstruct(latents, noise, score)
        alone = [by_hand(method, latents[i : i + 1], noise[i : i + 1], score) for i in range(len(latents))]
    torch.testing.assert_close(clean, torch.cat([each[0] for each in alone]), atol=1e-4, rtol=1e-4)
    assert details["chosen_step"].tolist() == [each[1] for each in alone]
    if switch is not None:
        assert details["probing_score"].tolist() == pytest.approx([each[2] for each in alone], abs=1e-5)


def test_images_find_steps_of_their_own(method, start, between):
    """Some do and some do not, so that the test above tells something."""
    score = GLADScore(start_step=500, denoising_steps=5, least_step=0, switch_distance=between)
    _, details = method.reconstruct(*start, score)
    assert len(set(details["chosen_step"].tolist())) > 1


@pytest.mark.parametrize(
    ("switch", "least", "chosen"),
    [(None, 0, 0), (2.0, 0, 0), (-1.0, 0, 400), (None, 401, 400)],
    ids=["never", "beyond all distances", "at once", "from the image at once"],
)
def test_the_limits_are_plain_ddim(method, start, switch, least, chosen):
    """At the first step path and restart are the same, so switching there changes nothing."""
    latents, noise = start
    score = GLADScore(start_step=400, denoising_steps=4, least_step=least, switch_distance=switch)
    clean, details = method.reconstruct(latents, noise, score)
    corrupted = method.diffusion.add_noise(latents, noise, torch.full((6,), 400))
    plain = method.diffusion.denoise(corrupted, spaced_timesteps(400, 4), method._predict)
    torch.testing.assert_close(clean, plain, atol=1e-5, rtol=1e-5)
    assert details["chosen_step"].tolist() == [chosen] * 6


def test_the_fusion_mask_lies_between_a_half_and_sigmoid_of_two(method):
    distance = torch.linspace(0, 2, 16).view(1, 4, 4)
    mask = method.fusion_mask(distance, (8, 8))
    assert mask.shape == (1, 1, 8, 8)
    assert 0.5 <= mask.min() < mask.max() <= 0.8808
    features = torch.randn(2, 5, 4, 4, generator=generator())
    same = nearest_token_distance(features, features)
    assert same.max() < 1e-6
    torch.testing.assert_close(method.fusion_mask(same, (8, 8)), torch.full((2, 1, 8, 8), 0.5))


def test_an_image_that_has_found_its_step_is_not_probed_again(method, start, between, monkeypatch):
    latents, noise = start
    probed = []
    probe = method._probe
    monkeypatch.setattr(method, "_probe", lambda restarted, path: probed.append(len(path)) or probe(restarted, path))
    score = GLADScore(start_step=500, denoising_steps=5, least_step=0, switch_distance=between)
    _, details = method.reconstruct(latents, noise, score)
    chosen = details["chosen_step"]
    still = [int(((chosen <= at) | (chosen == 0)).sum()) for at in (500, 400, 300, 200, 100)]
    assert probed == [count for count in still if count]


def test_without_a_switch_distance_nothing_is_probed(method, start, monkeypatch):
    monkeypatch.delattr(GLAD, "_probe")
    score = GLADScore(start_step=500, denoising_steps=5, least_step=150, switch_distance=None)
    _, details = method.reconstruct(*start, score)
    assert details.keys() == {"chosen_step"}
    assert details["chosen_step"].tolist() == [100] * 6


def test_token_distance_against_brute_force():
    first, second = torch.randn(2, 3, 6, 4, 5, generator=generator())
    wanted = [
        cdist(a.flatten(1).T.double(), b.flatten(1).T.double(), "cosine").min(1).reshape(4, 5)
        for a, b in zip(first, second, strict=True)
    ]
    np.testing.assert_allclose(nearest_token_distance(first, second), np.stack(wanted), atol=1e-6)


@pytest.mark.parametrize("reach", [0, 1, 2])
def test_token_distance_within_reach_against_brute_force(reach):
    first, second = torch.randn(2, 3, 6, 4, 5, generator=generator())
    found = nearest_token_distance(first, second, reach)
    for n, row, column in itertools.product(range(3), range(4), range(5)):
        near = second[n, :, max(0, row - reach) : row + reach + 1, max(0, column - reach) : column + reach + 1]
        cosine = F.cosine_similarity(first[n, :, row, column, None, None], near, dim=0).max()
        wanted = 1 - cosine
        torch.testing.assert_close(found[n, row, column], wanted, atol=1e-6, rtol=0)


def test_the_difference_of_latents_is_added_by_its_weight(method, monkeypatch):
    """A reconstruction that decodes to the image but for one latent's two channels: its place is all there is."""
    examples = method.example(torch.from_numpy(made_images(2)))
    monkeypatch.setattr(method, "_decode", lambda latents: examples[:, :3] / 255)

    def moved(latents, noise, score):
        clean = latents.clone()
        clean[1, :2, 4, 6] += 3
        return clean, {}

    monkeypatch.setattr(method, "reconstruct", moved)
    score = GLADScore(blur_sigma=0, latent_weight=0.5)
    maps = method.maps(examples, ["a", "b"], score).maps
    channels, size = method._encode(examples[:, :3] / 255).shape[1:3]
    apart = torch.zeros(2, 1, size, size)
    apart[1, 0, 4, 6] = 3 * (2 / channels) ** 0.5
    wanted = 0.5 * F.interpolate(apart, (32, 32), mode="bilinear")[:, 0]
    torch.testing.assert_close(maps, wanted, atol=1e-4, rtol=1e-4)


def test_a_score_with_pixels_does_not_depend_on_the_neighbours(method, between):
    images = np.concatenate([made_images(3), with_defect(made_images(3, seed=1))])
    score = GLADScore(
        start_step=500, denoising_steps=5, least_step=0, switch_distance=between, pixel_weight=2, blur_sigma=1
    )
    together, alone = (score_images(method, images[rows], score) for rows in (slice(None), slice(4, 5)))
    assert together.scores[4] == alone.scores[0]
    assert together.details["chosen_step"][4] == alone.details["chosen_step"][0]
    without = score_images(method, images, score.changed(pixel_weight=0.0))
    assert not np.allclose(without.maps, together.maps)


def test_the_pixel_term_is_scaled_by_each_images_own_largest(method, monkeypatch):
    """A reconstruction that is the image but for one pixel, and features that do not differ: the pixel is all."""
    images = made_images(2)
    examples = method.example(torch.from_numpy(images))
    monkeypatch.setattr(method, "reconstruct", lambda latents, noise, score: (latents, {}))
    monkeypatch.setattr(method, "_decode", lambda latents: spotted)
    ramp = torch.linspace(0, 1, 16).view(1, 1, 4, 4)
    monkeypatch.setattr(glad, "nearest_token_distance", lambda one, other, reach: ramp[0].expand(2, 4, 4))
    spotted = examples[:, :3] / 255
    spotted[0, :, 3, 5] += 0.5
    spotted[1, :, 3, 5] += 0.1
    score = GLADScore(blur_sigma=0, pixel_weight=3)
    maps = method.maps(examples, ["a", "b"], score).maps
    layers = len(method.backbone.stage_channels)
    base = layers * F.interpolate(ramp, (32, 32), mode="bilinear")[0, 0]
    assert maps[:, 3, 5].tolist() == pytest.approx([float(base[3, 5] + 3 * base.max())] * 2, rel=1e-4)
    torch.testing.assert_close(maps[:, 10], base[10].expand(2, 32))


@pytest.mark.parametrize("autoencoder", [None, {"channels": (8, 8, 8)}])
def test_latents_of_pixels_and_of_an_autoencoder(autoencoder):
    method = untrained(autoencoder=autoencoder)
    images = torch.rand(2, 3, 32, 32, generator=generator())
    latents = method._encode(images)
    assert latents.shape == ((2, 3, 32, 32) if autoencoder is None else (2, 4, 8, 8))
    assert method._decode(latents).shape == images.shape
    if autoencoder is None:
        assert isinstance(method.codec, Pixels)
        torch.testing.assert_close(method._decode(latents), images)


def test_an_autoencoder_learns_its_images_and_standardises_its_latents():
    torch.manual_seed(0)
    codec = Autoencoder(AutoencoderSettings(channels=(8, 16)))
    images = torch.from_numpy(made_images(16)).permute(0, 3, 1, 2) / 255
    optimizer = torch.optim.Adam(codec.parameters(), 3e-3)
    for step in range(120):
        loss = codec.train().loss(images, generator(step))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    codec.eval()
    with torch.no_grad():
        latents = codec.encode(images)
        assert (codec.decode(latents) - images).abs().mean() < 0.3 * (images - images.mean()).abs().mean()
    assert latents.mean((0, 2, 3)).abs().max() < 0.5
    assert 0.5 < latents.std((0, 2, 3)).min() < latents.std((0, 2, 3)).max() < 2


def test_training_on_made_anomalies_finds_others_on_images_not_seen():
    def plain(count, seed):
        noise = np.random.default_rng(seed).normal(0, 3, (count, 32, 32, 3))
        return np.clip(150 + noise, 0, 255).astype(np.uint8)

    torch.manual_seed(0)
    method = GLAD(tiny_settings("glad", autoencoder=None, train_steps=120, learning_rate=3e-3, ema_decay=0.9))
    loop = TrainingLoop(method, ListedExamples(examples_of(method, plain(12, seed=0))), seed=0)
    while not loop.finished:
        loop.advance()
    loop.finish()
    fresh = plain(12, seed=5)
    images = np.concatenate([fresh, with_defect(fresh)])
    score = GLADScore(
        start_step=400, denoising_steps=5, least_step=200, switch_distance=None, blur_sigma=1, top_pixels=50
    )
    found = score_images(method, images, score)
    assert roc_auc_score([0] * 12 + [1] * 12, found.scores) > 0.9
    assert found.maps[12:, 8:16, 8:16].mean() > 2 * found.maps[12:, 20:, 20:].mean()


def test_normals_alone_are_learnt_without_atp(monkeypatch):
    """The paper's ablation: what is mixed in is the normal image itself."""
    method, examples = fitted("glad", made_images(4))
    method.settings = method.settings.changed(anomaly_oriented=False, anomalous_share=0.999999)
    seen = {}
    target = method.anomaly_oriented_target

    def watched(start, normal, noise, t):
        seen["same"] = torch.equal(start, normal)
        return target(start, normal, noise, t)

    monkeypatch.setattr(method, "anomaly_oriented_target", watched)
    method(examples.take([0, 1]), generator())
    assert seen["same"]
    method.settings = method.settings.changed(anomaly_oriented=True)
    method(examples.take([0, 1]), generator())
    assert not seen["same"]


def test_noise_is_drawn_from_the_steps_asked_for_and_as_often(monkeypatch):
    method, examples = fitted("glad", made_images(4), noise_steps=[300, 303], noise_draws=5)
    method.train()
    seen = []
    predict = method._predict
    monkeypatch.setattr(method, "_predict", lambda x, t: seen.append((x, t)) or predict(x, t))
    method(examples.take([0, 1, 2]), generator())
    ((x, t),) = seen
    assert len(x) == 15
    assert set(t.tolist()) == {300, 301, 302}
    assert len(torch.unique(x, dim=0)) == 15


def test_an_image_is_encoded_once_if_no_anomaly_is_on_it(monkeypatch):
    method, examples = fitted("glad", made_images(6), anomalous_share=0.5)
    encoded = []
    encode = method.codec.encode
    monkeypatch.setattr(method.codec, "encode", lambda images: encoded.append(images) or encode(images))
    monkeypatch.setattr(method, "with_anomalies", lambda examples, generator: (shown, masks))
    normal = examples.take(range(6))[:, :3] / 255
    masks = torch.zeros(6, 1, 32, 32)
    masks[[1, 4], :, 8:16, 8:16] = 1
    shown = torch.where(masks > 0, 0.1, normal)
    method(examples.take(range(6)), generator())
    assert torch.equal(encoded[0], normal)
    assert torch.equal(encoded[1], shown[[1, 4]])
    assert len(encoded) == 2


@pytest.mark.parametrize("steps", [[5, 5], [0, 1001], [7, 3]])
def test_impossible_noise_steps_are_refused(steps):
    with pytest.raises(SettingsError, match=r"noise_steps .* are not two ascending numbers in 0\.\.1000"):
        tiny_settings("glad", noise_steps=steps)


def test_the_papers_recipe_draws_from_all_steps_once():
    settings = GLAD.TrainSettings.parse({**GLAD.presets["paper"], "texture_sources": ["self"]})
    assert (settings.noise_steps, settings.noise_draws) == ((0, 1000), 1)


def test_more_steps_than_there_is_corruption_are_refused():
    with pytest.raises(SettingsError, match="denoising_steps \\(25\\) may be at most start_step \\(20\\)"):
        GLADScore.parse({"start_step": 20})
