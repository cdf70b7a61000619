"""The stages of a search space as one Ray Tune search: each stage begins when all trials of the one before are done.

One experiment for all stages, so that the workers (and the model in them) are started once. Settings that an earlier
stage has tried are not tried again: their result is taken over.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from ray.tune.search import Searcher

from raydiff.errors import SettingsError
from raydiff.methods.base import ScoreSettings
from raydiff.selection.space import Stage, described

Search = Literal["grid", "optuna"]
GUESSED = 2  # candidates of a stage that cannot be listed yet


class StagedSearch(Searcher):
    """Suggests the candidates of one stage after the other, on top of what the stages before have chosen.

    Args:
        stages: in order.
        start: the settings before the first stage.
        search: "grid" tries every candidate of a stage; "optuna" at most `trials` of them, by TPE.

    Attributes:
        chosen: the best settings so far, by `pseudo_auroc`; of equals, or within the stage's margin, the first.
        auroc: the `pseudo_auroc` of the last stage's choice.
        results: the finished stages: name, trials, chosen.

    Raises:
        SettingsError: if a candidate is not valid, or Optuna is wanted and not installed.
    """

    def __init__(self, stages: Sequence[Stage], start: ScoreSettings, search: Search, trials: int, seed: int) -> None:
        super().__init__(metric="pseudo_auroc", mode="max")
        self.chosen = start
        self.auroc = float("nan")
        self.results: list[dict[str, Any]] = []
        self.note = ""
        self._left = list(stages)
        self._search, self._trials, self._seed = search, trials, seed
        self._lost = False
        self._running: dict[str, int] = {}  # trial to its place in the grid
        self._asked_as: dict[str, str] = {}  # trial to its name for Optuna
        self._done: dict[int, dict[str, Any]] = {}
        self._known: dict[str, dict[str, Any]] = {}  # settings tried in any stage to their result
        self._begin_stage()

    @property
    def finished(self) -> bool:
        """Whether all stages are done."""
        return not self._left

    @property
    def count(self) -> int:
        """How many candidates have their result, of all stages so far."""
        return sum(len(stage["trials"]) for stage in self.results) + (0 if self.finished else len(self._done))

    @property
    def expected(self) -> int:
        """How many candidates all stages will have, as far as is known: some depend on what is found before."""
        known = sum(len(stage["trials"]) for stage in self.results) + (0 if self.finished else self._wanted)
        later = (
            GUESSED if callable(stage.candidates) else len(stage.grid(self.chosen, [])) for stage in self._left[1:]
        )
        return known + sum(map(self._limited, later))

    def suggest(self, trial_id: str) -> Any:
        """The next trial's settings; None while a stage's last trials are still running."""
        if self.finished or self._lost:
            return Searcher.FINISHED
        candidate = self._next_candidate(trial_id)
        if candidate is None:
            return None
        self._running[trial_id] = candidate
        return {"stage": self._left[0].name, "score": self._settings[candidate].model_dump(mode="json")}

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Note a trial's result; after the last of a stage, choose. A failed trial ends the search unfinished."""
        candidate = self._running.pop(trial_id)
        if error or result is None:
            self._lost = True
            return
        self._done[candidate] = self._known[self._settings[candidate].model_dump_json()] = result
        if self._optuna is not None and trial_id in self._asked_as:
            self._optuna.on_trial_complete(self._asked_as.pop(trial_id), result)
        if len(self._done) >= self._wanted:
            self._choose()

    def save(self, checkpoint_path: str) -> None:
        """A killed tuning begins anew: its trials take seconds."""

    def restore(self, checkpoint_path: str) -> None:
        """See save."""

    def _begin_stage(self) -> None:
        stage = self._left[0]
        self._grid = stage.grid(self.chosen, self.results)
        # all of them now: a bad candidate is refused before any worker starts
        self._settings = [self.chosen.changed(**stage.fixed | candidate) for candidate in self._grid]
        texts = [settings.model_dump_json() for settings in self._settings]
        self._done = {place: self._known[text] for place, text in enumerate(texts) if text in self._known}
        self._wanted = self._limited(len(self._grid))
        self._optuna = None
        if self._search == "optuna":
            known = {place: result["pseudo_auroc"] for place, result in self._done.items()}
            self._optuna = optuna_search(len(self._grid), self._seed, known)
        if len(self._done) >= self._wanted:
            self._choose()

    def _limited(self, candidates: int) -> int:
        return candidates if self._search == "grid" else min(self._trials, candidates)

    def _next_candidate(self, trial_id: str) -> int | None:
        taken = self._done.keys() | set(self._running.values())
        if len(taken) >= self._wanted:
            return None
        if self._optuna is not None:
            for attempt in range(100):  # TPE may propose again what it has seen; that would be a wasted trial
                name = f"{trial_id}-{attempt}"  # by the same name it is given the same again
                candidate = int(self._optuna.suggest(name)["candidate"])
                if candidate not in taken:
                    self._asked_as[trial_id] = name
                    return candidate
        return next(place for place in range(len(self._grid)) if place not in taken)

    def _choose(self) -> None:
        stage = self._left.pop(0)
        trials = [
            {"settings": plain(self._grid[place]), "fixed": plain(stage.fixed)} | json.loads(result["outcome"])
            for place, result in sorted(self._done.items())
        ]
        least = max(result["pseudo_auroc"] for result in self._done.values()) - stage.margin
        best = next(place for place in sorted(self._done) if self._done[place]["pseudo_auroc"] >= least)
        self.chosen = self.chosen.changed(**self._grid[best])
        self.auroc = float(self._done[best]["pseudo_auroc"])
        self.results.append({"name": stage.name, "trials": trials, "chosen": plain(self._grid[best])})
        self.note = f"{described(self._grid[best])}: pseudo-validation AUROC {self.auroc:.4f}"
        if self._left:
            self._begin_stage()


def optuna_search(candidates: int, seed: int, known: Mapping[int, float]) -> Any:
    """Optuna's TPE over the numbers of a stage's candidates, told of those whose AUROC is known.

    Raises:
        SettingsError: if Optuna is not installed.
    """
    try:
        import optuna
        from ray.tune.search.optuna import OptunaSearch
    except ImportError:
        raise SettingsError("--search optuna needs one more package: pip install 'raydiff[optuna]'") from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)  # a study a stage is nothing to tell
    space: dict[str, Any] = {"candidate": optuna.distributions.CategoricalDistribution(range(candidates))}
    return OptunaSearch(
        space,
        points_to_evaluate=[{"candidate": place} for place in known] or None,
        evaluated_rewards=list(known.values()) or None,
        metric="pseudo_auroc",
        mode="max",
        seed=seed,
    )


def plain(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings as JSON has them."""
    return {name: list(value) if isinstance(value, tuple) else value for name, value in settings.items()}
