"""How fast the methods score. The goals are those for one H100."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from raydiff import methods
from raydiff.gpu_check import shapes
from raydiff.gpu_check.device import peak
from raydiff.gpu_check.parts import Job
from raydiff.gpu_check.results import Row
from raydiff.gpu_check.speed import method_rows, network_row
from raydiff.methods.base import Method
from raydiff.nn.stable_diffusion import Architecture

LAFITE_GOAL, LAFITE_SHARE = 4_000.0, 0.4  # images/s of a one-step score; of peak, in the U-Net
DIFFUSION_AD_GOAL = 300.0
GLAD_GOAL = 10.0  # 25 steps
BANK_IMAGES = 300  # of the category whose bank features are looked up in: 6,000 vectors
STEP = 500  # of the noise, where a network is timed by itself

# Stable Diffusion 1.x's networks, by diffusers' names.
UNET_CONFIG: dict[str, Any] = {
    "sample_size": 64,
    "block_out_channels": (320, 640, 1280, 1280),
    "cross_attention_dim": 768,
    "attention_head_dim": 8,
}
VAE_CONFIG: dict[str, Any] = {
    "block_out_channels": (128, 256, 512, 512),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "layers_per_block": 2,
    "latent_channels": 4,
}
PROMPTS = (2, 77, 768)  # the prompt's embedding and the empty one's
TINY_UNET = {"block_out_channels": (32, 64), "cross_attention_dim": 16, "attention_head_dim": 8, "layers_per_block": 1}
TINY_UNET |= {"down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D")}
TINY_UNET |= {"up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D")}
TINY_VAE = VAE_CONFIG | {"block_out_channels": (32, 32, 32, 32), "layers_per_block": 1}


def lafite(job: Job) -> Iterator[Row]:
    """LafitE's one step over EfficientNet-b4's four stages: the U-Net by grid and width, then the whole method."""
    top = peak(job)
    batches = (1, 2) if job.tiny else (64, 256, 1024)
    for grid, base in ((16, 256), (16, 64), (32, 256), (32, 64)):
        method = _lafite(job, grid, base)
        what = f"grid {grid}, base {base}"
        channels = sum(method.parts)
        goal = (grid, base) == (16, 256)
        inputs = (channels, grid // 4 if job.tiny else grid, grid // 4 if job.tiny else grid)
        asked = None if job.tiny or not goal else LAFITE_SHARE
        yield network_row(f"{what}: U-Net", method.network, inputs, STEP, batches, job, top, asked)
        if goal:
            turned = _turned(method.network)
            yield network_row(f"{what}: U-Net, channels last", turned, inputs, STEP, batches, job, top)
        asked = None if job.tiny or not goal else LAFITE_GOAL
        yield from method_rows(what, method, "raydiff.methods.lafite", batches, job, asked, whole=goal)


def _lafite(job: Job, grid: int, base: int) -> Any:
    changes: dict[str, Any] = {
        "image_size": 256,
        "backbone": {"name": "efficientnet_b4", "weights": "random", "stages": [0, 1, 2, 3], "grid": grid},
        "network": "unet",
        "unet": {"base_channels": base},
    }
    if job.tiny:
        changes = shapes.small_settings("lafite", True)
        changes["backbone"] = {**changes["backbone"], "grid": grid // 4}
    method = _ready("lafite", "small", changes, job)
    method.stand_in(method.example(_pixels(method)), [BANK_IMAGES])
    return method


def diffusion_ad(job: Job) -> Iterator[Row]:
    """DiffusionAD's two networks in the paper's shape at 256 pixels."""
    changes = shapes.small_settings("diffusion_ad", True) if job.tiny else {"texture_sources": ["self"]}
    method: Any = _ready("diffusion_ad", "demo" if job.tiny else "paper", changes, job)
    batches = (1, 2) if job.tiny else (8, 32, 128)
    size = method.settings.reconstruction_size or method.settings.image_size
    top = peak(job)
    yield network_row(f"{size} px: U-Net", method.unet, (3, size, size), STEP, batches, job, top)
    turned = _turned(method.unet)
    yield network_row(f"{size} px: U-Net, channels last", turned, (3, size, size), STEP, batches, job, top)
    goal = None if job.tiny else DIFFUSION_AD_GOAL
    yield from method_rows(f"{size} px", method, "raydiff.methods.diffusion_ad", batches, job, goal)


def glad(job: Job) -> Iterator[Row]:
    """GLAD at 256 pixels with 25 steps: the U-Net and autoencoder of its own that it has by default."""
    changes: dict[str, Any] = shapes.small_settings("glad", True) if job.tiny else _glad_changes()
    method: Any = _ready("glad", "demo", changes, job) if job.tiny else _ready("glad", "paper", changes, job)
    yield from _glad_rows(method, (1, 2) if job.tiny else (16, 64), job)


def glad_stable_diffusion(job: Job) -> Iterator[Row]:
    """GLAD at 256 pixels with 25 guided steps: networks of Stable Diffusion 1.x's shape."""
    changes: dict[str, Any] = shapes.small_settings("glad", True) if job.tiny else _glad_changes()
    method: Any = _ready("glad", "demo" if job.tiny else "paper", changes, job)
    shape = Architecture(UNET_CONFIG, VAE_CONFIG, PROMPTS)
    if job.tiny:
        shape = Architecture(TINY_UNET, TINY_VAE, (2, 4, 16))
    torch.manual_seed(0)
    with torch.device(job.device):
        method.codec, method.unet = shape.build()
    method.to(job.device).eval()
    yield from _glad_rows(method, (1, 2) if job.tiny else (8, 32), job)


def _glad_changes() -> dict[str, Any]:
    """GLAD's defaults at 256 pixels, with random weights in the backbone."""
    backbone = methods.get("glad").TrainSettings.model_fields["backbone"].default
    return {
        "image_size": 256,
        "pretrained": None,
        "gradient_checkpointing": False,
        "texture_sources": ["self"],
        "backbone": {**backbone.model_dump(), "weights": "random"},
    }


def _glad_rows(method: Any, batches: tuple[int, int], job: Job) -> Iterator[Row]:
    size = method.settings.image_size
    with torch.inference_mode():
        latents = method.codec.encode(torch.rand(1, 3, size, size, device=job.device))
    top = peak(job)
    yield network_row(f"{size} px: U-Net, one call", method.unet, latents.shape[1:], STEP, batches, job, top)
    goal = None if job.tiny else GLAD_GOAL
    yield from method_rows(f"{size} px", method, "raydiff.methods.glad", batches, job, goal)
    plain = shapes.score_settings(method, job.tiny).changed(switch_distance=None)
    yield from method_rows(
        f"{size} px, without own steps", method, "raydiff.methods.glad", batches, job, score=plain, whole=False
    )


def _ready(name: str, preset: str, changes: dict[str, Any], job: Job) -> Method:
    torch.manual_seed(0)
    return methods.get(name)(methods.recipe(name, preset, changes)).to(job.device).eval()


def _pixels(method: Method) -> torch.Tensor:
    return torch.from_numpy(shapes.waves(4, method.settings.image_size))


def _turned(network: nn.Module) -> nn.Module:
    return copy.deepcopy(network).to(memory_format=torch.channels_last)
