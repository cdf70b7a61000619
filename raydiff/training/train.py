"""Fitting one method on the cluster: examples, statistics, gradient steps across workers, model folder."""

from __future__ import annotations

import datetime
import importlib.metadata
import inspect
import logging
import os
import platform
import tempfile
import time
from collections import Counter
from typing import Any

import ray
import ray.train
import safetensors.torch
import torch
import torch.distributed
from ray.train import Checkpoint, CheckpointConfig, FailureConfig, LoggingConfig, RunConfig, TrainingFailedError
from ray.train.torch import TorchTrainer
from torch.nn.parallel import DistributedDataParallel

import raydiff
from raydiff import cluster, methods, storage, verbosity
from raydiff.cluster.task_errors import as_ours
from raydiff.cluster.worker_progress import shown_progress
from raydiff.errors import ClusterError, SettingsError
from raydiff.images import table
from raydiff.methods.base import GradientSettings, TrainSettings
from raydiff.model.folder import Model
from raydiff.nn.backbones import RANDOM, UNTRAINED, BackboneSettings
from raydiff.progress import console, duration
from raydiff.training.examples import compute_examples
from raydiff.training.loop import TrainingLoop
from raydiff.training.statistics import MAX_FAILURES, digest, fit_statistics, state_of
from raydiff.training.store import ExampleStore
from raydiff.training.tile import with_tile
from raydiff.training.workers import Workers, planned, scaling

# A worker that reports waits until the controller has looked, by default every 2 s: long in a training of a minute.
os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.5")

CHECKPOINTS = 10  # over a whole training
CHECKPOINTS_KEPT = 2  # of them, the newest
REPORTS = 100  # loss values kept of a training
CHECKPOINT_FILE = "state.pt"
# Buffers (statistics, bank) never change in training; torch 2.15 has renamed the option that leaves them alone.
_RENAMED = "forward_sync_buffers" in inspect.signature(DistributedDataParallel).parameters
LEAVE_BUFFERS: dict[str, Any] = {"forward_sync_buffers" if _RENAMED else "broadcast_buffers": False}


def train(
    method: str,
    settings: TrainSettings,
    table_uri: str,
    model_uri: str,
    work_uri: str,
    workers: Workers | None = None,
    seed: int = 0,
) -> Model:
    """Fit a method on all rows of an image table and write its model folder.

    Killed and run again with the same `work_uri` it goes on from what is finished: examples by part, statistics, the
    last checkpoint.

    Args:
        method: its name.
        settings: its train settings; a tile that they leave to be chosen is chosen here.
        table_uri: normal images, all of them used.
        model_uri: where the model folder goes.
        work_uri: where examples and checkpoints lie; may be deleted afterwards.
        workers: how many train; by default one a GPU, fewer if nodes are lost, or one with a node's CPUs.

    Raises:
        ClusterError: if the cluster cannot hold so many workers.
    """
    began = time.monotonic()
    workers = planned(workers)
    if isinstance(settings, GradientSettings) and settings.batch_size < workers.least:
        raise SettingsError(
            f"batch_size {settings.batch_size} is too small for {workers.least} workers; each needs an image of every "
            "batch"
        )
    rows = table.read(table_uri)
    settings = with_tile(settings, rows)
    backbone: BackboneSettings | None = getattr(settings, "backbone", None)
    if backbone and backbone.weights == RANDOM:
        console.print(f"note: {UNTRAINED}", markup=False)
    examples_uri = compute_examples(method, settings, table_uri, work_uri)
    run_uri = storage.join(work_uri, method)
    fitted_uri = fit_statistics(method, settings, examples_uri, run_uri, seed)
    record: dict[str, Any] = {"loss_curve": []}
    if isinstance(settings, GradientSettings):
        named = f"{digest(settings, examples_uri, seed)}-{workers}"
        trained_uri = storage.join(run_uri, f"trained-{named}.safetensors")
        if not storage.exists(trained_uri):
            checkpoints_uri = storage.join(run_uri, "checkpoints")
            given = settings, examples_uri, fitted_uri, trained_uri
            fit_gradients(method, *given, checkpoints_uri, f"train-{named}", workers, seed)
        fitted_uri = trained_uri
        record = storage.read_json(_record_uri(trained_uri))
        record["loss_curve"] = [(step, loss) for step, loss in record["loss_curve"]]

    kind = methods.get(method)
    fitted = kind.untrained(settings)
    fitted.load_trained(safetensors.torch.load(storage.read_bytes(fitted_uri)))
    card: dict[str, Any] = {
        "trained": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "seed": seed,
        "training_minutes": round((time.monotonic() - began) / 60, 2),
        "training_images": dict(sorted(Counter(rows["category"].to_pylist()).items())),
        "unreadable_images": len(ExampleStore(examples_uri).errors),
        "device": "cuda" if cluster.gpus() else "cpu",
        "versions": {"raydiff": raydiff.__version__}
        | {name: importlib.metadata.version(name) for name in ("torch", "timm", "diffusers", "ray")},
        "python": platform.python_version(),
    }
    card |= record | fitted.about()
    model = Model(fitted, kind.ScoreSettings(), None, card)
    model.save(model_uri)
    console.print(f"{method}: trained in {duration(time.monotonic() - began)}, {model_uri}", markup=False)
    return model


def fit_gradients(
    method: str,
    settings: TrainSettings,
    examples_uri: str,
    statistics_uri: str,
    trained_uri: str,
    checkpoints_uri: str,
    name: str,
    workers: Workers,
    seed: int,
) -> None:
    """Gradient steps from the statistics on; what is trained is written last, beside its record.

    Weights that stand beside the statistics are gone on from.

    Raises:
        ClusterError: if the training failed.
    """
    fs, path = storage.arrow_filesystem(checkpoints_uri)
    with shown_progress(method, "steps") as board:
        trainer = TorchTrainer(
            _train_worker,
            train_loop_config={
                "method": method,
                "settings": settings,
                "examples_uri": examples_uri,
                "statistics_uri": statistics_uri,
                "trained_uri": trained_uri,
                "seed": seed,
                "board": board,
                "level": verbosity.level(),
            },
            scaling_config=scaling(workers),
            run_config=RunConfig(
                name=name,
                storage_path=path,
                storage_filesystem=fs,
                failure_config=FailureConfig(max_failures=MAX_FAILURES),
                checkpoint_config=CheckpointConfig(num_to_keep=CHECKPOINTS_KEPT),
                logging_config=LoggingConfig(log_level=verbosity.level()),  # type: ignore[call-arg]  # of Train v2
            ),
        )
        try:
            with as_ours():
                trainer.fit()
        except TrainingFailedError as error:
            raise ClusterError(f"{method}: training failed: {error}") from error


def _train_worker(config: dict[str, Any]) -> None:
    """One of the workers of a training; Ray Train starts it, again after a failure."""
    logging.getLogger().setLevel(config["level"])  # Ray Train remarks on each checkpoint, some of it as nobody's logger
    context = ray.train.get_context()
    rank, world = context.get_world_rank(), context.get_world_size()
    cluster.use_assigned_device()
    settings = config["settings"]
    torch.manual_seed(config["seed"])
    method = methods.get(config["method"]).untrained(settings)
    method.load_trained(safetensors.torch.load(storage.read_bytes(config["statistics_uri"])))
    device = ray.train.torch.get_device()
    method.to(device)
    if device.type == "cuda":
        method.to(memory_format=torch.channels_last)
    wrapped = DistributedDataParallel(method, **LEAVE_BUFFERS) if world > 1 else None
    loop = TrainingLoop(method, ExampleStore(config["examples_uri"], rank, world), config["seed"], rank, world, wrapped)
    curve: list[list[float]] = []
    checkpoint = ray.train.get_checkpoint()
    if checkpoint is not None:
        with checkpoint.as_directory() as folder:
            state = torch.load(os.path.join(folder, CHECKPOINT_FILE), weights_only=True, map_location=device)
        loop.load_state(state["loop"])
        curve = state["curve"]
    every = max(1, settings.train_steps // REPORTS)
    saves = max(1, settings.train_steps // CHECKPOINTS)
    losses: list[float] = []
    while not loop.finished:
        losses.append(loop.advance())
        if loop.step % every == 0 or loop.finished:
            loss = _mean_over_workers(sum(losses) / len(losses), world, device)
            losses.clear()
            curve.append([loop.step, loss])
            if rank == 0:
                config["board"].write("training", loop.step, settings.train_steps, f"loss {loss:.4f}")
        if loop.step % saves == 0 or loop.finished:
            _report(loop, curve, rank)
    if rank == 0:
        record = {"workers": world, "seconds_a_step": loop.seconds_a_step(), "waiting_for_data": loop.waiting_share()}
        storage.write_json(_record_uri(config["trained_uri"]), {"loss_curve": curve, **record})
        storage.write_bytes(config["trained_uri"], safetensors.torch.save(state_of(loop.finish())))


def _record_uri(trained_uri: str) -> str:
    """Where it is said how a training went: beside what it trained."""
    return f"{trained_uri}.json"


def _report(loop: TrainingLoop, curve: list[list[float]], rank: int) -> None:
    """Report to Ray Train, with a checkpoint from rank 0; all workers meet here."""
    metrics = {"step": loop.step, "loss": curve[-1][1] if curve else None}
    if rank != 0:
        ray.train.report(metrics)
        return
    with tempfile.TemporaryDirectory() as folder:
        torch.save({"loop": loop.state(), "curve": curve}, os.path.join(folder, CHECKPOINT_FILE))
        ray.train.report(metrics, checkpoint=Checkpoint.from_directory(folder))


def _mean_over_workers(value: float, world: int, device: torch.device) -> float:
    if world == 1:
        return value
    total = torch.tensor(value, device=device)
    torch.distributed.all_reduce(total)
    return float(total) / world
