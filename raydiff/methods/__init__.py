"""The methods, each in one file, and the one registry through which all of them enter.

>>> import raydiff
>>> raydiff.methods.names()
['diffusion_ad', 'glad', 'lafite', 'nearest_patch', 'uniad']
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from raydiff.errors import SettingsError

if TYPE_CHECKING:
    from raydiff.images.levels import Levels
    from raydiff.methods.base import Method, TrainSettings

# A method's file, which has its name, and the class in it. Imported when asked for: torch and diffusers take seconds,
# and whoever only asks for the names should not wait for them.
_METHODS = {
    "diffusion_ad": "DiffusionAD",
    "glad": "GLAD",
    "lafite": "LafitE",
    "nearest_patch": "NearestPatch",
    "uniad": "UniAD",
}
# Others' methods, for benchmarks: their files lie in `rivals`, and need the extra `peers`.
_RIVALS = {
    "anomalib_draem": "AnomalibDRAEM",
    "anomalib_fastflow": "AnomalibFastFlow",
    "anomalib_padim": "AnomalibPaDiM",
    "anomalib_patchcore": "AnomalibPatchCore",
    "anomalib_reverse_distillation": "AnomalibReverseDistillation",
}
PRESETS = ("demo", "small", "paper")  # that every method has


_OF_ONE_NETWORK = {"name", "weights", "timm_options", "mean", "std", "final_norm"}  # of a backbone's settings


def names() -> list[str]:
    """The names of all methods."""
    return sorted(_METHODS)


def rival_names() -> list[str]:
    """The names of others' methods, which `get` and `recipe` know too."""
    return sorted(_RIVALS)


def get(name: str) -> type[Method]:
    """The method of that name.

    Raises:
        SettingsError: if there is none.
    """
    if name in _RIVALS:
        module, kind = f"rivals.{name.removeprefix('anomalib_')}", _RIVALS[name]
    elif name in _METHODS:
        module, kind = name, _METHODS[name]
    else:
        raise SettingsError(f"there is no method {name!r}; the methods are {', '.join(names())}")
    method: type[Method] = getattr(importlib.import_module(f"raydiff.methods.{module}"), kind)
    return method


def recipe(name: str, preset: str, changes: Mapping[str, Any] | None = None) -> TrainSettings:
    """The train settings of a method's preset, with `changes` laid over it (nested groups merge).

    What a further backbone does not say of itself is as with the first: stages, grid, neighbourhood.

    Raises:
        SettingsError: if the preset or a setting is unknown, or a value is out of range.
    """
    method = get(name)
    if preset not in method.presets:
        raise SettingsError(f"{name} has no preset {preset!r}; it has {', '.join(method.presets)}")
    given = merged(method.presets[preset], changes or {})
    if given.get("further_backbones"):
        shared = {key: value for key, value in given.get("backbone", {}).items() if key not in _OF_ONE_NETWORK}
        given["further_backbones"] = [shared | dict(each) for each in given["further_backbones"]]
    return method.TrainSettings.parse(given)


def levels_of(recipes: Mapping[str, TrainSettings]) -> Levels | None:
    """Which stored values are black and white to the methods of one job, by the method's name.

    Raises:
        SettingsError: if the methods differ in that: they could not be compared.
    """
    found = {name: settings.levels for name, settings in recipes.items()}
    first = next(iter(found.values()), None)
    if any(levels != first for levels in found.values()):
        raise SettingsError("the methods of one job must share levels; set levels without a method's name before it")
    return first


def check(recipes: Mapping[str, TrainSettings]) -> None:
    """Whether what methods' train settings name can be had, before hours are spent; by the method's name.

    Raises:
        SettingsError, StorageError: if it cannot.
    """
    for name, settings in recipes.items():
        get(name).check(settings)


def merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """`changes` laid over `base`; nested groups merge."""
    found = dict(base)
    for key, value in changes.items():
        below = found.get(key)
        found[key] = merged(below, value) if isinstance(below, Mapping) and isinstance(value, Mapping) else value
    return found
