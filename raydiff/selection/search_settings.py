"""How a search space is gone through."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from raydiff.settings import Settings

Search = Literal["grid", "optuna"]
Scheduler = Literal["fifo", "asha"]


class SearchSettings(Settings):
    """Which candidates are tried, how far each is followed, and how many at a time."""

    search: Search = "grid"  # every candidate of a stage, or some by Optuna's TPE
    trials: int = Field(8, ge=1)  # a stage, with optuna
    scheduler: Scheduler = "fifo"  # each to the end, or the worse half stopped early at each rung (ASHA)
    trials_per_gpu: int = Field(1, ge=1)
    seed: int = 0  # of the made anomalies and of TPE
