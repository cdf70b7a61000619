"""What the rivals share: anomalib's model of one, with a frozen backbone that is loaded as ours are."""

from __future__ import annotations

import contextlib
import importlib
import warnings
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from raydiff.errors import SettingsError
from raydiff.methods.base import AnomalyMaps, Examples, Method, Report, Rows, ScoreSettings, TrainSettings, quiet
from raydiff.nn import backbones
from raydiff.nn.backbones import Backbone, BackboneSettings
from raydiff.nn.maps import LargestPixels, MapReader, gaussian_blur
from raydiff.settings import Settings


def anomalib(module: str, name: str) -> Any:
    """Something of anomalib's image models.

    Raises:
        SettingsError: if anomalib is not installed.
    """
    try:
        with its_own_warnings_unheard():
            return getattr(importlib.import_module(f"anomalib.models.image.{module}"), name)
    except ImportError as error:
        raise SettingsError(f"the rivals need one more package ({error}): pip install 'raydiff[peers]'") from None


@contextlib.contextmanager
def drawn_by(seed: int) -> Iterator[None]:
    """anomalib draws from the process's generators, torch's and numpy's: by `seed` within, as before afterwards."""
    before = np.random.get_state()
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):  # all are seeded
        torch.manual_seed(seed)
        np.random.seed(seed)
        try:
            yield
        finally:
            np.random.set_state(before)


@contextlib.contextmanager
def its_own_warnings_unheard() -> Iterator[None]:
    """What anomalib uses although it, or timm, means to give it up, is nothing that whoever measures can change."""
    with warnings.catch_warnings():
        for kind in (DeprecationWarning, FutureWarning):
            warnings.simplefilter("ignore", kind)
        yield


class RivalBackbone(Settings):
    """Which frozen network a rival looks with; what else is done with its features is the rival's own affair."""

    name: str
    weights: str = backbones.HUB
    timm_options: dict[str, Any] = Field(default_factory=dict)
    mean: tuple[float, float, float] | None = None
    std: tuple[float, float, float] | None = None
    stages: tuple[int, ...] = Field((2, 3), min_length=1)  # timm's feature levels, shallow first

    def full(self) -> BackboneSettings:
        """The settings of the `Backbone` that loads it."""
        given = self.model_dump(exclude_unset=True)
        return BackboneSettings.parse({**given, "stages": self.stages})


class RivalTrain(TrainSettings):
    """Train settings of a rival."""

    backbone: RivalBackbone


class RivalScore(ScoreSettings):
    """Score settings of a rival."""

    blur_sigma: float = Field(0.0, ge=0)  # beyond the blur that is the rival's own, pixels


class Rival(Method):
    """One of anomalib's torch models. Examples are uint8 images (N, 3, S, S), with a fourth channel as of `example`."""

    TrainSettings: ClassVar[Any] = RivalTrain
    ScoreSettings = RivalScore
    as_published = True

    def __init__(self, train: Any, load_weights: bool = True) -> None:
        super().__init__(train)
        backbone = Backbone(train.backbone.full(), load_weights)
        self._licence = backbone.licence
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", backbone.mean)
        self.register_buffer("std", backbone.std)
        self.network = self.built(backbone)

    @abstractmethod
    def built(self, backbone: Backbone) -> Any:
        """anomalib's model, with the backbone's network in the place of its own."""

    @classmethod
    def untrained(cls, train: Any) -> Rival:
        """With the backbone's weights left out."""
        return cls(train, load_weights=False)

    @classmethod
    def check(cls, train: Any) -> None:
        """Also anomalib and the backbone's weights."""
        super().check(train)
        backbones.check(train.backbone.full())

    def example(self, images: Tensor, rows: Rows | None = None) -> Tensor:
        """The images themselves, channels first."""
        return images.permute(0, 3, 1, 2).contiguous()

    def example_key(self) -> dict[str, Any]:
        """The images' size."""
        return {"example": "pixels", "image_size": self.settings.image_size}

    def pixels(self, examples: Tensor) -> Tensor:
        """Examples as the backbone wants them: float32 (N, 3, S, S)."""
        return (examples[:, :3].to(self.device, torch.float32).div(255) - self.mean) / self.std

    def collect(self, examples: Examples, report: Report) -> None:
        """Show the model all examples once in its training mode, in which it keeps what it needs of them."""
        self.network.train()
        done = 0
        with torch.inference_mode():
            for batch in examples.batches():
                self.network(self.pixels(batch))
                done += len(batch)
                report("features", done, len(examples))

    @torch.inference_mode()
    def maps(self, examples: Tensor, keys: Sequence[str], score: RivalScore) -> AnomalyMaps:
        """The model's own maps and image scores."""
        return own_maps(self.network, self.pixels(examples), examples[:, 3:], score.blur_sigma)

    def reader(self, score: RivalScore, height: int, width: int) -> MapReader:
        """The largest pixel; used where a map comes without the model's own score."""
        return LargestPixels(1)

    def image_score_rule(self, score: RivalScore) -> str:
        """The model's own."""
        return f"{self.name}'s own"

    def about(self) -> dict[str, Any]:
        """The backbone's licence."""
        return {"backbone_licence": self._licence}

    def load_trained(self, state: Mapping[str, Tensor]) -> None:
        """Take over a trained state; what the model has kept of its images is as large as it is there."""
        resize_buffers(self, state)
        super().load_trained(state)


class LearnedRival(Rival):
    """One that learns by gradients alone."""

    @property
    def trained(self) -> torch.nn.Module:
        """anomalib's model, whose backbone stays frozen."""
        network: torch.nn.Module = self.network
        return network

    def fit_statistics(self, examples: Examples, seed: int, report: Report = quiet) -> None:
        """Nothing is learnt without gradients."""


def own_maps(network: Any, pixels: Tensor, looked_at: Tensor, blur_sigma: float) -> AnomalyMaps:
    """Maps and image scores as a model of anomalib gives them, of each image by itself, so that no other matters.

    Args:
        pixels: (N, 3, S, S).
        looked_at: (N, 0 or 1, S, S), 0 where a map is to be zero.
    """
    network.eval()
    maps, scores = [], []
    for image, inside in zip(pixels.split(1), looked_at.to(pixels.device).split(1), strict=True):
        found = network(image)
        own = found.anomaly_map.float().reshape(1, 1, *found.anomaly_map.shape[-2:])
        own = F.interpolate(own, image.shape[-2:], mode="bilinear", align_corners=False)
        if inside.shape[1]:
            own = own * (inside != 0)
        maps.append(gaussian_blur(own, blur_sigma)[:, 0])
        scores.append(found.pred_score.float().reshape(1))
    return AnomalyMaps(torch.cat(maps), scores=torch.cat(scores))


def resize_buffers(module: torch.nn.Module, state: Mapping[str, Tensor]) -> None:
    """Give each buffer the shape that it has in a state."""
    for name, own in list(module.named_buffers()):
        if name in state and state[name].shape != own.shape:
            path, _, leaf = name.rpartition(".")
            setattr(module.get_submodule(path), leaf, torch.empty_like(state[name]))
