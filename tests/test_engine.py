"""Backbones computed by OpenVINO: torch's numbers, for every shape, alone or among others; refused where it is not."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest
import torch
from conftest import calibrated_model, made_images

import raydiff
from raydiff.errors import DataError, SettingsError
from raydiff.nn import engine
from raydiff.nn.backbones import Backbone, BackboneSettings
from raydiff.nn.openvino_net import OpenVINONet
from raydiff.scoring.bulk import check_claim

pytest.importorskip("openvino", reason="pip install 'raydiff[openvino]' to test it")

NETS = {
    "resnet18": (1, 2),
    "tf_efficientnet_lite0": (1, 2, 3),
    "vit_tiny_patch16_224": (5, 11),
}


@pytest.mark.parametrize("name", NETS)
def test_features_are_torchs(name, monkeypatch):
    size = 224 if "224" in name else 64
    backbone = Backbone(BackboneSettings(name=name, weights="random", stages=NETS[name], grid=8))
    images = torch.from_numpy(made_images(4, size))
    wanted = backbone(images)
    backbone.use("openvino")
    found = backbone(images)
    scale = float(wanted.abs().max())
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5 * scale)
    torch.testing.assert_close(backbone(images[:3]), wanted[:3], rtol=1e-4, atol=1e-5 * scale)  # another shape
    monkeypatch.setattr(backbone, "net", None)
    assert torch.equal(found, backbone(images))


def test_what_it_gave_is_not_written_over_by_the_next_call():
    net = OpenVINONet(torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3)).eval())
    images = torch.rand(2, 1, 3, 8, 8)
    (first,) = net(images[0])
    kept = first.clone()
    net(images[1])
    assert torch.equal(first, kept)


def test_gradients_go_through_torch():
    backbone = Backbone(BackboneSettings(name="resnet18", weights="random", stages=(1,), grid=4))
    backbone.use("openvino")
    pixels = torch.rand(1, 3, 32, 32, requires_grad=True)
    backbone.features(pixels).sum().backward()
    assert float(pixels.grad.abs().sum()) > 0


def test_a_models_scores_and_maps_are_torchs(tmp_path):
    uri = calibrated_model(tmp_path / "model", "bolt")
    images = list(made_images(11, seed=3))
    torchs, model = raydiff.load(uri, "cpu").score(images), raydiff.load(uri, "cpu")
    model.use("openvino")
    found = model.score(images)
    np.testing.assert_allclose(found.scores, torchs.scores, rtol=1e-4)
    np.testing.assert_allclose(found.maps, torchs.maps, rtol=1e-4, atol=1e-5 * np.abs(torchs.maps).max())
    assert model.score(images[3:4]).scores[0] == found.scores[3]  # whoever comes with it


def test_it_is_said_that_the_package_is_missing(tmp_path, monkeypatch):
    model = raydiff.load(calibrated_model(tmp_path / "model", "bolt"), "cpu")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    model.use("torch")
    with pytest.raises(SettingsError, match=r"--engine openvino needs one more package, .* 'raydiff\[openvino\]'"):
        engine.check_engine("openvino")


def test_scores_of_two_engines_share_no_folder(tmp_path):
    model = raydiff.model.description.describe(calibrated_model(tmp_path / "model", "bolt"))
    known = str(tmp_path / "scores"), model, str(tmp_path / "images"), "none", 100, "/data"
    for mine, other in (("torch", "openvino"), ("openvino", "torch")):
        raydiff.storage.write_json(f"{known[0]}/run.json", check_claim(*known, mine))
        check_claim(*known, mine)
        with pytest.raises(DataError, match=r"another run \(other engine\)"):
            check_claim(*known, other)
        raydiff.storage.delete(f"{known[0]}/run.json")
    older = {name: value for name, value in check_claim(*known).items() if name != "engine"}
    raydiff.storage.write_json(f"{known[0]}/run.json", older)
    check_claim(*known)
