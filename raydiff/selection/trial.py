"""One candidate of a tuning, scored in a Ray worker."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from ray import tune as ray_tune

from raydiff import cluster
from raydiff.model.folder import load
from raydiff.model.scored import Scored
from raydiff.selection.criterion import Found, found_by_category, maps_in_cells
from raydiff.selection.pseudo_validation import ScoringSet


class Trial(ray_tune.Trainable):
    """Scores the pseudo-validation set rung by rung, in a worker that keeps the model and the sets between trials.

    A rung's score is over all images seen so far, so the last is that of the whole set, to the bit what scoring it at
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
        self._maps = np.zeros(self._pseudo.masks.shape, np.float32)
        self._details: dict[str, np.ndarray] = {}
        self._reached: list[tuple[float, float]] = []
        self._seconds = 0.0
        return True

    def step(self) -> dict[str, Any]:
        """Score the next rung under the candidate's settings."""
        began = time.monotonic()
        rung = len(self._reached)
        self._score_rows(self._rungs[rung])
        seen = self._seen
        by_category = found_by_category(
            self._pseudo.categories[seen],
            self._pseudo.labels[seen],
            self._scores[seen],
            self._maps[seen],
            self._pseudo.masks[seen],
        )
        pseudo, share = Found.mean(by_category), self._shares[rung]
        assert pseudo is not None  # every category of the pseudo-validation set has both kinds
        self._reached.append((share, pseudo.score))
        done = rung + 1 == len(self._rungs)
        test = self._on_the_test_set() if done else {}
        self._seconds += time.monotonic() - began
        outcome = {
            **_told("pseudo", by_category),
            "share": share,
            "rungs": self._reached,
            **_told("test", test),
            "normal_details": self._pseudo.normal_details(self._details, seen),
            "seconds": round(self._seconds, 3),
        }
        # as one text, because Tune takes nested results apart
        return {"pseudo_score": pseudo.score, "outcome": json.dumps(outcome), "done": done}

    def _on_the_test_set(self) -> dict[str, Found]:
        test = self._test
        if test is None:
            return {}
        scored = test.scored(self._method, self._score)
        return found_by_category(test.categories, test.labels, scored.scores, self._cells(scored), test.masks)

    def _score_rows(self, rows: np.ndarray) -> None:
        if not len(rows):  # of a set so small that the rung before had all of its share
            return
        scored = self._pseudo.part(rows).scored(self._method, self._score)
        self._scores[rows], self._seen[rows] = scored.scores, True
        self._maps[rows] = self._cells(scored)
        for name, values in scored.details.items():
            self._details.setdefault(name, np.full(len(self._seen), np.nan))[rows] = values

    def _cells(self, scored: Scored) -> np.ndarray:
        return maps_in_cells(scored.maps, self._method.settings.image_size)

    def save_checkpoint(self, checkpoint_dir: str) -> dict[str, Any]:
        """A trial has no state worth keeping."""
        return {}

    def load_checkpoint(self, checkpoint: dict[str, Any] | None) -> None:
        """See save_checkpoint."""


def _told(which: str, by_category: dict[str, Found]) -> dict[str, Any]:
    """What a trial's outcome says of a set: in the mean over categories and of each; None where there are no labels."""
    mean = Found.mean(by_category)
    return {
        f"{which}_score": mean and mean.score,
        f"{which}_auroc": mean and mean.auroc,
        f"{which}_aupro": mean and mean.aupro,
        f"{which}_by_category": {name: found._asdict() for name, found in by_category.items()},
    }
