"""The products of the demo images, one file each."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from raydiff.images.products import capsules, fabric, gear
from raydiff.images.products.canvas import Scene


class Product(NamedTuple):
    """Something to inspect; `draw(part, flaw, size, defect)` gives its scene, (3, size, size) in 0..1.

    The generator `part` decides everything but the defect and `flaw` everything about the defect, so the
    same `part` with another defect, or with None, is the same piece.
    """

    name: str
    defects: tuple[str, ...]
    draw: Callable[[np.random.Generator, np.random.Generator, int, str | None], Scene]


PRODUCTS = (
    Product("capsules", capsules.DEFECTS, capsules.draw),
    Product("fabric", fabric.DEFECTS, fabric.draw),
    Product("gear", gear.DEFECTS, gear.draw),
)
