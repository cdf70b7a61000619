"""raydiff: defects in archived inspection images, by diffusion models, on a Ray cluster.

>>> import raydiff
>>> model = raydiff.load("runs/first/models/lafite")  # doctest: +SKIP
>>> scored = model.score([image])  # uint8 RGB arrays; no Ray needed  # doctest: +SKIP
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from raydiff import home, threads
from raydiff.errors import RaydiffError

if TYPE_CHECKING:
    from raydiff import methods
    from raydiff.model.folder import Model, load

__all__ = ["Model", "RaydiffError", "load", "methods"]
__version__ = "0.1.0"

home.use_private_caches()  # before any library looks for its own
threads.sleep_while_waiting()  # before torch is loaded

# torch and its libraries take seconds to import; a worker that only decodes images should not wait for them.
_LATER = {"Model": "raydiff.model.folder", "load": "raydiff.model.folder", "methods": "raydiff.methods"}


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module 'raydiff' has no attribute {name!r}")
    module = importlib.import_module(_LATER[name])
    return module if name == "methods" else getattr(module, name)
