"""One candidate of a tuning, scored in a Ray worker."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from ray import tune as ray_tune

from raydiff import cluster
from raydiff.model import load
from raydiff.selection.pseudo_validation import ScoringSet


class Trial(ray_tune.Trainable):
    """Scores the pseudo-validation set rung by rung, in a worker that keeps the model and the sets between trials.

    A rung's AUROC is over all images seen so far, so the last is that of the whole set, to the bit what scoring it at
    once gives: an image's score does not depend on the others beside it.
    """

    def setup(
        self,
        config: dict[str, Any],
        model_uri: str = "",
        sets: tuple[ScoringSet, ScoringSet | None] | None = None,
        shares: Sequence[float] = (),
    ) -> None:
        """Load the model once.

        Args:
            config: the candidate, under "score".
            sets: the pseudo-validation set and, or None, the test set, which only a trial that gets to the end scores.
            shares: of the pseudo-validation set that is scored after each rung; the last is 1.
        """
        assert sets is not None
        self._method = load(model_uri, cluster.use_assigned_device()).method
        self._pseudo, self._test = sets
        self._shares, self._rungs = shares, self._pseudo.rungs(shares)
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take the next candidate without a new process."""
        images = len(self._pseudo.labels)
        self._score = self._method.ScoreSettings.parse(new_config["score"])
        self._scores, self._seen = np.full(images, np.nan), np.zeros(images, bool)
        self._details: dict[str, np.ndarray] = {}
        self._aurocs: list[tuple[float, float]] = []
        self._seconds = 0.0
        return True

    def step(self) -> dict[str, Any]:
        """Score the next rung under the candidate's settings."""
        began = time.monotonic()
        rung = len(self._aurocs)
        self._score_rows(self._rungs[rung])
        pseudo = self._pseudo.auroc_by_category(self._scores, self._seen)
        auroc, share = statistics.fmean(pseudo.values()), self._shares[rung]
        self._aurocs.append((share, auroc))
        done = rung + 1 == len(self._rungs)
        test = {}
        if done and self._test is not None:
            test = self._test.auroc_by_category(self._test.scored(self._method, self._score).scores)
        self._seconds += time.monotonic() - began
        outcome = {
            "pseudo_auroc": auroc,
            "pseudo_by_category": pseudo,
            "share": share,
            "rungs": self._aurocs,
            "test_auroc": statistics.fmean(test.values()) if test else None,
            "test_by_category": test,
            "normal_details": self._pseudo.normal_details(self._details, self._seen),
            "seconds": round(self._seconds, 3),
        }
        # as one text, because Tune takes nested results apart
        return {"pseudo_auroc": auroc, "outcome": json.dumps(outcome), "done": done}

    def _score_rows(self, rows: np.ndarray) -> None:
        if not len(rows):  # of a set so small that the rung before had all of its share
            return
        scored = self._pseudo.part(rows).scored(self._method, self._score)
        self._scores[rows], self._seen[rows] = scored.scores, True
        for name, values in scored.details.items():
            self._details.setdefault(name, np.full(len(self._seen), np.nan))[rows] = values

    def save_checkpoint(self, checkpoint_dir: str) -> dict[str, Any]:
        """A trial has no state worth keeping."""
        return {}

    def load_checkpoint(self, checkpoint: dict[str, Any] | None) -> None:
        """See save_checkpoint."""
