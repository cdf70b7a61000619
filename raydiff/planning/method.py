"""What one method's part of a run takes, from what its pieces cost; nothing is measured here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from raydiff import cluster
from raydiff.images.shards import ROWS_PER_PART, ROWS_PER_SHARD
from raydiff.methods.base import GradientSettings, TrainSettings
from raydiff.planning.measure import Fitting, Steps, Untrained
from raydiff.planning.pieces import state_bytes
from raydiff.planning.plan import Section, Step, Stored
from raydiff.planning.run_images import RunImages
from raydiff.planning.show import held
from raydiff.planning.timing import Stage, pipelined
from raydiff.planning.tuning import TuningSets, trials_seconds
from raydiff.run_folder import ROLES
from raydiff.scoring.map_place import Maps
from raydiff.training.train import CHECKPOINTS_KEPT

# Processes that the steps of a method wait for, one after the other: examples (decoding, writing), statistics, training
# (controller, workers), tuning (sets, trials), replicas, and the decoding and writing beside them, twice.
STARTS = {"examples": 1, "statistics": 1, "training": 2, "tuning": 2, "scoring": 3}


class Costs(NamedTuple):
    """What a method's pieces cost."""

    untrained: Untrained
    fitting: Fitting
    stepping: Steps | None = None  # of a method that is trained by gradients


class World(NamedTuple):
    """The workers of a training."""

    workers: int
    device: str  # of each, in words
    cpus: int  # of each

    def __str__(self) -> str:
        many = self.workers != 1
        return f"{self.workers} worker{'s' * many} with {self.device}{' each' * many}"


class Resources(NamedTuple):
    """What a cluster works with."""

    cpus: int
    devices: int  # networks that run at the same time
    decoding: float  # parts that are decoded at the same time beside the replicas

    @classmethod
    def of_cluster(cls, replicas: int) -> Resources:
        """Of the cluster that is joined."""
        taken = 0 if cluster.gpus() else cluster.REPLICA_CPU * replicas
        decoding = max(1.0, (cluster.cpus() - taken) / cluster.SHARED_CPU)
        return cls(cluster.cpus(), cluster.devices(), decoding)


def method_section(
    name: str,
    settings: TrainSettings,
    runs: Sequence[RunImages],
    costs: Costs,
    trials: Sequence[int],
    resources: Resources,
    world: World,
    owner: str,
    maps: Maps,
) -> tuple[Section, int]:
    """One method over all runs, and how many processes its steps wait for.

    Args:
        costs: for a run of the mean size.
        trials: of each stage of the tuning.
        owner: the method that computes the examples: this one, or an earlier one that wants the same.
    """
    untrained, fitting, stepping = costs
    total = {role: sum(run.roles[role] for run in runs) for role in ROLES}
    own = owner == name
    starts = STARTS["examples"] * own + STARTS["statistics"] + STARTS["tuning"] + STARTS["scoring"]
    memory = (
        f"memory of the worker for statistics: {held(fitting.memory)}, of a replica: {held(untrained.scoring.memory)}"
    )
    facts = [memory]
    steps = [
        Step("examples", _examples(runs, untrained, resources), f"{total['fit']:,} images")
        if own
        else Step("examples", 0.0, f"those of {owner}"),
        Step("statistics", len(runs) * fitting.seconds, f"{total['fit']:,} images, one worker"),
    ]
    work, checkpoints = untrained.state_bytes, 0
    if stepping and isinstance(settings, GradientSettings):
        facts = [
            f"{world}, batch size {settings.batch_size}, {settings.train_steps:,} steps = {_epochs(settings, runs)}",
            f"memory of a training worker: {held(stepping.memory)} at its peak",
            memory,
        ]
        seconds = len(runs) * settings.train_steps * stepping.step.wall
        steps.append(Step("training", seconds, f"{len(runs) * settings.train_steps:,} steps, {world}"))
        starts += STARTS["training"]
        work += untrained.state_bytes
        checkpoints = min(CHECKPOINTS_KEPT, settings.train_steps) * stepping.checkpoint_bytes
    steps += [_tuning(runs, untrained, trials, resources), _scoring(runs, untrained, resources)]
    images = total["calibrate"] + total["test"]
    files = sum(-(-run.roles[role] // ROWS_PER_SHARD) for run in runs for role in ("calibrate", "test"))
    example = state_bytes(untrained.examples) / len(untrained.examples)
    stored = [
        Stored("examples (work)", own * total["fit"] * example),
        Stored("statistics, trained state (work)", len(runs) * work),
        Stored(f"{CHECKPOINTS_KEPT} checkpoints (work)", len(runs) * checkpoints),
        Stored("model folder", len(runs) * untrained.state_bytes),
        Stored("score tables", files * untrained.scoring.file_bytes + images * untrained.scoring.row_bytes),
        Stored(f"anomaly maps ({maps})", total["test"] * untrained.scoring.map_bytes),
    ]
    return Section(name, facts, steps, [each for each in stored if each.bytes]), len(runs) * starts


def epochs(settings: GradientSettings, images: int) -> float:
    """How often training sees each image."""
    return settings.train_steps * settings.batch_size / images


def _epochs(settings: GradientSettings, runs: Sequence[RunImages]) -> str:
    images = sorted(run.roles["fit"] for run in runs)
    least, most = epochs(settings, images[-1]), epochs(settings, images[0])
    if images[0] == images[-1]:
        return f"{most:.3g} epochs of {images[0]:,} images"
    return f"{least:.3g} to {most:.3g} epochs of {images[-1]:,} to {images[0]:,} images"


def _examples(runs: Sequence[RunImages], untrained: Untrained, resources: Resources) -> float:
    stages = [Stage(untrained.scoring.decode, resources.cpus), Stage(untrained.example, resources.devices)]
    return sum(pipelined(run.roles["fit"], stages, resources.cpus, ROWS_PER_PART) for run in runs)


def _tuning(runs: Sequence[RunImages], untrained: Untrained, trials: Sequence[int], resources: Resources) -> Step:
    sets = TuningSets(*map(sum, zip(*(run.sets for run in runs), strict=True)))
    making = (
        (sets.normals + sets.test) * untrained.scoring.decode.wall
        + sets.made * untrained.making.wall
        + sets.images * untrained.example.wall
    )
    seconds = making + trials_seconds(trials, untrained.trials, sets.images, resources.devices)
    number, images = len(runs) * sum(trials), sets.images / len(runs)
    return Step("tuning", seconds, f"about {number} trials, {resources.devices} at a time, {images:.0f} images each")


def _scoring(runs: Sequence[RunImages], untrained: Untrained, resources: Resources) -> Step:
    scoring = untrained.scoring
    plain = [Stage(scoring.decode, resources.decoding), Stage(scoring.score, resources.devices)]
    mapped = [*plain, Stage(scoring.write, resources.devices + 1)]
    seconds = sum(
        pipelined(run.roles[role], stages, resources.cpus, ROWS_PER_PART)
        for run in runs
        for role, stages in (("calibrate", plain), ("test", mapped))
    )
    images = sum(run.roles[role] for run in runs for role in ("calibrate", "test"))
    return Step("calibrating and scoring", seconds, f"{images:,} images, {resources.devices} replicas")
