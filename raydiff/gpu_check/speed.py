"""How fast networks and methods run: what all speed parts share, and the backbone with decoding.

Rates are images/s at the fastest batch of some. A share of peak is of the device's own rate for a large bf16 product of
matrices, measured in the same process. Networks have random weights, which cost what trained ones cost.
"""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from raydiff.gpu_check import shapes
from raydiff.gpu_check.device import Best, best_batch, operations, peak, seconds_a_call
from raydiff.gpu_check.parts import Job
from raydiff.gpu_check.results import Row
from raydiff.images.decode import decode, resize
from raydiff.methods.base import Method, ScoreSettings
from raydiff.model.scorer import CHUNK, image_key, score_examples, score_images
from raydiff.nn.backbones import Backbone, BackboneSettings

Call = Callable[[], object]
FILES = 256  # image files that decoding is measured on


def backbone(job: Job) -> Iterator[Row]:
    """EfficientNet-b4's features of 256-pixel images on a grid of 16, as methods compute them and in bfloat16."""
    size, name = (64, "resnet18") if job.tiny else (256, "efficientnet_b4")
    stages = (1, 2) if job.tiny else (0, 1, 2, 3)
    settings = BackboneSettings(name=name, weights="random", stages=stages, grid=size // 16)
    network = Backbone(settings).to(job.device)
    batches = (1, 2) if job.tiny else (32, 128, 512)
    images = torch.from_numpy(shapes.waves(batches[-1], size)).to(job.device)
    gflop = network_operations(lambda: network(images[:1]), job)
    top = peak(job)
    for what, low in ((f"{name} {size} px, as methods compute it", False), (f"{name} {size} px, bf16", True)):

        def of_batch(batch: int, low: bool = low) -> Call:
            return lambda: _features(network, images[:batch], low, job.device)

        yield rate_row(what, best_batch(of_batch, batches, job), gflop=gflop, top=top)
    files = image_files(job, size)
    with decoders() as pool:
        rate = len(files) / seconds_a_call(lambda: list(pool.map(lambda data: opened(data, size), files)), job)
        yield Row(f"decoding to {size} px", {"images_per_s": rate, "threads": os.cpu_count()})


@torch.inference_mode()
def _features(network: Backbone, images: Tensor, low: bool, device: str) -> Tensor:
    with torch.autocast(device, torch.bfloat16, enabled=low):
        features: Tensor = network(images)
    return features


def network_operations(call: Call, job: Job) -> float:
    """GFLOP of a call, counted in bfloat16."""
    with torch.no_grad(), torch.autocast(job.device, torch.bfloat16):
        return operations(call) / 1e9


def rate_row(
    what: str,
    best: Best,
    gflop: float | None = None,
    top: float | None = None,
    goal: float | None = None,
    goal_share: float | None = None,
) -> Row:
    """A rate, with what is asked of it.

    Args:
        gflop: of an image, where one network is timed.
        top: operations/s that shares are of.
        goal: images/s.
        goal_share: of `top`.
    """
    share = None if gflop is None or not top else best.rate * gflop * 1e9 / top
    values = {
        "batch": best.batch,
        "images_per_s": best.rate,
        "goal": goal,
        "gflop_per_image": gflop,
        "share_of_peak": share,
        "goal_share": goal_share,
        "memory_gib": best.memory,
    }
    passed = None if goal is None else best.rate >= goal
    if goal_share is not None and share is not None:
        passed = passed is not False and share >= goal_share
    return Row(what, values, passed)


def network_row(
    what: str,
    network: nn.Module,
    shape: Sequence[int],
    step: int,
    batches: Sequence[int],
    job: Job,
    top: float,
    goal_share: float | None = None,
) -> Row:
    """One call of a denoising network on inputs of a shape (C, h, w) at a step, in bfloat16."""
    inputs = torch.randn(batches[-1], *shape, device=job.device)
    t = torch.full((batches[-1],), step, device=job.device)

    @torch.inference_mode()
    def call(batch: int) -> object:
        with torch.autocast(job.device, torch.bfloat16):
            return network(inputs[:batch], t[:batch])

    gflop = network_operations(lambda: network(inputs[:1], t[:1]), job)
    best = best_batch(lambda batch: lambda: call(batch), batches, job)
    return rate_row(what, best, gflop=gflop, top=top, goal_share=goal_share)


def method_rows(
    what: str,
    method: Method,
    drawn_in: str,
    batches: Sequence[int],
    job: Job,
    goal: float | None = None,
    score: ScoreSettings | None = None,
    whole: bool = True,
) -> Iterator[Row]:
    """A method's maps and scores: with noise that lies ready, as they are, and from pixels and files on.

    Args:
        method: on the device, fitted.
        drawn_in: the module whose `keyed_noise` draws the noise.
        goal: images/s of the first row.
        score: its score settings; by default its own.
        whole: also the rows from pixels and from files on.
    """
    score = score or shapes.score_settings(method, job.tiny)
    size = method.settings.image_size
    images = shapes.waves(min(batches[-1], 4 * CHUNK[job.device]), size)
    examples = torch.cat([method.example(torch.from_numpy(images[:8])).cpu()] * (batches[-1] // 8 + 1))
    there = examples[: batches[-1]].to(job.device)
    keys = [str(number) for number in range(batches[-1])]

    def of_batch(batch: int) -> Call:
        return lambda: method.scores(method.maps(there[:batch], keys[:batch], score).maps, score)

    with noise_ready(drawn_in, job):
        yield rate_row(f"{what}: model only, noise ready", best_batch(of_batch, batches, job), goal=goal)
    batch = min(batches[-1], 1 if job.tiny else 4 * CHUNK[job.device])
    if not whole:
        return
    names = [image_key(image) for image in images[:batch]]
    calls: dict[str, Call] = {
        "from examples, as scored": lambda: score_examples(method, examples[:batch], names, score),
        "from pixels, as scored": lambda: score_images(method, images[:batch], score),
    }
    for suffix, call in calls.items():
        rate = batch / seconds_a_call(call, job)
        yield Row(f"{what}: {suffix}", {"batch": CHUNK[job.device], "images_per_s": rate})
    files = image_files(job, size)[:batch]
    with decoders() as pool:
        rate = len(files) / seconds_a_call(lambda: _from_files(method, files, score, pool, job), job)
    yield Row(f"{what}: from files, as scored", {"batch": CHUNK[job.device], "images_per_s": rate})


def _from_files(
    method: Method, files: Sequence[bytes], score: ScoreSettings, pool: ThreadPoolExecutor, job: Job
) -> None:
    """Decode ahead in threads, score in chunks."""
    size, chunk = method.settings.image_size, CHUNK[job.device]
    coming = pool.map(lambda data: opened(data, size), files)
    for start in range(0, len(files), chunk):
        images = np.stack([next(coming) for _ in files[start : start + chunk]])
        score_images(method, images, score)


@contextlib.contextmanager
def noise_ready(module: str, job: Job) -> Iterator[None]:
    """Noise that is not drawn anew for each image on the CPU, as scoring does it, but taken from one store."""
    kept: dict[tuple[int, ...], Tensor] = {}

    def ready(keys: Sequence[str], shape: Sequence[int], seed: int, device: torch.device) -> Tensor:
        whole = (len(keys), *shape)
        if whole not in kept:
            kept[whole] = torch.randn(whole, device=device)
        return kept[whole]

    with mock.patch(f"{module}.keyed_noise", ready):
        yield


def image_files(job: Job, size: int) -> list[bytes]:
    """Bytes of image files: those of the given data, or JPEGs of made images twice as large as asked for."""
    count = 4 if job.tiny else FILES
    if job.data:
        paths = sorted(Path(job.data).glob("*/test/*/*"))
        if paths:
            return [paths[number % len(paths)].read_bytes() for number in range(count)]
    found = []
    for image in shapes.waves(min(count, 16), 2 * size):
        file = io.BytesIO()
        Image.fromarray(image).save(file, "JPEG", quality=95)
        found.append(file.getvalue())
    return [found[number % len(found)] for number in range(count)]


def opened(data: bytes, size: int) -> np.ndarray:
    """A file's image at the model's size."""
    return resize(decode(data), size)


def decoders() -> ThreadPoolExecutor:
    """A thread a processor."""
    return ThreadPoolExecutor(os.cpu_count() or 1)
