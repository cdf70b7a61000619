"""Batch norms folded into convolutions: the same features, whatever network timm builds."""

from __future__ import annotations

import copy

import pytest
import timm
import torch
from torch import Tensor, nn

from raydiff.nn.folding import fold_batch_norms


def unlike_new(net: nn.Module) -> nn.Module:
    """With statistics, scales and shifts as training leaves them: nothing that is wrong may cancel."""
    generator = torch.Generator().manual_seed(0)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            count = module.num_features
            module.running_mean.copy_(0.1 * torch.randn(count, generator=generator))
            module.running_var.copy_(0.5 + torch.rand(count, generator=generator))
            module.weight.data.copy_(0.5 + torch.rand(count, generator=generator))
            module.bias.data.copy_(0.1 * torch.randn(count, generator=generator))
    return net.requires_grad_(False).eval()


def norms(net: nn.Module) -> int:
    return sum(isinstance(module, nn.BatchNorm2d) for module in net.modules())


@pytest.mark.parametrize(
    ("name", "left"),
    [
        ("mobilenetv2_100", 0),
        ("tf_efficientnet_lite0", 0),
        ("efficientnet_b0", 0),
        ("resnet18", 0),
        ("densenet121", None),  # half of its norms stand before the convolution
        ("mobilenetv3_small_100", 0),
        ("convnext_atto", 0),  # has none
        ("regnety_002", 0),
    ],
)
def test_features_are_the_same_and_norms_are_gone(name: str, left: int | None) -> None:
    net = unlike_new(timm.create_model(name, features_only=True, out_indices=(1, 2)))
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    expected, before = net(images), norms(net)
    folded = fold_batch_norms(net)
    for found, wanted in zip(net(images), expected, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5 * float(wanted.abs().max()))
    assert norms(net) == before - folded
    assert norms(net) == left if left is not None else 0 < norms(net) < before


class Shared(nn.Module):
    """A convolution whose output is read twice, and a norm that is called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)
        self.twice = nn.Conv2d(4, 4, 1)
        self.both = nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        read = self.conv(x)
        seen = self.norm(read) + read
        return self.both(self.twice(self.both(self.twice(seen))))


class Branching(nn.Module):
    """Its path depends on its input, so that it cannot be traced."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x)) if x.sum() > 0 else self.conv(x)


@pytest.mark.parametrize("kind", [Shared, Branching])
def test_what_is_shared_or_cannot_be_traced_is_left_alone(kind: type[nn.Module]) -> None:
    net = unlike_new(kind())
    as_it_was = copy.deepcopy(net)
    assert fold_batch_norms(net) == 0
    images = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    assert torch.equal(net(images), as_it_was(images))
