"""timm and torchvision, loaded without torch's compiler: a third of the start of each worker.

Both load `torch._dynamo`, with sympy and triton, when they are imported: torchvision for a function that `roi_align`
may ask some day, timm to keep a network of its own from being compiled. Here a stand-in gives them the two, and the
compiler is loaded when one of them is called, or anybody else wants it. So whoever needs timm or torchvision takes it
from here.
"""

from __future__ import annotations

import contextlib
import importlib
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import torch._compile

_COMPILER = "torch._dynamo"
_LIBRARIES = ("timm", "torchvision.transforms.v2")


@contextlib.contextmanager
def _stand_in() -> Iterator[None]:
    """A module in the compiler's place, unless that is loaded already."""
    if _COMPILER in sys.modules:
        yield
        return
    compiler, utils = ModuleType(_COMPILER), ModuleType(f"{_COMPILER}.utils")
    vars(compiler)["disable"] = _disable
    vars(utils)["is_compile_supported"] = _is_compile_supported
    stand_ins = {each.__name__: each for each in (compiler, utils)}
    sys.modules.update(stand_ins)
    try:
        yield
    finally:
        for name in stand_ins:
            del sys.modules[name]


def _disable(fn: Any = None, recursive: bool = True, reason: str | None = None) -> Any:
    """`torch._dynamo.disable`, as torch itself puts it off to the first call."""
    return torch._compile._disable_dynamo(fn, recursive)


def _is_compile_supported(device_type: str) -> Any:
    utils = importlib.import_module(f"{_COMPILER}.utils")
    return utils.is_compile_supported(device_type)


# A version that asks for more of the compiler gets it below.
with contextlib.suppress(ImportError, AttributeError), _stand_in():
    for _library in _LIBRARIES:
        importlib.import_module(_library)

import timm  # noqa: E402
import torchvision.transforms.v2  # noqa: E402

__all__ = ["timm", "torchvision"]
