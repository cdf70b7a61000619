"""Others' methods behind raydiff's interface: what they compute is anomalib's, and they live as any method does."""

from __future__ import annotations

import functools
import importlib
import sys

import numpy as np
import pytest
import torch
from conftest import ListedExamples, made_images, with_defect
from safetensors.torch import save_file
from sklearn.metrics import roc_auc_score

import raydiff
from raydiff import methods
from raydiff.errors import SettingsError
from raydiff.methods.base import GradientSettings
from raydiff.methods.rivals import base
from raydiff.model.scorer import examples_of, score_images
from raydiff.selection.space import load_space
from raydiff.training.loop import TrainingLoop

RESNET = {"name": "resnet18", "weights": "random", "stages": [1, 2, 3]}
TINY = {
    "anomalib_draem": {"image_size": 32, "texture_sources": ["self"], "anomalous_share": 0.9},
    "anomalib_fastflow": {"image_size": 64, "backbone": RESNET, "flow_steps": 2},
    "anomalib_padim": {"image_size": 64, "backbone": RESNET, "channels": 5},
    "anomalib_patchcore": {"image_size": 64, "backbone": {**RESNET, "stages": [1, 2]}},
    "anomalib_reverse_distillation": {"image_size": 64, "backbone": RESNET},
}
STEPS = {"train_steps": 2, "batch_size": 2}
every_rival = pytest.mark.parametrize("name", methods.rival_names())


def settings(name: str):
    steps = STEPS if "train_steps" in methods.get(name).TrainSettings.model_fields else {}
    return methods.recipe(name, "demo", {**TINY[name], **steps})


@functools.cache
def trained(name: str):
    """The same for all tests, none of which changes it."""
    torch.manual_seed(0)
    recipe = settings(name)
    method = methods.get(name)(recipe).eval()
    examples = ListedExamples(examples_of(method, made_images(12, recipe.image_size)))
    method.fit_statistics(examples, 0)
    if method.trained is not None:
        loop = TrainingLoop(method, examples, seed=0)
        losses = []
        while not loop.finished:
            losses.append(loop.advance())
        assert np.isfinite(losses).all()
        return loop.finish()
    return method.eval()


def test_they_are_no_methods_of_ours():
    assert not set(methods.names()) & set(methods.rival_names())
    assert set(TINY) == set(methods.rival_names())


@every_rival
def test_a_saved_rival_scores_to_the_bit_the_same(name, tmp_path):
    method = trained(name)
    model = raydiff.Model(method, method.ScoreSettings())
    model.save(str(tmp_path / "model"))
    loaded = raydiff.load(str(tmp_path / "model"), "cpu")
    images = list(made_images(3, 40, seed=9))
    np.testing.assert_array_equal(loaded.score(images).scores, model.score(images).scores)
    np.testing.assert_array_equal(loaded.score(images).maps, model.score(images).maps)
    assert loaded.id == model.id


@every_rival
def test_a_rivals_score_does_not_depend_on_its_neighbours(name):
    method = trained(name)
    images = made_images(9, method.settings.image_size, seed=3)
    together = score_images(method, images, method.ScoreSettings())
    order = [8, 2, 5, 0]
    again = score_images(method, images[order], method.ScoreSettings())
    np.testing.assert_array_equal(again.scores, together.scores[order])
    np.testing.assert_array_equal(again.maps, together.maps[order])
    assert np.isfinite(together.maps).all()


@pytest.mark.parametrize(
    "name", [name for name in methods.rival_names() if issubclass(methods.get(name).TrainSettings, GradientSettings)]
)
def test_a_training_that_was_stopped_goes_on(name):
    kind = methods.get(name)
    recipe = settings(name)

    def loop():
        torch.manual_seed(0)
        method = kind(recipe).eval()
        examples = ListedExamples(examples_of(method, made_images(12, recipe.image_size)))
        method.fit_statistics(examples, 0)
        return TrainingLoop(method, examples, seed=0)

    first, whole = loop(), loop()
    first.advance()
    second = loop()
    second.load_state(first.state())
    whole.advance()
    assert second.advance() == whole.advance()


@pytest.mark.parametrize("name", ["anomalib_patchcore", "anomalib_padim"])
def test_it_finds_defects(name):
    method = trained(name)
    normal = made_images(12, 64, seed=5)
    found = score_images(method, np.concatenate([normal, with_defect(normal)]), method.ScoreSettings())
    assert roc_auc_score([0] * 12 + [1] * 12, found.scores) > 0.9


def fitted_by_anomalib(name: str, pixels: torch.Tensor):
    """anomalib's own model, made, fed and fitted as its own module does it."""
    torch.manual_seed(0)  # padim draws channels
    if name == "anomalib_patchcore":
        kind = base.anomalib("patchcore.torch_model", "PatchcoreModel")
        model = kind(layers=("layer1", "layer2"), backbone="resnet18", pre_trained=False)
    else:
        kind = base.anomalib("padim.torch_model", "PadimModel")
        model = kind(layers=["layer1", "layer2", "layer3"], backbone="resnet18", pre_trained=False, n_features=5)
    model.train()
    for batch in pixels.split(3):
        model(batch)
    with base.drawn_by(0), base.its_own_warnings_unheard():
        model.subsample_embedding(0.02) if name == "anomalib_patchcore" else model.fit()
    return model.eval()


@pytest.mark.parametrize("name", ["anomalib_patchcore", "anomalib_padim"])
def test_maps_and_scores_are_anomalibs(name, tmp_path):
    images = made_images(12, 64)
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    pixels = (torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255 - mean) / std
    theirs = fitted_by_anomalib(name, pixels)
    save_file(theirs.feature_extractor.feature_extractor.state_dict(), str(tmp_path / "weights.safetensors"))
    given = {"backbone": {**TINY[name]["backbone"], "weights": str(tmp_path / "weights.safetensors")}}
    ours = methods.get(name)(methods.recipe(name, "demo", {**TINY[name], **given}))
    if name == "anomalib_padim":
        ours.network.idx.copy_(theirs.idx)
    ours.fit_statistics(ListedExamples(examples_of(ours, images)), 0)
    test = made_images(4, 64, seed=7)
    found = score_images(ours, test, ours.ScoreSettings())
    with torch.no_grad():
        wanted = theirs((torch.from_numpy(test).permute(0, 3, 1, 2).float() / 255 - mean) / std)
    np.testing.assert_allclose(found.scores, wanted.pred_score.flatten().numpy(), rtol=2e-3)
    np.testing.assert_allclose(found.maps, wanted.anomaly_map[:, 0].numpy(), rtol=2e-3, atol=2e-3)


def test_nothing_of_a_rival_is_tuned():
    (stage,) = load_space("anomalib_padim")
    method = trained("anomalib_padim")
    assert stage.grid(method.ScoreSettings(), []) == [{"blur_sigma": 0.0}]
    assert method.as_published


def test_where_an_image_is_not_looked_at_its_map_is_zero():
    method = trained("anomalib_patchcore")
    images = np.concatenate([made_images(2, 64), np.full((2, 64, 64, 1), 255, np.uint8)], 3)
    images[:, :, 32:, 3] = 0
    found = method.maps(examples_of(method, images), ["a", "b"], method.ScoreSettings())
    assert (found.maps[:, :, 32:] == 0).all()
    assert (found.maps[:, :, :32] > 0).any()


def test_without_anomalib_the_sentence_says_what_to_install(monkeypatch):
    for module in [name for name in sys.modules if name.partition(".")[0] == "anomalib"]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "anomalib", None)
    importlib.invalidate_caches()
    with pytest.raises(SettingsError, match=r"pip install 'raydiff\[peers\]'"):
        methods.get("anomalib_padim").check(settings("anomalib_padim"))
