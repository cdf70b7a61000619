"""DiffusionAD with what is not the paper's: features, a smaller reconstruction, few parts an anomaly."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import TINY, TINY_BACKBONE, fitted, made_images, tiny_settings
from PIL import Image
from scipy import ndimage
from sklearn.metrics import roc_auc_score
from test_diffusion_ad import AS_IN_THE_PAPER

import raydiff
from raydiff import methods
from raydiff.errors import RaydiffError
from raydiff.methods.diffusion_ad import DiffusionAD, DiffusionADScore
from raydiff.model.scorer import examples_of, score_images
from raydiff.nn.segmentation import FeatureSegmentation
from raydiff.synthesis.perlin import perlin_mask, some_parts
from raydiff.training.loop import TrainingLoop


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def trained(images, seed=0, **changes):
    method, examples = fitted("diffusion_ad", images, **changes)
    loop = TrainingLoop(method, examples, seed)
    curve = []
    while not loop.finished:
        curve.append(loop.advance())
    return loop.finish(), curve


def test_the_preset_paper_is_the_papers():
    settings = methods.recipe("diffusion_ad", "paper", {"texture_sources": ["self"]})
    for name in AS_IN_THE_PAPER:
        assert getattr(settings, name) == AS_IN_THE_PAPER[name], name


def test_with_all_of_it_off_nothing_has_changed():
    """Losses and scores as they were before these settings came, on pixels.

    The rate is low: at a usual one Adam makes of the last digits, in which processors differ, a hundredth of the loss.
    """
    rates = {"learning_rate": 1e-5, "segmentation_learning_rate": 1e-5}
    method, curve = trained(made_images(12), **{**AS_IN_THE_PAPER, "precision": "float32"}, **rates)
    assert curve[-4:] == pytest.approx([2.287069, 2.281082, 2.262785, 2.312206], rel=1e-4)
    found = score_images(method, made_images(3, seed=5), DiffusionADScore()).scores
    np.testing.assert_allclose(found, [0.50187981, 0.50155461, 0.50279295], rtol=1e-4)


def test_a_model_on_pixels_scores_to_the_bit_the_same_when_loaded(tmp_path):
    method, _ = trained(made_images(8), **AS_IN_THE_PAPER)
    model = raydiff.Model(method, DiffusionADScore())
    model.save(str(tmp_path / "model"))
    images = made_images(3, seed=9)
    loaded = raydiff.load(str(tmp_path / "model"), "cpu")
    np.testing.assert_array_equal(loaded.score(images).maps, model.score(images).maps)
    assert "backbone_licence" not in method.about()


def test_the_map_is_the_heads_answer_to_both_images_features():
    """Each step with other means: Pillow resizes, the parts of the network are called one by one."""
    method, examples = fitted("diffusion_ad", made_images(2))
    images = examples.take([0, 1])[:, :3].float() / 255
    score, keys = DiffusionADScore(), ["a", "b"]
    with torch.inference_mode():
        small = method.reconstruct(images, keys, score)
        assert small.shape == (2, 3, 16, 16)
        large = torch.stack([torch.stack([resized(plane, 32) for plane in image]) for image in small])
        features, others = (
            method.backbone.net((x - method.backbone.mean) / method.backbone.std) for x in (images, large)
        )
        read = torch.cat([on_grid(features), (on_grid(features) - on_grid(others)).abs()], 1)
        logits = method.segmentation.net(read)
        expected = torch.stack([resized(plane[0], 32) for plane in logits]).sigmoid()
        found = method.maps(examples.take([0, 1]), keys, score).maps
    torch.testing.assert_close(found, expected, atol=1e-3, rtol=1e-3)  # both resize in float32, by other means


def on_grid(stages):
    """Each place's mean with its neighbours inside the image, then all stages at 4 x 4 places."""
    found = []
    for stage in stages:
        ones = np.ones(stage.shape[-2:])
        sums, counts = (
            ndimage.convolve(values, np.ones((1,) * (values.ndim - 2) + (3, 3)), mode="constant")
            for values in (stage.numpy().astype(np.float64), ones)
        )
        found.append(F.interpolate(torch.from_numpy(sums / counts).float(), (4, 4), mode="bilinear"))
    return torch.cat(found, 1)


def resized(plane, size):
    return torch.from_numpy(
        np.array(Image.fromarray(plane.numpy(), "F").resize((size, size), Image.Resampling.BILINEAR))
    )


def knowing(method, clean):
    """A network that knows the clean images: the noise, solved from x = sqrt(abar) clean + sqrt(1 - abar) noise."""

    def predict(x, t):
        abar = method.diffusion.alpha_bar[t].view(-1, 1, 1, 1)
        known = clean.repeat(len(x) // len(clean), 1, 1, 1)
        return (x - abar.sqrt() * known) / (1 - abar).sqrt()

    return predict


def test_the_small_image_is_what_is_reconstructed():
    """With a network that knows it the reconstruction is the image as Pillow shrinks it, and has no noise loss."""
    method, examples = fitted("diffusion_ad", made_images(2), anomalous_share=1e-9)
    images = examples.take([0, 1])[:, :3].float() / 255
    small = torch.stack([torch.stack([resized(plane, 16) for plane in image]) for image in images])
    method._predict = knowing(method, small)
    found = method.reconstruct(images, ["a", "b"], DiffusionADScore())
    torch.testing.assert_close(found, small, atol=1e-4, rtol=1e-4)

    seen = {}
    segment = method._segment
    method._segment = lambda *both: seen.setdefault("logits", segment(*both))
    loss = method(examples.take([0, 1]), generator()).item()
    p = seen["logits"].sigmoid().double().detach().numpy()  # and nothing is anomalous
    assert loss == pytest.approx(5 * np.mean(0.5 * p**4 * -np.log(1 - p)) + np.mean(0.5 * p**2), rel=1e-3)


def test_the_backbone_stays_as_it_was_and_the_denoiser_learns_through_it():
    method, examples = fitted("diffusion_ad", made_images(4), anomalous_share=0.999999)
    before = {name: value.clone() for name, value in method.backbone.state_dict().items()}
    method.train()
    method(examples.take(range(4)), generator()).backward()
    assert all(parameter.grad is None for parameter in method.backbone.parameters())
    for name, value in method.backbone.state_dict().items():
        assert torch.equal(before[name], value), name
    assert sum(float(p.grad.abs().sum()) for p in method.unet.parameters()) > 0  # no normal image has a noise loss


def test_the_backbones_weights_are_looked_at_first(tmp_path):
    with pytest.raises(RaydiffError, match="weights"):
        DiffusionAD.check(
            tiny_settings("diffusion_ad", backbone={**TINY_BACKBONE, "weights": str(tmp_path / "weights.pth")})
        )
    DiffusionAD.check(tiny_settings("diffusion_ad"))
    DiffusionAD.check(tiny_settings("diffusion_ad", **AS_IN_THE_PAPER))


def test_the_card_tells_the_backbones_licence():
    method, _ = fitted("diffusion_ad", made_images(2))
    assert method.about()["backbone_licence"] == "none needed: random weights"


def test_the_head_learns_where_the_reconstruction_differs():
    """Features alone tell nothing here; in odd places the reconstruction's are others, in some channel or other."""
    torch.manual_seed(0)
    head = FeatureSegmentation(6, 16)
    optimizer = torch.optim.Adam(head.parameters(), lr=1e-2)

    def batch(each):
        odd = torch.rand(16, 1, 8, 8, generator=each) < 0.2
        images, others = torch.randn(2, 16, 6, 8, 8, generator=each) * torch.logspace(-2, 2, 6).view(6, 1, 1)
        return images, torch.where(odd, others, images), odd

    for seed in range(60):
        images, reconstructions, odd = batch(generator(seed))
        optimizer.zero_grad()
        F.binary_cross_entropy_with_logits(head(images, reconstructions), odd.float()).backward()
        optimizer.step()
    images, reconstructions, odd = batch(generator(99))
    with torch.inference_mode():
        found = head.eval()(images, reconstructions)
    assert roc_auc_score(odd.flatten(), found.flatten()) > 0.99


def test_some_of_a_masks_parts():
    masks = [perlin_mask(torch.ones(64, 64, dtype=torch.bool), generator(seed), 0.5) for seed in range(40)]
    for seed, mask in enumerate(masks):
        whole, count = ndimage.label(mask.numpy())
        kept = some_parts(mask, 2, generator(seed)).numpy()
        parts = np.unique(whole[kept])
        assert len(parts) == min(2, count)
        assert np.array_equal(kept, np.isin(whole, parts))  # whole parts and nothing else
    assert max(ndimage.label(mask.numpy())[1] for mask in masks) > 10


def test_parts_are_drawn_by_the_root_of_their_areas():
    mask = torch.zeros(10, 10, dtype=torch.bool)
    mask[0, 0] = True
    mask[2:6, 2:6] = True  # 16 of 17 pixels, 4 of 5 draws
    draws = [some_parts(mask, 1, each).sum().item() for each in [generator()] for _ in range(1000)]
    assert np.mean([drawn == 16 for drawn in draws]) == pytest.approx(0.8, abs=0.04)
    assert torch.equal(some_parts(mask, 2, generator()), mask)


def test_made_anomalies_of_one_part():
    method, _ = fitted("diffusion_ad", made_images(2), anomaly_parts=1)
    examples = examples_of(method, made_images(16))
    _, masks = method.with_anomalies(examples, generator())
    assert {ndimage.label(mask[0].numpy())[1] for mask in masks} == {0, 1}


def test_tiny_settings_are_not_the_papers():
    assert TINY["diffusion_ad"]["backbone"]
    assert TINY["diffusion_ad"]["reconstruction_size"]
