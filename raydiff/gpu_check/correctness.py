"""Whether a device computes what the CPU computes: every method, small and with random weights.

Differences are the largest absolute one over the largest absolute value. Float32 is compared without TF32.
"""

from __future__ import annotations

import contextlib
import copy
import os
import tempfile
import time
from collections.abc import Iterator
from unittest import mock

import numpy as np
import torch
import torch.distributed
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

import raydiff
from raydiff import methods
from raydiff.gpu_check import shapes
from raydiff.gpu_check.parts import Job
from raydiff.gpu_check.results import Row
from raydiff.methods.base import GradientSettings, Method, ScoreSettings
from raydiff.model.folder import Model
from raydiff.model.scored import Scored
from raydiff.model.scorer import examples_of, image_key, score_examples, score_images
from raydiff.training.loop import TrainingLoop

FLOAT32, BFLOAT16 = 1e-4, 2e-2  # largest difference allowed
HALF = 1e-3  # of examples, which are kept in float16: a unit in their last place
GRADIENT = 1e-3  # of a gradient as a whole, in float32
STEPS = 3  # of training, where two loops are compared


@contextlib.contextmanager
def computing(bfloat16: bool = False) -> Iterator[None]:
    """Networks run in bfloat16 or in true float32, whatever the device and the settings would have."""

    def autocast(method: Method) -> torch.autocast:
        return torch.autocast(method.device.type, torch.bfloat16, enabled=bfloat16)

    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    try:
        with mock.patch.object(Method, "autocast", autocast):
            yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


def apart(found: Tensor | np.ndarray, wanted: Tensor | np.ndarray) -> float:
    """The largest difference of two arrays of one shape, over the largest value of the second; NaN counts as 1e9."""
    one, other = (torch.as_tensor(each).detach().cpu().double() for each in (found, wanted))
    return float(((one - other).abs().max() / other.abs().max().clamp_min(1e-12)).nan_to_num(1e9))


def _row(what: str, difference: float, allowed: float, **more: object) -> Row:
    return Row(what, {"difference": difference, "allowed": allowed, **more}, difference <= allowed)


def methods_agree(job: Job) -> Iterator[Row]:
    """Every method on the device and on the CPU: examples, loss, scores, batches, a model saved there and read here."""
    for name in methods.names():
        here, kept = shapes.small_method(name, job.tiny)
        there = copy.deepcopy(here).to(job.device)
        score = shapes.score_settings(here, job.tiny)
        images = shapes.waves(5, here.settings.image_size, seed=1)
        images = np.concatenate([images, shapes.with_squares(images)])
        with computing():
            yield _row(f"{name}: examples", apart(examples_of(there, images), examples_of(here, images)), HALF)
            if isinstance(here.settings, GradientSettings):
                yield from _losses(name, here, there, kept.take(list(range(4))))
        yield from _scores(name, here, there, images, score)
        with computing():
            yield from _batches(name, there, images, score)
            yield _saved(name, there, images, score)


def _losses(name: str, here: Method, there: Method, examples: Tensor) -> Iterator[Row]:
    (wanted, wanted_gradient), (found, gradient) = (_loss(method, examples) for method in (here, there))
    yield _row(f"{name}: loss, float32", apart(found, wanted), FLOAT32)
    distance = float((gradient - wanted_gradient).norm() / wanted_gradient.norm())
    yield _row(f"{name}: gradient, float32", distance, GRADIENT)
    with computing(bfloat16=True):
        yield _row(f"{name}: loss, bf16", apart(_loss(there, examples)[0], wanted), BFLOAT16)


def _loss(method: Method, examples: Tensor) -> tuple[Tensor, Tensor]:
    """The loss of a batch and its gradient, all parameters' in one vector."""
    assert method.trained is not None
    loss = method(examples, torch.Generator().manual_seed(0))
    parameters = [each for each in method.trained.parameters() if each.requires_grad]
    gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
    return loss.detach().cpu(), torch.cat([each.flatten().cpu() for each in gradients if each is not None])


def _scores(name: str, here: Method, there: Method, images: np.ndarray, score: ScoreSettings) -> Iterator[Row]:
    examples, keys = examples_of(here, images), [image_key(image) for image in images]

    def scored(method: Method) -> Scored:
        return score_examples(method, examples, keys, score)

    with computing():
        wanted, found = scored(here), scored(there)
        yield _row(f"{name}: scores, float32", apart(found.scores, wanted.scores), FLOAT32)
        yield _row(f"{name}: maps, float32", apart(found.maps, wanted.maps), FLOAT32)
    with computing(bfloat16=True):
        yield _row(f"{name}: scores, bf16", apart(scored(there).scores, wanted.scores), BFLOAT16)


def _batches(name: str, method: Method, images: np.ndarray, score: ScoreSettings) -> Iterator[Row]:
    """Scores to the bit the same when asked again, in another order and alone."""
    together = score_images(method, images, score)
    again = score_images(method, images, score)
    yield _row(f"{name}: scored again", apart(again.maps, together.maps), 0.0)
    worst = 0.0
    for order in ([8, 2, 5, 0, 1, 3, 4, 6, 7], [4], [7, 4]):
        found = score_images(method, images[order], score)
        worst = max(worst, apart(found.scores, together.scores[order]), apart(found.maps, together.maps[order]))
    yield _row(f"{name}: in other batches", worst, 0.0)


def _saved(name: str, method: Method, images: np.ndarray, score: ScoreSettings) -> Row:
    with tempfile.TemporaryDirectory() as folder:
        model = Model(method, score)
        model.save(folder)
        loaded = raydiff.load(folder, "cpu")
    difference = apart(loaded.score(list(images)).scores, model.score(list(images)).scores)
    # features are made anew on the other side, and kept in float16
    row = _row(f"{name}: saved here, loaded on the CPU", difference, HALF, same_id=loaded.id == model.id)
    return row._replace(passed=bool(row.passed) and loaded.id == model.id)


def networks(method: Method) -> Iterator[nn.Module]:
    """What a method calls: denoising, segmenting, encoding and frozen networks."""
    for child in method.children():
        for network in child if isinstance(child, nn.ModuleList) else [child]:
            if any(True for _ in network.parameters()):
                yield network


def channels_last(job: Job) -> Iterator[Row]:
    """Every method with its networks' weights stored channels last, on the device, against as they are."""
    for name in methods.names():
        method, _ = shapes.small_method(name, job.tiny)
        plain = method.to(job.device)
        turned = copy.deepcopy(plain)
        for network in networks(turned):
            network.to(memory_format=torch.channels_last)
        score = shapes.score_settings(plain, job.tiny)
        images = shapes.waves(5, plain.settings.image_size, seed=1)
        for bfloat16, allowed in ((False, HALF), (True, BFLOAT16)):
            with computing(bfloat16):
                wanted, found = (score_images(each, images, score).scores for each in (plain, turned))
            yield _row(f"{name}: scores, {'bf16' if bfloat16 else 'float32'}", apart(found, wanted), allowed)


def one_rank(job: Job) -> Iterator[Row]:
    """Training under DistributedDataParallel with one rank (nccl on a GPU, gloo on a CPU) against plain training."""
    backend = "nccl" if job.device == "cuda" else "gloo"
    with tempfile.TemporaryDirectory() as folder:
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
        torch.distributed.init_process_group(backend, f"file://{folder}/meeting", rank=0, world_size=1)
        try:
            summed = torch.ones(4, device=job.device)
            torch.distributed.all_reduce(summed)
            yield _row(f"{backend}: sum over ranks", apart(summed, torch.ones(4)), 0.0)
            for name in methods.names():
                if issubclass(methods.get(name).TrainSettings, GradientSettings):
                    with computing():
                        alone, wrapped = (_curve(name, job, ddp) for ddp in (False, True))
                    yield _row(f"{name}: losses of {STEPS} steps", apart(wrapped, alone), FLOAT32)
        finally:
            torch.distributed.destroy_process_group()


def _curve(name: str, job: Job, ddp: bool) -> Tensor:
    method, kept = shapes.small_method(name, job.tiny)
    method.to(job.device)
    loop = TrainingLoop(method, kept, seed=0, module=DistributedDataParallel(method) if ddp else None)
    return torch.tensor([loop.advance() for _ in range(STEPS)])


def compiled(job: Job) -> Iterator[Row]:
    """Every method's scores with its networks compiled, against as they are; on a CPU traced, but not compiled."""
    backend = "inductor" if job.device == "cuda" else "eager"
    os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", str(min(8, os.cpu_count() or 1)))
    for name in methods.names():
        method, _ = shapes.small_method(name, job.tiny)
        method.to(job.device)
        score = shapes.score_settings(method, job.tiny)
        images = shapes.waves(5, method.settings.image_size, seed=1)
        with computing():
            wanted = score_images(method, images, score).scores
            for network in networks(method):
                network.compile(backend=backend)
            begun = time.monotonic()
            found = score_images(method, images, score).scores
        seconds = round(time.monotonic() - begun, 1)
        yield _row(f"{name}: scores, float32", apart(found, wanted), HALF, backend=backend, seconds=seconds)
