"""A frozen network's batch norms, folded into the convolutions before them: the same numbers with less to compute.

In evaluation a batch norm multiplies and adds a constant a channel, which the convolution's own weights and bias can
hold. On a CPU that saves a fifth to a third of a mobile network's time, because each pass over the feature maps costs.
"""

from __future__ import annotations

from collections import Counter

import torch
from torch import fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from raydiff.vision_libraries import timm

_KINDS = (nn.BatchNorm2d, timm.layers.BatchNormAct2d)  # whose arithmetic is known; subclasses may do something else


def fold_batch_norms(net: nn.Module) -> int:
    """Fold, in place, every batch norm that alone reads what a convolution gives; how many that were.

    Which those are, the network's own forward pass tells, traced once: never their order or names. A network that
    cannot be traced (its path depends on its input) is left as it is. It has to stay in evaluation mode afterwards.
    """
    try:
        graph = _Tracer().trace(net)
    except Exception:  # whatever a network does with a stand-in for its input
        return 0
    modules = dict(net.named_modules())
    calls = Counter(str(node.target) for node in graph.nodes if node.op == "call_module")
    folded = 0
    for node in graph.nodes:
        before = node.args[0] if node.op == "call_module" and node.args else None
        if not isinstance(before, fx.Node) or before.op != "call_module" or len(before.users) > 1:
            continue
        conv_name, name = str(before.target), str(node.target)
        conv, norm = modules[conv_name], modules[name]
        if not isinstance(conv, nn.Conv2d) or type(norm) not in _KINDS or calls[conv_name] > 1 or calls[name] > 1:
            continue
        assert isinstance(norm, nn.BatchNorm2d)
        if norm.running_mean is None:
            continue
        _fold(conv, norm)
        parent, _, last = name.rpartition(".")
        after = nn.Sequential(norm.drop, norm.act) if isinstance(norm, timm.layers.BatchNormAct2d) else nn.Identity()
        setattr(net.get_submodule(parent), last, after)
        folded += 1
    return folded


def _fold(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> None:
    parts = (conv.weight, conv.bias, norm.running_mean, norm.running_var)
    weight, bias, mean, variance = (None if part is None else part.double() for part in parts)
    scale, shift = (None if part is None else part.double() for part in (norm.weight, norm.bias))
    with torch.no_grad():
        fused = fuse_conv_bn_weights(weight, bias, mean, variance, norm.eps, scale, shift)  # type: ignore[arg-type]
        kind, trained = conv.weight.dtype, conv.weight.requires_grad
        conv.weight, conv.bias = (nn.Parameter(part.to(kind), requires_grad=trained) for part in fused)


class _Tracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, nn.Conv2d | nn.BatchNorm2d) or super().is_leaf_module(m, module_qualified_name)
