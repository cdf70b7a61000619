"""How Ray Tune schedules the trials of a staged search: all of them to the end, or ASHA within each stage."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

from ray.tune.schedulers import ASHAScheduler, FIFOScheduler

SHARES = (0.25, 0.5, 1.0)  # of the pseudo-validation set that a trial has scored at each rung
WHOLE = SHARES[-1:]  # one rung: no early stopping


class StagedFIFO(FIFOScheduler):
    """Every trial to the end, in workers that are kept, with the model in them, from one stage to the next.

    Where no trial waits, as at the end of a stage, Ray Tune ends all idle workers but one. It would start new ones for
    the next stage, and end those before they are up whenever the kept one is free first: where a trial takes less time
    than a worker's start, one worker then did all the work.
    """

    shares: tuple[float, ...] = WHOLE  # of the pseudo-validation set that a trial has scored at each rung

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        """Ray Tune calls it. There is no public way to say how many idle workers may be kept."""
        tune_controller._tune_controller._actor_cache.increase_max(trial.placement_group_factory)


class StagedASHA(StagedFIFO):
    """ASHA (https://arxiv.org/abs/1810.05934) anew for each stage: the better half of a stage's trials so far goes on.

    Stages have their own rungs because a stage with `fixed` settings may be worse than the one before as a whole; held
    against that, all of its trials would be stopped. The first trial to reach a rung passes it, so one at least always
    sees the whole set.
    """

    shares = SHARES

    def __init__(self) -> None:
        super().__init__()
        self._stages: dict[str, ASHAScheduler] = {}

    def take_over(self, stage: str, name: str, rungs: Sequence[tuple[float, float]]) -> None:
        """Hold later trials of a stage against one whose result is known.

        Args:
            name: its own in the stage.
            rungs: (share of the set, score) as a trial reports them.
        """
        trial: Any = SimpleNamespace(trial_id=f"known {name}")
        nobody: Any = None  # ASHA does not look at Tune's controller
        own = self._of(stage)
        own.on_trial_add(nobody, trial)
        for share, score in rungs:
            if share in self.shares:
                iteration = self.shares.index(share) + 1
                own.on_trial_result(nobody, trial, {"training_iteration": iteration, "pseudo_score": score})

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        """Ray Tune calls it, as the others below."""
        super().on_trial_add(tune_controller, trial)
        self._of(trial.config["stage"]).on_trial_add(tune_controller, trial)

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Whether the trial goes on."""
        decision: str = self._of(trial.config["stage"]).on_trial_result(tune_controller, trial, result)
        return decision

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:
        """Forget the trial, not its rungs."""
        self._of(trial.config["stage"]).on_trial_complete(tune_controller, trial, result)

    def on_trial_remove(self, tune_controller: Any, trial: Any) -> None:
        """Forget a trial that has not run."""
        self._of(trial.config["stage"]).on_trial_remove(tune_controller, trial)

    def _of(self, stage: str) -> ASHAScheduler:
        if stage not in self._stages:
            self._stages[stage] = ASHAScheduler(
                time_attr="training_iteration",
                metric="pseudo_score",
                mode="max",
                max_t=len(self.shares),
                grace_period=1,
                reduction_factor=2,
            )
        return self._stages[stage]
