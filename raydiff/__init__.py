"""raydiff: defects in archived inspection images, by diffusion models, on a Ray cluster.

>>> import raydiff
>>> model = raydiff.load("runs/first/models/lafite")  # doctest: +SKIP
>>> scored = model.score([image])  # uint8 RGB arrays; no Ray needed  # doctest: +SKIP
"""

from raydiff import methods
from raydiff.errors import RaydiffError
from raydiff.model import Model, load

__all__ = ["Model", "RaydiffError", "load", "methods"]
__version__ = "0.1.0"
