"""All recipes by name."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable

from raydiff.errors import SettingsError
from raydiff.recipes import diffusion_ad, glad, lafite
from raydiff.recipes.recipe import Recipe

_FUNCTIONS: dict[str, Callable[[], Recipe]] = {
    name: function
    for module in (diffusion_ad, glad, lafite)
    for name, function in vars(module).items()
    if inspect.isfunction(function) and function.__module__ == module.__name__ and not name.startswith("_")
}


def names() -> list[str]:
    """The names of all recipes."""
    return sorted(_FUNCTIONS)


def get(name: str) -> Recipe:
    """The recipe of that name.

    Raises:
        SettingsError: if there is none.
    """
    return function(name)()


def function(name: str) -> Callable[[], Recipe]:
    """The function whose docstring tells of it.

    Raises:
        SettingsError: if there is none.
    """
    if name not in _FUNCTIONS:
        near = difflib.get_close_matches(name, _FUNCTIONS, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(names())}"
        raise SettingsError(f"there is no recipe {name!r}; {hint}")
    return _FUNCTIONS[name]
