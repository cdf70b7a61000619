"""What of an image the networks see: one room between decoding and methods. No Ray and no torch here."""

from raydiff.views.layout import Layout, each_tile
from raydiff.views.ragged import Arrays, ragged
from raydiff.views.reduced import Reduced, Reduction
from raydiff.views.view import View

__all__ = ["Arrays", "Layout", "Reduced", "Reduction", "View", "each_tile", "ragged"]
