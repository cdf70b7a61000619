"""Tuning a model's score settings on made anomalies, with Ray Tune. The trained network and its examples are shared.

Results are JSON. Ray Tune itself leaves pickles under work/ray_tune: who can write there could run code in whoever
loads them, so keep work/ as private as the cluster. Nothing here reads them, not even to go on after a killed driver
(see journal.py), and they may be deleted.
"""

from __future__ import annotations

import math
import os
import time
from typing import Any

from ray import tune as ray_tune

import raydiff
from raydiff import cluster, storage
from raydiff.cluster.task_errors import as_ours, ours
from raydiff.cluster.worker_progress import shown_progress
from raydiff.errors import ClusterError
from raydiff.model.description import describe
from raydiff.model.folder import Model, load
from raydiff.progress import Phase, console, phase
from raydiff.selection.criterion import METRIC
from raydiff.selection.early_stopping import StagedASHA, StagedFIFO
from raydiff.selection.journal import Journal
from raydiff.selection.normal_maps import position_statistics
from raydiff.selection.pseudo_validation import PseudoValidationSettings, ScoringSet
from raydiff.selection.scoring_sets import make_sets
from raydiff.selection.search_settings import SearchSettings
from raydiff.selection.space import described, load_space
from raydiff.selection.staged_search import StagedSearch
from raydiff.selection.trial import Trial
from raydiff.selection.trials import SCORES, oracle_price, rank_correlation

os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")  # Tune's tables; the phase shows what goes on

ASKED_AHEAD = 200  # trials; as many as Ray Tune's own grid search asks for
RAY_UNITS = 10_000  # parts of a CPU or GPU that Ray counts in; it rounds to them


def tune(
    model_uri: str,
    table_uri: str,
    result_uri: str,
    work_uri: str,
    size: PseudoValidationSettings,
    search: SearchSettings,
    test_table_uri: str | None = None,
    space: str | None = None,
) -> Model:
    """Choose score settings by the pseudo-validation set (see criterion.py), and write them into the model folder.

    The search starts from the method's defaults, not from what the model has, so a second tuning chooses the same. A
    calibration that the model has is dropped: it belongs to the settings before. Trials that an earlier run finished,
    whole or killed, are taken from its journal (on the same images, weights and sizes, with the same raydiff).

    Args:
        model_uri: the model folder.
        table_uri: held-out normals.
        result_uri: where the result goes (JSON, all trials).
        work_uri: for the journal, and Ray Tune's own files: they are pickles, keep this place as private as the
            cluster.
        size: how large the pseudo-validation set is.
        search: how the space is gone through.
        test_table_uri: labelled images, if there are any. They are scored beside each trial that gets to the end, to
            show how well pseudo-validation agrees with them, and take no part in any choice.
        space: a Python file that defines STAGES; tune_spaces/<method>.py by default.

    Raises:
        DataError: if there are too few held-out normals to make an anomaly.
        SettingsError: if the search space is not usable.
        ClusterError: if a trial failed.
        StorageError: if a finished trial's result cannot be kept.
    """
    model = load(model_uri, "cpu")
    name = model.method.name
    stages = load_space(name, space)
    with shown_progress(f"tune {name}", "images") as board:
        task = make_sets.options(**cluster.worker_options())
        sets = cluster.result(task.remote(model_uri, table_uri, test_table_uri, size, search.seed, board))
    pseudo = sets[0]
    journal = Journal(storage.join(work_uri, "trials"), _depends(model_uri, sets))
    asha = StagedASHA() if search.scheduler == "asha" else None
    scheduler = asha or StagedFIFO()
    start = model.method.ScoreSettings()
    staged = StagedSearch(stages, start, search.search, search.trials, search.seed, journal, asha)
    fs, path = storage.arrow_filesystem(storage.join(work_uri, "ray_tune"))
    resources = trial_resources(search.trials_per_gpu)
    with phase(f"tune {name}", staged.expected, "trials") as shown:
        tuner = ray_tune.Tuner(
            ray_tune.with_resources(
                ray_tune.with_parameters(Trial, model_uri=model_uri, sets=sets, shares=scheduler.shares),
                resources,
            ),
            tune_config=ray_tune.TuneConfig(
                reuse_actors=True,
                num_samples=-1,
                search_alg=staged,
                scheduler=scheduler,
                # Otherwise one trial at a time waits for its worker, and the autoscaler brings one worker at a time.
                # Optuna is not asked before it must be: it proposes from what it knows.
                max_concurrent_trials=ASKED_AHEAD if search.search == "grid" else None,
            ),
            run_config=ray_tune.RunConfig(
                name=f"{name}-{time.strftime('%Y%m%d-%H%M%S')}",
                storage_path=path,
                storage_filesystem=fs,
                verbose=0,
                callbacks=[ShownTrials(shown, staged)],
            ),
        )
        with as_ours():
            errors = tuner.fit().errors
        shown.update(staged.count, staged.note, staged.expected)
    if staged.error:
        raise staged.error
    if errors and (found := ours(errors[0])):
        raise found
    if errors or not staged.finished:
        raise ClusterError(f"tuning {name} failed: {errors[0] if errors else 'a trial was lost'}")
    if staged.taken:
        console.print(f"{name}: {staged.taken} of the trials were taken from an earlier run", markup=False)
    chosen, results = staged.chosen, staged.results
    model.score_settings = chosen
    published = model.method.as_published
    model.positions = None if published else position_statistics(model_uri, chosen, table_uri, name)
    model.calibration = None
    model.card.pop("budget", None)  # which the calibration was of
    how = search.model_dump(mode="json", include={"search", "scheduler", "seed"})
    model.card["tuning"] = how | {"pseudo_images": pseudo.counts()}
    model.save_description(model_uri)
    storage.write_json(
        result_uri,
        {
            "method": name,
            "metric": METRIC,
            "model_id": model.id,
            **how,
            "pseudo_images": pseudo.counts(),
            "saw_made_anomalies": model.method.saw_made_anomalies,
            **{name: staged.found[name] for name in SCORES},
            "oracle_price": oracle_price(results, staged.found),
            "stages": results,
            "rank_correlation": {stage["name"]: rank_correlation(stage["trials"]) for stage in results},
            "chosen": chosen.model_dump(mode="json"),
        },
    )
    console.print(f"{name}: chosen {described(chosen.model_dump(mode='json'))}", markup=False)
    return model


def trial_resources(trials_per_gpu: int) -> dict[str, float]:
    """What one trial asks of Ray: its share of a GPU, and of a CPU, or a CPU where there is no GPU.

    So many trials together ask for one GPU and one CPU, as a lone one does: they fit wherever that fits. The shares are
    rounded down to Ray's units; a sixth, rounded to the nearest, would not go six times into a GPU.
    """
    if cluster.gpus():
        share = math.floor(RAY_UNITS / trials_per_gpu) / RAY_UNITS
        return {"gpu": share, "cpu": share}
    if trials_per_gpu > 1:
        console.print(f"the cluster has no GPU for {trials_per_gpu} trials to share: each takes a CPU")
    return {"cpu": 1}


def _depends(model_uri: str, sets: tuple[ScoringSet, ScoringSet | None]) -> dict[str, Any]:
    """All that a trial's result depends on beside its settings."""
    model = describe(model_uri)
    return {
        "raydiff": raydiff.__version__,
        "method": model["method"],
        "train": model["settings"]["train"],
        "weights": model["weights_sha256"],
        "pseudo": sets[0].digest(),
        "test": sets[1].digest() if sets[1] else None,
        "device": "gpu" if cluster.gpus() else "cpu",
    }


class ShownTrials(ray_tune.Callback):
    """Shows each finished trial in the phase."""

    def __init__(self, shown: Phase, staged: StagedSearch) -> None:
        self._shown, self._staged = shown, staged

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Ray Tune calls it."""
        self._shown.update(self._staged.count, self._staged.note, self._staged.expected)
