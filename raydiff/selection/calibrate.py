"""Calibrating a model: score the held-out normals as the archive will be scored, and set the thresholds.

A threshold that nothing exceeds keeps every promise about false alarms. So anomalies made of those normals are scored,
too, and it is said how many of them raise an alarm; they decide nothing.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pyarrow as pa
import ray

from raydiff import cluster
from raydiff.images import table
from raydiff.images.stream import Reading, decode_rows
from raydiff.model.calibration import Calibration
from raydiff.model.folder import Model, load
from raydiff.model.rate import DEFAULT_RATE, check_rate
from raydiff.model.scored import Scored
from raydiff.progress import console
from raydiff.scoring import table as score_table_file
from raydiff.selection.pseudo_validation import PseudoValidationSettings, made_of
from raydiff.selection.sample import sample
from raydiff.views.region import regions

if TYPE_CHECKING:
    from ray.serve.handle import DeploymentHandle

SEED = 1  # of the made anomalies: others than tuning's, where it saw the same images
FEW = 0.05  # of the made anomalies; so small a share that hardly any defect will raise an alarm


class MadeAlarms(NamedTuple):
    """How many anomalies were made of a category's calibration images, and how many of them raised an alarm."""

    made: int
    alarms: int


def calibrate(
    handle: DeploymentHandle,
    model_uri: str,
    table_uri: str,
    scores_uri: str,
    rate: float = DEFAULT_RATE,
    shared_with_tuning: Sequence[str] = (),
    size: PseudoValidationSettings | None = None,
) -> Model:
    """Set the alarm thresholds of the model folder at `model_uri` from held-out normal images.

    Args:
        handle: of a deployment of the model.
        table_uri: normals that took no part in training.
        scores_uri: where their score table goes.
        rate: the wanted false-alarm rate.
        shared_with_tuning: categories whose images tuning has seen too.
        size: how many anomalies are made of a category's images, and of how many.

    Raises:
        SettingsError: if the rate is not above 0 and below 1.
        DataError: if no normal image could be scored.
    """
    from raydiff.scoring.bulk import score_table  # here, because the worker that makes anomalies need load no Serve

    check_rate(rate)
    score_table(handle, model_uri, table_uri, scores_uri, calibrated=False)
    scores: dict[str, list[float]] = defaultdict(list)
    for part in score_table_file.read_parts(scores_uri):
        for category, score in zip(part["category"].to_pylist(), part["score"].to_pylist(), strict=True):
            if score is not None:
                scores[category].append(score)
    model = load(model_uri, "cpu")
    model.calibration = Calibration.fit(scores, rate, shared_with_tuning)
    model.card.pop("budget", None)  # whose thresholds these are not
    found = _made_anomalies(handle, model, table_uri, size or PseudoValidationSettings())
    model.card["made_anomalies"] = {category: counts._asdict() for category, counts in found.items()}
    model.save_description(model_uri)
    for sentence in model.calibration.sentences():
        console.print(f"calibration: {sentence}", markup=False)
    for category, counts in found.items():
        said = f"calibration: {category}: {counts.alarms} of {counts.made} made anomalies raise an alarm"
        console.print(said, markup=False)
        if warning := hardly_any(category, counts, rate):
            console.print(f"calibration: {warning}", style="bold", markup=False)
    return model


def _made_anomalies(
    handle: DeploymentHandle, model: Model, table_uri: str, size: PseudoValidationSettings
) -> dict[str, MadeAlarms]:
    """Anomalies made of the calibration images, scored as the archive will be; categories with two images or more.

    Where images are cut into tiles, in a region of each, which raises an alarm only if the whole image does.
    """
    assert model.calibration is not None
    found = {}
    reading = Reading.of(model.method.settings)
    for number, (category, rows) in enumerate(sample(table.read(table_uri), size.normals).items()):
        made = cluster.result(_make.remote(rows, reading, size, SEED + number))
        if not len(made):
            continue
        scored: Scored = handle.score.remote(made, [category] * len(made), False).result()
        threshold = model.calibration.of(category).threshold
        found[category] = MadeAlarms(len(made), int((scored.scores > threshold).sum()))
    return found


@ray.remote(num_cpus=0, max_retries=2)  # the replicas hold all CPUs, and wait meanwhile
def _make(rows: pa.Table, reading: Reading, size: PseudoValidationSettings, seed: int) -> np.ndarray:
    decoded = decode_rows(rows, reading)
    images = decoded["image"][decoded["error"] == ""]
    return made_of(regions(images, reading.view, reading.size, seed), size, seed).images


def hardly_any(category: str, counts: MadeAlarms, rate: float) -> str:
    """What is to be said of a category whose made anomalies raise next to no alarm; empty where they do."""
    if counts.alarms > FEW * counts.made:
        return ""
    return (
        f"{category}: next to no made anomaly raises an alarm, so expect next to no defect to do so; give more normal "
        f"images, a higher --false-alarm-rate (it is {rate:.2%}) or another backbone or method"
    )
