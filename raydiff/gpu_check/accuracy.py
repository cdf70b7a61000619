"""How well methods tell defects from normals after minutes of training on given images, in MVTec AD's layout.

Default score settings, nothing tuned, one seed: a number to see that training on this device leads somewhere.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from raydiff import methods
from raydiff.errors import DataError
from raydiff.gpu_check import shapes
from raydiff.gpu_check.parts import Job
from raydiff.gpu_check.results import Row
from raydiff.gpu_check.speed import decoders, opened
from raydiff.images.decode import resize_mask
from raydiff.images.masks import read_mask
from raydiff.images.survey import find_images
from raydiff.methods.base import Method
from raydiff.metrics import aupro, auroc
from raydiff.model.scorer import score_images
from raydiff.training.loop import TrainingLoop
from raydiff.training.store import ExampleStore

TRAINING = {"lafite": 120.0, "diffusion_ad": 180.0}  # seconds
AROUND = 40.0  # seconds of a part's limit that decoding, statistics and scoring take
PILOT_STEPS = 10  # that tell how many fit
PACKAGED = "tf_efficientnet_lite0"


def lafite(job: Job) -> Iterator[Row]:
    """LafitE, U-Net of base 256 on a grid of 16, one model for all categories; nearest_patch on the same features."""
    images = _images(job)
    size, grid = (32, 4) if job.tiny else (256, 16)
    features = {
        "image_size": size,
        "backbone": _backbone(job, grid),
        "bank_size": 50 if job.tiny else 6_000,
        "coreset_pool": 500 if job.tiny else 60_000,
    }
    trained = {
        "network": "unet",
        "unet": {"base_channels": 8, "multipliers": (1, 2), "attention_levels": ()} if job.tiny else {},
        "prediction": "v_prediction",
        "noise_steps": (100, 750),
        "batch_size": 4 if job.tiny else 64,
        "learning_rate": 3e-4,
        "warmup_steps": 50,
        "ema_decay": 0.995,
    }
    yield from _learnt("nearest_patch", features, images, job)
    yield from _learnt("lafite", {**features, **trained}, images, job)


def diffusion_ad(job: Job) -> Iterator[Row]:
    """DiffusionAD, the paper's U-Net at 256 pixels and features to segment by, on the category with most normals."""
    images = _images(job)
    counts = pc.value_counts(images.filter(pc.field("split") == "train")["category"]).to_pylist()
    largest = max(counts, key=lambda each: each["counts"])["values"]
    size, grid = (32, 4) if job.tiny else (256, 32)
    settings = {
        "texture_sources": ("procedural", "self"),
        "anomaly_parts": 3,
        "image_size": size,
        "backbone": _backbone(job, grid),
        "segmentation_channels": 8 if job.tiny else 64,
        "batch_size": 4 if job.tiny else 8,
        "learning_rate": 2e-4,
        "segmentation_learning_rate": 3e-3,
        "warmup_steps": 50,
        "ema_decay": 0.99,
    }
    if job.tiny:
        settings["unet"] = {"base_channels": 8, "multipliers": (1, 2), "attention_levels": ()}
    yield from _learnt("diffusion_ad", settings, images.filter(pc.field("category") == largest), job)


def _images(job: Job) -> pa.Table:
    if not job.data:
        raise DataError("there are no images to train on; give --data a folder in MVTec AD's layout")
    return find_images(job.data)


def _backbone(job: Job, grid: int) -> dict[str, Any]:
    """The first of the given weights, or those of the package, or random ones where a tiny check has none."""
    files = sorted(Path(job.weights).glob("*.safetensors")) if job.weights else []
    if files:
        return {"name": files[0].stem, "weights": str(files[0]), "stages": (2, 3), "grid": grid, "neighbourhood": 1}
    if job.tiny:
        return {"name": "resnet18", "weights": "random", "stages": (1, 2), "grid": grid, "neighbourhood": 1}
    return {"name": PACKAGED, "weights": "package", "stages": (1, 2, 3), "grid": grid, "neighbourhood": 1}


def _learnt(name: str, changes: dict[str, Any], images: pa.Table, job: Job) -> Iterator[Row]:
    """Fit, train for the seconds that there are, score the test images; a row of training and one a category."""
    preset = "small" if name != "diffusion_ad" else "paper"
    steps: dict[str, int] = {"train_steps": PILOT_STEPS} if name in TRAINING else {}
    begun = time.monotonic()
    train = images.filter(pc.field("split") == "train").to_pylist()
    test = images.filter(pc.field("split") == "test").to_pylist()
    size = changes["image_size"]
    pixels = {key: _decoded(rows, size) for key, rows in (("train", train), ("test", test))}
    decoding = time.monotonic() - begun
    begun = time.monotonic()
    method, kept = _fitted(name, preset, {**changes, **steps}, pixels["train"], train, job)
    told: dict[str, Any] = {"images": len(train), "decoding_s": decoding, "statistics_s": time.monotonic() - begun}
    if name in TRAINING:
        told |= _train(name, preset, changes, method, kept, job)
    yield Row(f"{name}: training", told)
    begun = time.monotonic()
    found = score_images(method, pixels["test"], method.ScoreSettings())
    rate = len(test) / (time.monotonic() - begun)
    categories = np.array([row["category"] for row in test])
    labels = np.array([row["label"] for row in test])
    for category in sorted(set(categories)):
        of = np.flatnonzero(categories == category)
        pairs = [(found.maps[at], _mask(test[at], size)) for at in of if not labels[at] or test[at]["mask_uri"]]
        values = {
            "images": len(of),
            "image_auroc": auroc(found.scores[of], labels[of]),
            "aupro": aupro(pairs),
            "images_per_s": rate,
        }
        yield Row(f"{name}: {category}", values)


def _fitted(
    name: str, preset: str, changes: dict[str, Any], pixels: np.ndarray, rows: list[dict[str, Any]], job: Job
) -> tuple[Method, ExampleStore]:
    torch.manual_seed(0)
    method = methods.get(name)(methods.recipe(name, preset, changes)).to(job.device).eval()
    kept = shapes.held(method, pixels, [row["category"] for row in rows])
    method.fit_statistics(kept, 0)
    return method, kept


def _train(
    name: str, preset: str, changes: dict[str, Any], method: Method, kept: ExampleStore, job: Job
) -> dict[str, Any]:
    """Gradient steps for the seconds that there are; a few tell how many fit, so that the rate decays in time."""
    seconds = 1.0 if job.tiny else min(TRAINING[name], max(10.0, job.seconds - AROUND))
    pilot = TrainingLoop(method, kept, seed=0)
    pilot.advance()  # the first loads and tunes
    begun = time.monotonic()
    for _ in range(PILOT_STEPS - 1):
        pilot.advance()
    each = (time.monotonic() - begun) / (PILOT_STEPS - 1)
    steps = max(1, int(seconds / each))
    method.settings = methods.recipe(name, preset, {**changes, "train_steps": steps})
    loop = TrainingLoop(method, kept, seed=1)
    making = _timed_anomalies(method)
    begun, losses = time.monotonic(), []
    while not loop.finished and time.monotonic() - begun < seconds:
        losses.append(loop.advance())
    taken = time.monotonic() - begun
    loop.finish()
    batch = method.settings.batch_size
    return {
        "steps": loop.step,
        "seconds": taken,
        "steps_per_s": loop.step / taken,
        "images_per_s": loop.step * batch / taken,
        "loss": float(np.mean(losses[-20:])),
        "waiting_share": loop.waiting_share(),
        "making_anomalies_share": making[0] / taken if making else None,
    }


def _timed_anomalies(method: Any) -> list[float]:
    """Seconds that making anomalies takes from now on, on the CPU; empty where a method makes none."""
    if not hasattr(method, "with_anomalies"):
        return []
    spent, make = [0.0], method.with_anomalies

    def timed(*given: Any) -> Any:
        begun = time.monotonic()
        made = make(*given)
        spent[0] += time.monotonic() - begun
        return made

    method.with_anomalies = timed
    return spent


def _decoded(rows: list[dict[str, Any]], size: int) -> np.ndarray:
    with decoders() as pool:
        return np.stack(list(pool.map(lambda row: opened(Path(row["uri"]).read_bytes(), size), rows)))


def _mask(row: dict[str, Any], size: int) -> np.ndarray:
    if not row["label"]:
        return np.zeros((size, size), bool)
    return resize_mask(read_mask(row["mask_uri"]), size)
