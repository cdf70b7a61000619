"""Methods and images to check with: small ones of every method, and the shapes whose speed is asked for."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from raydiff import methods
from raydiff.methods.base import Method, ScoreSettings
from raydiff.model.scorer import examples_of
from raydiff.training import store
from raydiff.training.store import ExampleStore


def small_settings(name: str, tiny: bool) -> dict[str, Any]:
    """Changes to a method's preset `demo` with which its CPU side takes seconds; random weights."""
    side, base = (32, 8) if tiny else (64, 32)
    backbone = {"name": "resnet18", "weights": "random", "stages": [1, 2], "grid": side // 8}
    backbone["neighbourhood_padding"] = "left_out"
    unet: dict[str, Any] = {"base_channels": base, "multipliers": [1, 2], "attention_levels": []}
    trained = {"batch_size": 4, "unet": unet, "precision": "float32"}
    images = {"image_size": side, "backbone": backbone}
    own: Mapping[str, Mapping[str, Any]] = {
        "diffusion_ad": {
            **trained,
            "reconstruction_size": side // 2,
            "segmentation_channels": base,
            "texture_sources": ["self"],
        },
        "glad": {
            **trained,
            "autoencoder": {"channels": [base, base]},
            "feature_size": side,
            "texture_sources": ["self"],
        },
        "lafite": {
            **trained,
            "coreset_ratio": 0.2,
            "network": "unet",
            "unet": {**unet, "attention_levels": [1]},
        },
        "nearest_patch": {"coreset_ratio": 0.2},
        "uniad": {
            "batch_size": 4,
            "precision": "float32",
            "coreset_ratio": 0.2,
            "transformer": {"width": 4 * base, "dropout": 0.1, "neighbourhood": 3},
        },
    }
    return {**images, **own.get(name, {})}


def small_method(name: str, tiny: bool) -> tuple[Method, ExampleStore]:
    """A small method on the CPU with its statistics fitted on a few images, and these images' examples."""
    torch.manual_seed(0)
    method = methods.get(name)(methods.recipe(name, "demo", small_settings(name, tiny))).eval()
    images = waves(8, method.settings.image_size)
    kept = held(method, images, ["waves"] * len(images))
    method.fit_statistics(kept, 0)
    return method, kept


def score_settings(method: Method | type[Method], tiny: bool) -> ScoreSettings:
    """The method's own; a tiny check denoises in at most two steps."""
    default: Any = method.ScoreSettings()
    if tiny and getattr(default, "denoising_steps", 1) > 2:
        default = default.changed(denoising_steps=2)
    return default


def waves(count: int, size: int, seed: int = 0) -> np.ndarray:
    """uint8 (count, size, size, 3): smooth waves with noise, all different."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:size, :size] / size
    phases = rng.uniform(0, 6, (count, 3, 1, 1))
    found = 120 + 60 * np.sin(8 * x + 3 * y + phases) + rng.normal(0, 8, (count, 3, size, size))
    return np.clip(found, 0, 255).astype(np.uint8).transpose(0, 2, 3, 1).copy()


def with_squares(images: np.ndarray) -> np.ndarray:
    """The same images with a dark square in each."""
    size = images.shape[1]
    damaged = images.copy()
    damaged[:, size // 4 : size // 2, size // 4 : size // 2] = 10
    return damaged


def held(method: Method, images: np.ndarray, categories: Sequence[str]) -> ExampleStore:
    """The examples of images to train on, in a store whose files have no name any more."""
    rows = [{"uri": str(place), "category": category} for place, category in enumerate(categories)]
    with tempfile.TemporaryDirectory() as folder:
        store.write_part(folder, 0, examples_of(method, images, rows), categories)
        store.finish(folder, {0: len(images)}, {}, {})
        return ExampleStore(folder)
