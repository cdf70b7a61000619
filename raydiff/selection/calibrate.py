"""Calibrating a model: score the held-out normals as the archive will be scored, and set the thresholds."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from ray.serve.handle import DeploymentHandle

from raydiff.model import Model, load
from raydiff.progress import console
from raydiff.scoring import table as score_table_file
from raydiff.scoring.bulk import score_table
from raydiff.selection.calibration import Calibration, check_rate

DEFAULT_RATE = 0.01


def calibrate(
    handle: DeploymentHandle,
    model_uri: str,
    table_uri: str,
    scores_uri: str,
    rate: float = DEFAULT_RATE,
    shared_with_tuning: Sequence[str] = (),
) -> Model:
    """Set the alarm thresholds of the model folder at `model_uri` from held-out normal images.

    Args:
        handle: of a deployment of the model.
        table_uri: normals that took no part in training.
        scores_uri: where their score table goes.
        rate: the wanted false-alarm rate.
        shared_with_tuning: categories whose images tuning has seen too.

    Raises:
        SettingsError: if the rate is not above 0 and below 1.
        DataError: if no normal image could be scored.
    """
    check_rate(rate)
    score_table(handle, model_uri, table_uri, scores_uri, calibrated=False)
    scores: dict[str, list[float]] = defaultdict(list)
    for part in score_table_file.read_parts(scores_uri):
        for category, score in zip(part["category"].to_pylist(), part["score"].to_pylist(), strict=True):
            if score is not None:
                scores[category].append(score)
    model = load(model_uri, "cpu")
    model.calibration = Calibration.fit(scores, rate, shared_with_tuning)
    model.save_description(model_uri)
    for sentence in model.calibration.sentences():
        console.print(f"calibration: {sentence}", markup=False)
    return model
