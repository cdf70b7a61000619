"""DiffusionAD against its paper's steps written out, and its limits."""

import numpy as np
import pytest
import torch
from conftest import ListedExamples, fitted, made_images, tiny_settings, with_defect
from PIL import Image
from sklearn.metrics import roc_auc_score

from raydiff import methods
from raydiff.errors import DataError, SettingsError
from raydiff.methods.diffusion_ad import DiffusionAD, DiffusionADScore, mean_over_normals
from raydiff.model.scorer import examples_of, score_images
from raydiff.nn.segmentation import SegmentationUNet
from raydiff.nn.unet import UNet
from raydiff.training.loop import TrainingLoop

# As in the preset `paper`: both networks see pixels, of the images' own size
AS_IN_THE_PAPER = {
    "backbone": None,
    "reconstruction_size": None,
    "anomaly_parts": None,
    "precision": "auto",
}


def papers_settings(**changes):
    return tiny_settings("diffusion_ad", **AS_IN_THE_PAPER, **changes)


@pytest.fixture(scope="module")
def method():
    torch.manual_seed(0)
    return DiffusionAD(papers_settings()).eval()


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("weight", [0.0, 1.0, 2.0])
def test_norm_guidance_is_the_papers_steps_in_closed_form(method, weight):
    """Corrupt the guiding estimate to ts, move the noise estimate by the difference, estimate again."""
    x0 = torch.rand(4, 3, 8, 8, generator=generator())
    small, large = torch.tensor([10, 100, 200, 299]), torch.tensor([300, 400, 600, 999])
    noises = torch.randn(2, *x0.shape, generator=generator(1))
    predicted_s, predicted_b = noises + 0.3 * torch.randn(2, *x0.shape, generator=generator(2))
    x_s, x_b = (method.diffusion.add_noise(x0, noise, t) for noise, t in zip(noises, (small, large), strict=True))

    abar = method.diffusion.alpha_bar[small].view(-1, 1, 1, 1)
    x0_b = method.diffusion.estimates(predicted_b, x_b, large)[0].clamp(-1, 1)
    x_t = abar.sqrt() * x0_b + (1 - abar).sqrt() * predicted_s
    guided_noise = predicted_s - (1 - abar).sqrt() * weight * (x_t - x_s)
    expected = ((x_s - (1 - abar).sqrt() * guided_noise) / abar.sqrt()).clamp(-1, 1)

    estimates = [
        method.diffusion.estimates(output, x, t)[0]
        for output, x, t in ((predicted_s, x_s, small), (predicted_b, x_b, large))
    ]
    torch.testing.assert_close(method.norm_guided(*estimates, small, weight), expected, atol=2e-5, rtol=1e-4)
    if weight == 0:
        torch.testing.assert_close(expected, estimates[0].clamp(-1, 1), atol=2e-5, rtol=1e-4)


def test_the_share_of_the_guiding_estimate_at_the_papers_step(method):
    small, large = torch.zeros(1, 3, 2, 2), torch.ones(1, 3, 2, 2)
    found = method.norm_guided(small, large, torch.tensor([200]), 1.0)
    assert found.unique().item() == pytest.approx(0.344, abs=5e-4)


def plain_images(count, seed):
    """Grey plates with a little noise."""
    noise = np.random.default_rng(seed).normal(0, 3, (count, 32, 32, 3))
    return np.clip(150 + noise, 0, 255).astype(np.uint8)


def test_training_finds_made_anomalies_and_others_on_images_not_seen():
    images = plain_images(12, seed=0)
    settings = papers_settings(train_steps=200, learning_rate=1e-3, segmentation_learning_rate=5e-3, ema_decay=0.9)
    torch.manual_seed(0)
    method = DiffusionAD(settings)
    loop = TrainingLoop(method, ListedExamples(examples_of(method, images)), seed=0)
    while not loop.finished:
        loop.advance()
    loop.finish()
    fresh = plain_images(24, seed=5)
    examples = examples_of(method, fresh)
    made, masks = method.with_anomalies(examples, generator(9))
    damaged = torch.cat([(255 * made).round().to(torch.uint8), examples[:, 3:]], 1)
    score = DiffusionADScore(blur_sigma=1)
    maps = method.maps(damaged, [str(number) for number in range(24)], score).maps
    assert roc_auc_score(masks.flatten(), maps.flatten()) > 0.7
    found = score_images(method, np.concatenate([fresh, with_defect(fresh)]), score)
    assert roc_auc_score([0] * 24 + [1] * 24, found.scores) > 0.9


def test_only_normals_have_a_noise_loss():
    errors = torch.tensor([1.0, 5.0, 3.0], requires_grad=True)
    masks = torch.zeros(3, 1, 4, 4)
    masks[1, 0, 2, 2] = 1
    assert mean_over_normals(errors, masks).item() == 2.0
    loss = mean_over_normals(errors, torch.ones(3, 1, 4, 4))
    assert loss.item() == 0.0
    loss.backward()
    assert torch.equal(errors.grad, torch.zeros(3))


def test_a_batch_of_anomalies_alone_has_finite_gradients():
    method, examples = fitted("diffusion_ad", made_images(4), **AS_IN_THE_PAPER)
    method.settings = method.settings.changed(anomalous_share=0.999999)
    _, masks = method.with_anomalies(examples.take([0, 1, 2, 3]), generator())
    assert masks.flatten(1).any(1).all()
    method(examples.take([0, 1, 2, 3]), generator()).backward()
    for name, parameter in method.trained.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name


def test_the_segmentation_loss_reaches_the_denoising_network():
    """Nothing is detached: with no normal image in the batch the U-Net still learns, from the masks."""
    method, examples = fitted("diffusion_ad", made_images(4), **AS_IN_THE_PAPER)
    method.settings = method.settings.changed(anomalous_share=0.999999)
    method(examples.take([0, 1, 2, 3]), generator()).backward()
    assert sum(float(p.grad.abs().sum()) for p in method.unet.parameters()) > 0


def test_the_losses_are_the_papers(monkeypatch):
    """Noise of both levels over normals + 5 focal (alpha 1/2, gamma 4) + smooth L1, from its parts."""
    method, examples = fitted("diffusion_ad", made_images(6), **AS_IN_THE_PAPER)
    seen = {}
    segment, predict = method._segment, method._predict
    monkeypatch.setattr(method, "_segment", lambda *images: seen.setdefault("logits", segment(*images)))
    monkeypatch.setattr(method, "_predict", lambda x, t: seen.setdefault("predicted", (predict(x, t), x, t))[0])
    loss = method(examples.take([0, 1, 2, 3, 4, 5]), generator(3)).item()

    images, masks = method.with_anomalies(examples.take([0, 1, 2, 3, 4, 5]), generator(3))
    predicted, x, t = seen["predicted"]
    assert (t[:6] < 300).all()
    assert (t[6:] >= 300).all()
    abar = method.diffusion.alpha_bar[t].view(-1, 1, 1, 1)
    noise = (x - abar.sqrt() * images.repeat(2, 1, 1, 1)) / (1 - abar).sqrt()
    normal = [index for index in range(6) if not masks[index].any()]
    assert 0 < len(normal) < 6
    per_image = (predicted - noise).square().mean((1, 2, 3)).detach().numpy()
    expected = np.mean([per_image[index] + per_image[6 + index] for index in normal])
    p = seen["logits"].sigmoid().double().detach().numpy()
    m = masks.double().numpy()
    right = np.where(m == 1, p, 1 - p)
    expected += 5 * np.mean(0.5 * (1 - right) ** 4 * -np.log(right)) + np.mean(0.5 * (p - m) ** 2)
    assert loss == pytest.approx(expected, rel=1e-4)


def test_made_anomalies_lie_inside_their_masks_on_the_product():
    method, _ = fitted("diffusion_ad", made_images(2), **AS_IN_THE_PAPER)
    images = torch.from_numpy(made_images(16)).permute(0, 3, 1, 2)
    foreground = torch.zeros(16, 1, 32, 32, dtype=torch.uint8)
    foreground[:, :, 8:24, 8:] = 255
    shown, masks = method.with_anomalies(torch.cat([images, foreground], 1), generator())
    damaged = masks.flatten(1).any(1)
    assert 3 <= damaged.sum() <= 13
    assert not (masks.bool() & (foreground == 0)).any()
    changed = (shown != images / 255).any(1, keepdim=True)
    assert not (changed & (masks == 0)).any()
    assert changed[damaged].float().sum() > 0.9 * masks[damaged].sum()
    assert shown.min() >= 0
    assert shown.max() <= 1


def test_one_step_and_the_iterative_form(method):
    images = torch.rand(2, 3, 32, 32, generator=generator())
    calls = []
    predict = method._predict
    method._predict = lambda x, t: (calls.append(t[0].item()), predict(x, t))[1]
    try:
        with torch.inference_mode():
            one = method.reconstruct(images, ["a", "b"], DiffusionADScore())
            assert calls == [200, 400]
            calls.clear()
            many = method.reconstruct(images, ["a", "b"], DiffusionADScore(denoising_steps=4))
            assert calls == [200, 150, 100, 50, 400, 300, 200, 100]
    finally:
        del method._predict
    assert not torch.equal(one, many)


def test_draws_of_noise_are_averaged(method):
    examples = examples_of(method, made_images(2))
    keys, score = ["a", "b"], DiffusionADScore(noise_draws=3)
    images = examples[:, :3].float() / 255
    with torch.inference_mode():
        each = [method._segment(images, method.reconstruct(images, keys, score, draw)).sigmoid() for draw in range(3)]
    assert not torch.equal(each[0], each[1])
    torch.testing.assert_close(method.maps(examples, keys, score).maps, torch.stack(each).mean(0)[:, 0])


def test_the_image_score_is_the_mean_of_the_largest_pixels(method):
    maps = torch.rand(3, 32, 32, generator=generator())
    expected = [np.sort(each.numpy().ravel())[-50:].mean() for each in maps]
    np.testing.assert_allclose(method.scores(maps, DiffusionADScore()), expected, rtol=1e-6)
    np.testing.assert_allclose(method.scores(maps, DiffusionADScore(top_pixels=9999)), maps.mean((1, 2)), rtol=1e-6)


def test_the_papers_networks_have_the_papers_size():
    with torch.device("meta"):
        settings = methods.recipe("diffusion_ad", "paper", {"texture_sources": ["self"]})
        unet, segmentation = UNet(3, settings.unet), SegmentationUNet(6, settings.segmentation_channels)
    assert sum(p.numel() for p in unet.parameters()) == pytest.approx(131.65e6, rel=1e-4)
    assert sum(p.numel() for p in segmentation.parameters()) == pytest.approx(28.37e6, rel=2e-4)


@pytest.mark.parametrize("size", [32, 64, 70])
def test_segmentation_of_any_size(size):
    assert SegmentationUNet(6, 4)(torch.rand(2, 6, size, size)).shape == (2, 1, size, size)


def test_the_networks_learn_at_their_own_rates():
    method = DiffusionAD(papers_settings(learning_rate=1e-4, segmentation_learning_rate=1e-5))
    unet, segmentation = method.parameter_groups()
    assert (unet["lr"], segmentation["lr"]) == (1e-4, 1e-5)
    assert {id(p) for p in unet["params"]} == {id(p) for p in method.unet.parameters()}
    assert {id(p) for p in segmentation["params"]} == {id(p) for p in method.segmentation.parameters()}


def test_textures_must_be_chosen():
    with pytest.raises(SettingsError, match="texture_sources must say what made anomalies are filled with"):
        methods.recipe("diffusion_ad", "paper")


@pytest.mark.parametrize(
    "wrong",
    [{"small_step": 400}, {"small_step": 500, "large_step": 300}, {"denoising_steps": 201}, {"large_step": 1000}],
)
def test_steps_that_do_not_fit_are_refused(wrong):
    with pytest.raises(SettingsError, match="step"):
        DiffusionADScore.parse(wrong)


def test_the_card_tells_what_anomalies_were_made_of(tmp_path):
    images = np.full((3, 32, 32, 3), 200, np.uint8)
    images[:, 8:24, 8:24] = 40  # a quarter of each
    rows = [{"uri": f"/x/{n}.png", "category": "bolt", "split": "train", "defect": "good"} for n in range(3)]

    def share(foreground):
        method = DiffusionAD(papers_settings(foreground=foreground))
        method.fit_statistics(ListedExamples(examples_of(method, images, rows)), 0)
        return method.about()["foreground_share"]

    (tmp_path / "bolt").mkdir()
    for number in range(3):
        mask = np.zeros((64, 64), np.uint8)
        mask[:32, :] = 255
        Image.fromarray(mask).save(tmp_path / f"bolt/{number}.png")
    assert share("auto") == 0.25
    assert share("full") == 1
    assert share({"bolt": "full"}) == 1
    assert share({"nut": "full"}) == 0.25
    assert share(str(tmp_path)) == 0.5
    (tmp_path / "bolt/2.png").unlink()
    with pytest.raises(DataError, match=r"/x/2.png has no foreground mask; looked for .*bolt/train/good/2.png and"):
        share(str(tmp_path))
