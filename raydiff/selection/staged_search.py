"""The stages of a search space as one Ray Tune search: each stage begins when all trials of the one before are done.

One experiment for all stages, so that the workers (and the model in them) are started once. Settings that an earlier
stage has tried are not tried again: their result is taken over.

A search that was cut off is not restored but gone through again: a trial that the journal knows is over as soon as it
is suggested. So grid, Optuna and ASHA come to the same state as before, and Tune's pickles are not needed.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, MutableMapping, Sequence
from typing import Any

from ray.tune.search import Searcher

from raydiff.errors import RaydiffError, SettingsError
from raydiff.methods.base import ScoreSettings
from raydiff.selection.early_stopping import StagedASHA
from raydiff.selection.search_settings import Search
from raydiff.selection.space import Stage, described
from raydiff.selection.trials import whole

GUESSED = 2  # candidates of a stage that cannot be listed yet


class StagedSearch(Searcher):
    """Suggests the candidates of one stage after the other, on top of what the stages before have chosen.

    Args:
        stages: in order.
        start: the settings before the first stage.
        search: "grid" tries every candidate of a stage; "optuna" at most `trials` of them, by TPE.
        journal: what trials found in an earlier run; those of this one are added as they end.
        asha: stops trials early; it is told of those that need not run.

    Attributes:
        chosen: the best settings so far, by `pseudo_score` on the whole set; of equals, or within the stage's margin,
            the first.
        found: what the trial of the last stage's choice found.
        results: the finished stages: name, trials, chosen.
        taken: how many trials were in the journal.
        error: why the journal could not be written, which ends the search unfinished.

    Raises:
        SettingsError: if a candidate is not valid, or Optuna is wanted and not installed.
    """

    def __init__(
        self,
        stages: Sequence[Stage],
        start: ScoreSettings,
        search: Search,
        trials: int,
        seed: int,
        journal: MutableMapping[str, dict[str, Any]] | None = None,
        asha: StagedASHA | None = None,
    ) -> None:
        super().__init__(metric="pseudo_score", mode="max")
        self.chosen = start
        self.found: dict[str, Any] = {}
        self.results: list[dict[str, Any]] = []
        self.taken = 0
        self.error: RaydiffError | None = None
        self.note = ""
        self._left = list(stages)
        self._search, self._trials, self._seed = search, trials, seed
        self._journal = {} if journal is None else journal
        self._earlier = dict(self._journal)
        self._asha = asha
        self._lost = False
        self._running: dict[str, int] = {}  # trial to its place in the grid
        self._names = itertools.count()  # by the same name Optuna would give the same again
        self._asked_as: dict[int, str] = {}  # place in the grid to its name for Optuna
        self._done: dict[int, dict[str, Any]] = {}
        self._known: dict[str, dict[str, Any]] = {}  # settings scored on the whole set in any stage to what was found
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
        while not (self.finished or self._lost):
            candidate = self._next_candidate()
            if candidate is None:
                return None
            found = self._from_journal(candidate)
            if found is None:
                self._running[trial_id] = candidate
                return {"stage": self._left[0].name, "score": self._settings[candidate].model_dump(mode="json")}
            self.taken += 1
            self._pass_on(candidate, found)
            self._note(candidate, found)
        return Searcher.FINISHED

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Note a trial's result; after the last of a stage, choose. A failed trial ends the search unfinished."""
        candidate = self._running.pop(trial_id, None)
        if error or result is None or candidate is None:
            self._lost = True
            return
        found = json.loads(result["outcome"])
        try:
            self._journal[self._key(candidate, stopped=not whole(found))] = found
        except RaydiffError as reason:  # Ray Tune would show it as a failure of the trial
            self.error, self._lost = reason, True
            return
        self._note(candidate, found)

    def save(self, checkpoint_path: str) -> None:
        """Ray Tune calls it; the journal has all that is needed."""

    def restore(self, checkpoint_path: str) -> None:
        """See save."""

    def _begin_stage(self) -> None:
        stage = self._left[0]
        self._grid = stage.grid(self.chosen, self.results)
        # all of them now: a bad candidate is refused before any worker starts
        self._settings = [self.chosen.changed(**stage.fixed | candidate) for candidate in self._grid]
        self._texts = [settings.model_dump_json() for settings in self._settings]
        self._done = {place: self._known[text] for place, text in enumerate(self._texts) if text in self._known}
        for place, found in self._done.items():
            self._pass_on(place, found)
        self._wanted = self._limited(len(self._grid))
        self._optuna = None
        if self._search == "optuna":
            known = {place: found["pseudo_score"] for place, found in self._done.items()}
            self._optuna = optuna_search(len(self._grid), self._seed, known)
        if len(self._done) >= self._wanted:
            self._choose()

    def _key(self, candidate: int, stopped: bool) -> str:
        """What a trial's result depends on. Where it was stopped depends on the others of its stage too."""
        if not stopped:
            return self._texts[candidate]
        assert self._asha is not None
        among: dict[str, Any] = {"candidates": self._texts, "shares": self._asha.shares, "search": self._search}
        if self._search == "optuna":
            among |= {"trials": self._trials, "seed": self._seed}
        return f"{self._texts[candidate]} stopped among {json.dumps(among)}"

    def _from_journal(self, candidate: int) -> dict[str, Any] | None:
        found = self._earlier.get(self._key(candidate, stopped=False))
        # What has stopped a trial may have been lost with the driver; that must not leave a stage without a whole one.
        if found is None and self._asha is not None and self._has_whole():
            found = self._earlier.get(self._key(candidate, stopped=True))
        return found

    def _has_whole(self) -> bool:
        """Whether one candidate of the stage is sure to have been scored on the whole set."""
        in_journal = any(text in self._earlier for text in self._texts)
        return any(map(whole, self._done.values())) or (self._search == "grid" and in_journal)

    def _pass_on(self, candidate: int, found: Mapping[str, Any]) -> None:
        """Tell ASHA of a trial of this stage that need not run."""
        if self._asha is not None:
            self._asha.take_over(self._left[0].name, self._texts[candidate], found["rungs"])

    def _note(self, candidate: int, found: Mapping[str, Any]) -> None:
        self._done[candidate] = {**found, "scored_in": self._left[0].name}
        if whole(found):
            self._known[self._texts[candidate]] = self._done[candidate]
        if self._optuna is not None and candidate in self._asked_as:
            self._optuna.on_trial_complete(self._asked_as[candidate], {"pseudo_score": found["pseudo_score"]})
        if len(self._done) >= self._wanted:
            self._choose()

    def _limited(self, candidates: int) -> int:
        return candidates if self._search == "grid" else min(self._trials, candidates)

    def _next_candidate(self) -> int | None:
        taken = self._done.keys() | set(self._running.values())
        if len(taken) >= self._wanted:
            return None
        if self._optuna is not None:
            for _ in range(100):  # TPE may propose again what it has seen; that would be a wasted trial
                name = str(next(self._names))
                candidate = int(self._optuna.suggest(name)["candidate"])
                if candidate not in taken:
                    self._asked_as[candidate] = name
                    return candidate
        return next(place for place in range(len(self._grid)) if place not in taken)

    def _choose(self) -> None:
        stage = self._left.pop(0)
        trials = [
            {"settings": plain(self._grid[place]), "fixed": plain(stage.fixed)} | found
            for place, found in sorted(self._done.items())
        ]
        scores = {place: found["pseudo_score"] for place, found in sorted(self._done.items()) if whole(found)}
        least = max(scores.values()) - stage.margin
        best = next(place for place, score in scores.items() if score >= least)
        self.chosen = self.chosen.changed(**self._grid[best])
        self.found = self._done[best]
        self.results.append({"name": stage.name, "trials": trials, "chosen": plain(self._grid[best])})
        self.note = f"{described(self._grid[best])}: pseudo-validation score {scores[best]:.4f}"
        self._asked_as = {}
        if self._left:
            self._begin_stage()


def optuna_search(candidates: int, seed: int, known: Mapping[int, float]) -> Any:
    """Optuna's TPE over the numbers of a stage's candidates, told of those whose score is known.

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
        metric="pseudo_score",
        mode="max",
        seed=seed,
    )


def plain(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings as JSON has them."""
    return {name: list(value) if isinstance(value, tuple) else value for name, value in settings.items()}
