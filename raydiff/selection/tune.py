"""Tuning a model's score settings on made anomalies, with Ray Tune. The trained network and its examples are shared."""

from __future__ import annotations

import hashlib
import json
import os
import statistics
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import ray
from ray import tune as ray_tune
from scipy.stats import spearmanr

from raydiff import cluster, storage
from raydiff.errors import ClusterError
from raydiff.images import table
from raydiff.images.stream import Reading, decode_rows
from raydiff.model import Model, load
from raydiff.progress import Phase, console, phase
from raydiff.selection.pseudo_validation import (
    PseudoValidationSettings,
    ScoringSet,
    pseudo_validation_set,
    scoring_set,
)
from raydiff.selection.space import described, load_space
from raydiff.selection.staged_search import Search, StagedSearch

os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")  # Tune's tables; the phase shows what goes on


def tune(
    model_uri: str,
    table_uri: str,
    result_uri: str,
    work_uri: str,
    size: PseudoValidationSettings,
    test_table_uri: str | None = None,
    space: str | None = None,
    search: Search = "grid",
    trials: int = 8,
    seed: int = 0,
) -> Model:
    """Choose score settings by image AUROC on the pseudo-validation set, and write them into the model folder.

    The search starts from the method's defaults, not from what the model has, so a second tuning chooses the same. A
    calibration that the model has is dropped: it belongs to the settings before.

    Args:
        model_uri: the model folder.
        table_uri: held-out normals.
        result_uri: where the result goes (JSON, all trials).
        work_uri: Ray Tune's own files. They are pickles: keep this place as private as the cluster.
        size: how large the pseudo-validation set is.
        test_table_uri: labelled images, if there are any. They are scored beside each trial, to show how well
            pseudo-validation agrees with them, and take no part in any choice.
        space: a Python file that defines STAGES; tune_spaces/<method>.py by default.
        search: "grid" tries all candidates of a stage, "optuna" samples `trials` of them by TPE.
        seed: for the made anomalies.

    Raises:
        DataError: if there are too few held-out normals to make an anomaly.
        SettingsError: if the search space is not usable.
    """
    model = load(model_uri, "cpu")
    stages = load_space(model.method.name, space)
    with cluster.shown_progress(f"tune {model.method.name}", "images") as board:
        options = cluster.worker_options()
        sets = ray.get(_make_sets.options(**options).remote(model_uri, table_uri, test_table_uri, size, seed, board))
    pseudo = sets[0]
    staged = StagedSearch(stages, model.method.ScoreSettings(), search, trials, seed)
    fs, path = storage.arrow_filesystem(storage.join(work_uri, "ray_tune"))
    with phase(f"tune {model.method.name}", staged.expected, "trials") as shown:
        tuner = ray_tune.Tuner(
            ray_tune.with_resources(
                ray_tune.with_parameters(Trial, model_uri=model_uri, sets=sets),
                {"gpu": 1, "cpu": 1} if cluster.gpus() else {"cpu": 1},
            ),
            tune_config=ray_tune.TuneConfig(reuse_actors=True, num_samples=-1, search_alg=staged),
            run_config=ray_tune.RunConfig(
                name=f"{model.method.name}-{time.strftime('%Y%m%d-%H%M%S')}",
                storage_path=path,
                storage_filesystem=fs,
                verbose=0,
                callbacks=[ShownTrials(shown, staged)],
            ),
        )
        errors = tuner.fit().errors
    if errors or not staged.finished:
        raise ClusterError(f"tuning {model.method.name} failed: {errors[0] if errors else 'a trial was lost'}")
    chosen, results = staged.chosen, staged.results
    model.score_settings = chosen
    model.calibration = None
    model.card["tuning"] = {"search": search, "seed": seed, "pseudo_images": pseudo.counts()}
    model.save_description(model_uri)
    storage.write_json(
        result_uri,
        {
            "method": model.method.name,
            "metric": "image_auroc",
            "model_id": model.id,
            "search": search,
            "pseudo_images": pseudo.counts(),
            "pseudo_auroc": staged.auroc,
            "stages": results,
            "rank_correlation": {stage["name"]: rank_correlation(stage["trials"]) for stage in results},
            "chosen": chosen.model_dump(mode="json"),
        },
    )
    console.print(f"{model.method.name}: chosen {described(chosen.model_dump(mode='json'))}", markup=False)
    return model


def rank_correlation(trials: Sequence[dict[str, Any]]) -> float | None:
    """Spearman's correlation of pseudo-validation and test AUROC over a stage's trials, where it is defined."""
    pairs = [(trial["pseudo_auroc"], trial["test_auroc"]) for trial in trials if trial["test_auroc"] is not None]
    if len(pairs) < 3 or any(len(set(values)) == 1 for values in zip(*pairs, strict=True)):
        return None
    return float(spearmanr(*zip(*pairs, strict=True)).statistic)


@ray.remote(max_retries=2)
def _make_sets(
    model_uri: str, table_uri: str, test_table_uri: str | None, size: PseudoValidationSettings, seed: int, board: Any
) -> tuple[ScoringSet, ScoringSet | None]:
    method = load(model_uri, cluster.use_assigned_device()).method
    image_size: int = method.settings.image_size
    normals: dict[str, np.ndarray] = {}
    rows = _sample(table.read(table_uri), size.normals)
    for category, group in rows.items():
        board.write.remote("making anomalies", len(normals), len(rows))
        images = decode_rows(group, Reading(image_size))
        normals[category] = images["image"][images["error"] == ""]
    board.write.remote("making anomalies", len(rows), len(rows))
    pseudo = pseudo_validation_set(method, normals, size, seed)
    if test_table_uri is None:
        return pseudo, None
    parts = []
    labelled = table.read(test_table_uri)
    for label, most in ((0, size.normals), (1, size.anomalies)):
        chosen = labelled.filter(pc.equal(labelled["label"], label))
        for category, group in _sample(chosen, most).items():
            images = decode_rows(group, Reading(image_size))
            good = images["image"][images["error"] == ""]
            if len(good):
                parts.append((category, good, np.full(len(good), bool(label))))
    return pseudo, scoring_set(method, parts) if parts else None


def _sample(images: pa.Table, most: int) -> dict[str, pa.Table]:
    """At most so many rows of each category, evenly drawn by the hash of the file's name."""
    order = sorted(
        range(images.num_rows),
        key=lambda row: hashlib.sha256(storage.name(images["uri"][row].as_py()).encode()).digest(),
    )
    rows: dict[str, list[int]] = {}
    for row in order:
        rows.setdefault(images["category"][row].as_py(), []).append(row)
    return {category: images.take(found[:most]) for category, found in sorted(rows.items())}


class ShownTrials(ray_tune.Callback):
    """Shows each finished trial in the phase."""

    def __init__(self, shown: Phase, staged: StagedSearch) -> None:
        self._shown, self._staged = shown, staged

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Ray Tune calls it."""
        self._shown.update(self._staged.count, self._staged.note, self._staged.expected)


class Trial(ray_tune.Trainable):
    """One candidate, scored in a worker that keeps the model and the sets between trials."""

    def setup(self, config: dict[str, Any], model_uri: str = "", sets: Any = None) -> None:
        """Load the model once; `sets` are the pseudo-validation set and, or None, the test set."""
        self._method = load(model_uri, cluster.use_assigned_device()).method
        self._pseudo, self._test = sets
        self._score = self._method.ScoreSettings.parse(config["score"])

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take the next candidate without a new process."""
        self._score = self._method.ScoreSettings.parse(new_config["score"])
        return True

    def step(self) -> dict[str, Any]:
        """Score the sets under the candidate's settings."""
        began = time.monotonic()
        scored = self._pseudo.scored(self._method, self._score)
        pseudo = self._pseudo.auroc_by_category(scored.scores)
        test = {}
        if self._test is not None:
            test = self._test.auroc_by_category(self._test.scored(self._method, self._score).scores)
        outcome = {
            "pseudo_auroc": statistics.fmean(pseudo.values()),
            "pseudo_by_category": pseudo,
            "test_auroc": statistics.fmean(test.values()) if test else None,
            "test_by_category": test,
            "normal_details": self._pseudo.normal_details(scored.details),
            "seconds": round(time.monotonic() - began, 3),
        }
        # as one text, because Tune takes nested results apart
        return {"pseudo_auroc": outcome["pseudo_auroc"], "outcome": json.dumps(outcome), "done": True}

    def save_checkpoint(self, checkpoint_dir: str) -> dict[str, Any]:
        """A trial has no state worth keeping."""
        return {}

    def load_checkpoint(self, checkpoint: dict[str, Any] | None) -> None:
        """See save_checkpoint."""
