"""How a search space is written: stages of candidates, searched one after the other (see tune_spaces/)."""

from __future__ import annotations

import importlib.util
import itertools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field

from raydiff import methods
from raydiff.errors import SettingsError
from raydiff.methods.base import ScoreSettings
from raydiff.settings import Settings

Candidates = dict[str, tuple[Any, ...]]  # score setting to the values tried
Stages = Sequence[Mapping[str, Any]]


class Stage(Settings):
    """One stage: every combination of `candidates`, on top of what the stages before have chosen.

    `fixed` holds in this stage's trials only; it does not enter the choice. Candidates may also be a function of the
    settings chosen so far and of the finished stages, as the tuning result has them. Where candidates are in the order
    of their cost, `margin` keeps the cheaper one unless another is better by more than that: the first candidate within
    `margin` of the best score is chosen.
    """

    name: str
    candidates: Candidates | Callable[[Any, Stages], Candidates]
    fixed: dict[str, Any] = Field(default_factory=dict)
    margin: float = Field(0.0, ge=0)

    def grid(self, chosen: ScoreSettings, finished: Stages) -> list[dict[str, Any]]:
        """All combinations of the values tried."""
        values = self.candidates(chosen, finished) if callable(self.candidates) else self.candidates
        return [dict(zip(values, combination, strict=True)) for combination in itertools.product(*values.values())]


def load_space(method: str, path: str | None = None) -> list[Stage]:
    """The stages of `STAGES` in a Python file, by default tune_spaces/<method>.py, or the rivals' own.

    Raises:
        SettingsError: if there is no such file, it does not run, it defines no stages, or two have one name.
    """
    file = Path(path) if path else _own_file(method)
    if not file.is_file():
        raise SettingsError(f"{file} is not there: a search space for {method} is a Python file that defines STAGES")
    spec = importlib.util.spec_from_file_location(f"tune_space_{method}", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # it is the user's code
        raise SettingsError(f"the search space {file} does not run: {type(error).__name__}: {error}") from error
    stages: Sequence[Stage] | None = getattr(module, "STAGES", None)
    if not stages or not all(isinstance(stage, Stage) for stage in stages):
        raise SettingsError(f"{file} must define STAGES, a list of raydiff.selection.space.Stage")
    names = [stage.name for stage in stages]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise SettingsError(f"{file} has several stages named {', '.join(twice)}; give each a name of its own")
    return list(stages)


def _own_file(method: str) -> Path:
    package = Path(__file__).parents[1]
    beside, inside = package.parent / "tune_spaces", package / "tune_spaces"  # a checkout; an installed wheel
    name = "rivals" if method in methods.rival_names() else method
    return (beside if beside.is_dir() else inside) / f"{name}.py"


def described(settings: Mapping[str, Any]) -> str:
    """Settings in a few words, for progress and plots."""
    return ", ".join(f"{name}={value}" for name, value in settings.items())
