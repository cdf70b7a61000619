"""Train settings as the command line gives them: --set, --backbone, --view, --roi, --bit-depth, --levels."""

from __future__ import annotations

import difflib
import json
from collections.abc import Sequence
from typing import Any

from raydiff import methods
from raydiff.errors import SettingsError
from raydiff.views import View


def changes(
    method: str,
    backbone: str | None,
    weights: str | None,
    settings: list[str] | None,
    among: Sequence[str] = (),
    view: str | None = None,
    roi: str | None = None,
) -> dict[str, Any]:
    """Train settings of one method given on the command line, as nested values.

    A setting that does not name its method is for all methods `among` which this one was chosen that have it.

    Raises:
        SettingsError: if a --set is not NAME=VALUE, --view is no view, or --roi no mask that can be read.
    """
    first, *further = backbone.split(",") if backbone else [None]
    theirs = {"weights": weights} if weights else {}
    given = [f"backbone.name={first}"] if first else []
    given += [f"backbone.weights={weights}"] if weights else []
    given += [f"further_backbones={json.dumps([{'name': name} | theirs for name in further])}"] if further else []
    seen = View.values(view) if view else {}
    if roi:
        from raydiff.images.regions import regions

        seen["roi"] = regions(roi)
    given += [f"view={json.dumps(seen)}"] if seen else []
    found: dict[str, Any] = {}
    for item in [*given, *(settings or [])]:
        name, equals, text = item.partition("=")
        if not equals:
            raise SettingsError(f"--set {item!r} is not NAME=VALUE, as in --set train_steps=2000")
        *groups, last = name.split(".")
        if groups and groups[0] in (*methods.names(), *methods.rival_names()):
            if groups.pop(0) != method:
                continue  # lafite.train_steps=2000 is for lafite alone
        elif groups and (near := difflib.get_close_matches(groups[0], methods.names(), n=1, cutoff=0.75)):
            raise SettingsError(f"--set {item!r}: there is no method {groups[0]!r}; did you mean {near[0]!r}?")
        elif _passes(method, name.split(".")[0], among):
            continue  # bank_size=2000 is for those that have a bank
        place = found
        for group in groups:
            place = place.setdefault(group, {})
            if not isinstance(place, dict):
                raise SettingsError(
                    f"--set {item!r}: {group} was given a value of its own before; give one or the other"
                )
        try:
            place[last] = json.loads(text)
        except ValueError:
            place[last] = text
    return found


def with_levels(
    settings: dict[str, Any], bit_depth: Sequence[str] | None, levels: Sequence[str] | None
) -> dict[str, Any]:
    """Changes of train settings, and what --bit-depth and --levels say.

    Raises:
        SettingsError: if it is said twice, or means nothing.
    """
    from raydiff.images.levels import Levels

    by = Levels.of_options(bit_depth, levels)
    if by is None:
        return settings
    if "levels" in settings:
        raise SettingsError("--set levels and --bit-depth or --levels say the same thing; give one of them")
    return {**settings, "levels": by.model_dump(exclude_none=True)}


def _passes(method: str, setting: str, among: Sequence[str]) -> bool:
    having = [other for other in among if setting in methods.get(other).TrainSettings.model_fields]
    return bool(having) and method not in having
