"""Recipes: a function a published result, whose docstring says what it takes, what was published and what measured.

>>> from raydiff import recipes
>>> recipes.names()[0]
'diffusion_ad_dagm'
>>> recipes.get("lafite_mvtec").published["mean"]["image_auroc"]
0.985
"""

from raydiff.recipes.recipe import Recipe
from raydiff.recipes.registry import get, names

__all__ = ["Recipe", "get", "names"]
