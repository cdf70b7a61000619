"""timm and torchvision without torch's compiler, which is there all the same for whoever wants it."""

from __future__ import annotations

import subprocess
import sys

LOADED = """
import sys
import torch
from raydiff import methods
from raydiff.nn.backbones import Backbone, BackboneSettings
from raydiff.synthesis import perlin, textures
from raydiff.vision_libraries import timm, torchvision

for name in ("nearest_patch", "lafite", "diffusion_ad"):
    methods.get(name)
backbone = Backbone(BackboneSettings(name="mobilenetv2_035", weights="random", stages=(2,), grid=4))
with torch.inference_mode():
    backbone(torch.zeros(1, 64, 64, 3, dtype=torch.uint8))
loaded = [name for name in ("torch._dynamo", "torch._dynamo.utils", "sympy") if name in sys.modules]
assert not loaded, loaded
"""
WANTED = """
assert torchvision.ops.roi_align.__module__ == "torchvision.ops.roi_align"
assert sys.modules["torchvision.ops.roi_align"].is_compile_supported("cpu") is True
kept_out = timm.models.naflexvit.disable_compiler(lambda x: x + 1)

def half(x):
    return kept_out(x) * 2

graphs = []

def backend(graph, inputs):
    graphs.append([node.target for node in graph.graph.nodes if node.op == "call_function"])
    return graph.forward

assert torch.compile(half, backend=backend)(torch.ones(2)).tolist() == [4.0, 4.0]
import operator
assert graphs == [[operator.mul]], graphs  # not what was kept out
import torch._dynamo
assert torch._dynamo is sys.modules["torch._dynamo"]
assert hasattr(torch._dynamo, "config")
"""
OLDER = """
import sys

# A version of timm that asks for more of the compiler.
class Finder:
    def find_spec(self, name, path, target=None):
        if name == "timm.models" and not done:
            done.append(name)
            from torch._dynamo import config

done = []
sys.meta_path.insert(0, Finder())
from raydiff.vision_libraries import timm
assert done == ["timm.models"]
assert timm.is_model("mobilenetv2_035")
assert "torch._dynamo" in sys.modules
"""


def in_a_process(code: str) -> None:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr


def test_the_compiler_is_loaded_when_it_is_wanted_and_not_before():
    in_a_process(LOADED + WANTED)


def test_a_version_that_asks_for_more_of_it_is_loaded_with_it():
    in_a_process(OLDER)
