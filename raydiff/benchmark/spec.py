"""What is measured: data sets, contenders and seeds, from a YAML file."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Annotated, Any, Self

import yaml
from pydantic import Field, model_validator

from raydiff import methods, storage
from raydiff.errors import DataError, SettingsError
from raydiff.images.layouts import known
from raydiff.images.layouts.folder_names import FolderNames
from raydiff.images.pages import Pages
from raydiff.images.parts import PartPattern
from raydiff.model.rate import DEFAULT_RATE, check_rate
from raydiff.settings import Settings


class DataSet(Settings):
    """Images with labels to test on; as of `raydiff index`."""

    uri: str
    normal: tuple[str, ...] = ()
    anomalous: tuple[str, ...] = ()
    part_from: str | None = None
    layout: str = known.AUTO
    pages: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _uri_alone(cls, given: Any) -> Any:
        return {"uri": given} if isinstance(given, str) else given

    def options(self) -> dict[str, Any]:
        """Arguments of `steps.index`.

        Raises:
            DataError, SettingsError: if one of the options means nothing.
        """
        return {
            "named": FolderNames.parse(list(self.normal) or None, list(self.anomalous) or None),
            "part_from": PartPattern.parse(self.part_from),
            "layout": known.parse(self.layout),
            "pages": Pages.parse(self.pages),
        }


class Contender(Settings):
    """A method with its settings, under the name that the tables show."""

    method: str
    preset: str = "small"
    settings: dict[str, Any] = Field(default_factory=dict)  # train settings laid over the preset's
    space: str | None = None  # the search space of its score settings; by default the method's own

    def recipe(self) -> Any:
        """Its train settings.

        Raises:
            SettingsError: as `methods.recipe`.
        """
        return methods.recipe(self.method, self.preset, self.settings)


class Spec(Settings):
    """What a benchmark measures: every contender on every data set with every seed."""

    data: dict[str, DataSet] = Field(min_length=1)
    contenders: dict[str, Contender] = Field(min_length=1)
    seeds: tuple[Annotated[int, Field(ge=0)], ...] = Field((0,), min_length=1)
    per_category: bool = False  # a model for each category, or one for all of a data set
    size: int | None = Field(None, ge=1)  # the side that maps and masks are resized to; None: the images' own
    false_alarm_rate: float = DEFAULT_RATE
    pseudo_images: int | None = None  # as of `raydiff tune`

    @model_validator(mode="before")
    @classmethod
    def _named_as_methods(cls, given: Any) -> Any:
        """A contender's method is by default what the contender is called."""
        if not isinstance(given, Mapping) or not isinstance(given.get("contenders"), Mapping):
            return given
        contenders = {name: {} if each is None else each for name, each in given["contenders"].items()}
        named = {
            name: {"method": name, **each} if isinstance(each, Mapping) else each for name, each in contenders.items()
        }
        return {**given, "contenders": named}

    @model_validator(mode="after")
    def _seeds_differ(self) -> Self:
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"each seed is measured once; {list(self.seeds)} names one twice")
        return self

    @classmethod
    def read(cls, uri: str) -> Spec:
        """The specification in a YAML file.

        Raises:
            DataError: if it is not YAML, or a name of a data set or contender is no name of a folder.
            SettingsError: if something in it is unknown or out of range.
            StorageError: if it cannot be read.
        """
        try:
            given = yaml.safe_load(storage.read_bytes(uri))
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise DataError(f"{uri} is not YAML ({error})") from None
        if not isinstance(given, dict):
            raise DataError(f"{uri} is no specification; expected data: and contenders:, see docs/benchmark.md")
        spec = cls.parse(given).absolute()
        spec.check()
        return spec

    def absolute(self) -> Spec:
        """With places that a worker finds, wherever it runs."""
        data = {name: data.changed(uri=storage.absolute(data.uri)) for name, data in self.data.items()}
        contenders = {
            name: each.changed(space=each.space and os.path.abspath(each.space))
            for name, each in self.contenders.items()
        }
        return self.changed(data=data, contenders=contenders)

    def check(self) -> None:
        """Whether all that it names can be had, before hours are spent.

        Raises:
            DataError, SettingsError, StorageError: if not.
        """
        from raydiff.selection.pseudo_validation import PseudoValidationSettings  # here, because torch takes seconds
        from raydiff.selection.space import load_space

        for name in (*self.data, *self.contenders):
            if name in ("", ".", "..") or "/" in name:
                raise DataError(f"{name!r} becomes the name of a folder, so it may hold no / and not be . or ..")
        recipes = {name: contender.recipe() for name, contender in self.contenders.items()}
        methods.levels_of(recipes)
        check_rate(self.false_alarm_rate)
        PseudoValidationSettings.at_most(self.pseudo_images)
        for name, data in self.data.items():
            try:
                data.options()
            except (DataError, SettingsError) as error:
                raise SettingsError(f"data {name}: {error}") from None
            storage.probe(data.uri)
        for name, contender in self.contenders.items():
            load_space(contender.method, contender.space)
            methods.get(contender.method).check(recipes[name])
