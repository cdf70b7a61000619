"""The base of all settings: typed, frozen, and strict about names."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Any, Self, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ValidationError

from raydiff.errors import SettingsError


class Settings(BaseModel):
    """A frozen group of settings. A misspelt name is an error, never a silent default."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)

    @classmethod
    def parse(cls, values: Mapping[str, Any]) -> Self:
        """Settings from plain values (JSON, command line).

        Raises:
            SettingsError: naming each setting that is unknown, mistyped or out of range.
        """
        try:
            return cls(**values)
        except ValidationError as error:
            raise SettingsError("; ".join(cls._sentence(item) for item in error.errors())) from None

    def changed(self, **values: Any) -> Self:
        """A copy with some settings replaced, validated again (pydantic's own `model_copy` is not)."""
        return self.parse({**self.model_dump(), **values})

    @classmethod
    def _sentence(cls, error: Any) -> str:
        if not error["loc"]:  # a rule over several settings, in a sentence of its own
            return f"{cls.__name__}: {error['msg'].removeprefix('Value error, ')}"
        name = ".".join(str(part) for part in error["loc"])
        if error["type"] == "extra_forbidden":
            *groups, last = error["loc"]
            known = cls._names(groups)
            near = difflib.get_close_matches(str(last), known, n=1)
            hint = f"did you mean {'.'.join([*groups, *near])!r}?" if near else f"known settings: {', '.join(known)}"
            return f"{cls.__name__} has no setting {name!r}; {hint if known else 'leave it out'}"
        return f"{cls.__name__}.{name}: {error['msg']} (got {error['input']!r})"

    @classmethod
    def _names(cls, groups: Sequence[Any]) -> list[str]:
        """The settings that a nested group has."""
        if not groups:
            return list(cls.model_fields)
        field = cls.model_fields.get(groups[0])
        annotation = field.annotation if field else None
        named = get_origin(annotation) is dict  # groups of one kind, by names of the user's own
        for inner in (annotation, *get_args(annotation)):  # a group may be optional
            if isinstance(inner, type) and issubclass(inner, Settings):
                return inner._names(groups[2 if named else 1 :])
        return []
