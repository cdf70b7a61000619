"""What every method is: a torch module that turns image batches into anomaly maps and scores. No Ray here.

A method's life: `example` is computed once per normal image and kept (it is what training reads, again and again),
`fit_statistics` makes one pass over those examples, `forward` is the training loss of a batch of them, and `maps`
turns examples into anomaly maps under score settings that can change without retraining.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, ClassVar, Literal, NamedTuple, Protocol

import torch
from pydantic import Field
from torch import Tensor, nn

from raydiff.images.levels import Levels
from raydiff.nn.crops import crops
from raydiff.nn.maps import MapReader
from raydiff.settings import Settings
from raydiff.views import View


class TrainSettings(Settings):
    """Settings fixed by training. A method's own add to these."""

    image_size: int = Field(224, ge=16)  # the networks' input is a square of this many pixels
    view: View = View()  # what of an image it shows
    levels: Levels | None = None  # which stored values are black and white; by default as each file says


class GradientSettings(Settings):
    """Further train settings of a method that is trained by gradients."""

    train_steps: int = Field(ge=1)
    batch_size: int = Field(16, ge=1)  # over all workers together
    learning_rate: float = Field(1e-4, gt=0)
    accumulation: int = Field(1, ge=1)  # a worker's batch goes through the networks in so many parts, to save memory
    optimizer: Literal["adamw", "adamw_8bit"] = "adamw"  # the second holds its state in 8 bits (bitsandbytes)
    weight_decay: float = Field(1e-4, ge=0)
    warmup_steps: int = Field(0, ge=0)  # linear warm-up of the learning rate
    decay_from: float = Field(0.8, gt=0, le=1)  # of all steps: from here the learning rate is a tenth; 1 = never
    ema_decay: float = Field(0.999, ge=0, lt=1)  # of the weights that are kept; ramps up from 0; 0 = the last ones
    # what the networks compute in while they train; "auto" is bfloat16 on a GPU and on processors with instructions for
    # it, float32 elsewhere
    precision: Literal["auto", "float32", "bfloat16"] = "auto"


class ScoreSettings(Settings):
    """Settings that can change without retraining; tuning searches these. A method's own add to these."""

    blur_sigma: float = Field(4.0, ge=0)  # Gaussian blur of the anomaly map, pixels at image_size
    noise_seed: int = 0  # together with the image's content it fixes the image's noise


class AnomalyMaps(NamedTuple):
    """What a method finds in a batch of N images."""

    maps: Tensor  # (N, S, S), higher = more anomalous
    details: Mapping[str, Tensor] = MappingProxyType({})  # (N,) numbers each, which the score table tells of an image
    scores: Tensor | None = None  # (N,) image scores, where they are not read off the maps by `Method.scores`


class Examples(Protocol):
    """The examples of the training images, for `fit_statistics`."""

    def __len__(self) -> int:
        """How many examples."""

    def batches(self) -> Iterator[Tensor]:
        """All examples once, in a fixed order, some images at a time."""

    @property
    def categories(self) -> Sequence[str]:
        """Each example's category, in that order."""


class FurtherExamples(Examples, Protocol):
    """The examples of further normal images, for `learn`."""

    @property
    def images(self) -> Sequence[str]:
        """Each example's image, by its URI; an image of several tiles has several examples."""


class Learnt(NamedTuple):
    """What a method took in of further normal images, without gradients."""

    added: int  # vectors to its memory bank
    full: bool  # whether it would have taken more, had it room
    # of each image how far it lies from all that was known and from all other images, by its URI; above 1 it is
    # farther than any normal image was from what was known
    alone: Mapping[str, float]


Rows = Sequence[Mapping[str, Any]]
Report = Callable[[str, int, int], None]  # what is being done, how much is done, of how much


def quiet(what: str, done: int, total: int) -> None:
    """Report nothing."""


class Method(nn.Module, ABC):
    """Base class of all methods. A subclass names its settings classes and presets."""

    name: ClassVar[str]
    TrainSettings: ClassVar[type[TrainSettings]]
    ScoreSettings: ClassVar[type[ScoreSettings]]
    presets: ClassVar[Mapping[str, Mapping[str, Any]]]  # recipe name to changed train settings
    as_published: ClassVar[bool] = False  # its maps are taken as they are, not told in deviations from normals'
    clip_norm: ClassVar[float] = 1.0  # a training step's gradient is scaled down to this norm

    def __init__(self, train: Any) -> None:
        super().__init__()
        self.settings = train

    @classmethod
    def untrained(cls, train: Any) -> Method:
        """The method without pretrained weights, to be filled by `load_trained`."""
        return cls(train)

    @classmethod
    def for_examples(cls, train: Any) -> Method:
        """The method as far as `example` needs it."""
        return cls(train)

    @classmethod
    def check(cls, train: Any) -> None:
        """Whether what these settings name can be had (weights, a pretrained model), looked at within seconds.

        Raises:
            SettingsError, StorageError: if it cannot.
        """
        cls.untrained(train)

    def load_trained(self, state: Mapping[str, Tensor]) -> None:
        """Take over all weights, statistics and banks of a trained state.

        Raises:
            RuntimeError: if a tensor is missing, unknown or of another shape.
        """
        self.load_state_dict(dict(state))

    @abstractmethod
    def example(self, images: Tensor, rows: Rows | None = None) -> Tensor:
        """What training and scoring read of uint8 images (N, S, S, 3), one row an image.

        Images that are looked at in part have a fourth channel, 255 inside and 0 outside, where all is painted over:
        nothing outside may be learned, or count in a map.

        `rows` are the images' rows of the image table, when they are to be trained on; a score knows of none.
        """

    @abstractmethod
    def example_key(self) -> dict[str, Any]:
        """What `example` depends on: methods and runs with equal keys share computed examples."""

    @abstractmethod
    def fit_statistics(self, examples: Examples, seed: int, report: Report = quiet) -> None:
        """Everything that is learnt without gradients, in bounded memory."""

    def learn(self, examples: FurtherExamples, seed: int, report: Report = quiet) -> Learnt | None:
        """Take in further normal images, without gradients and in bounded memory; None where a method cannot.

        What it knew of normal images stays as it is.
        """
        return None

    def falls_from(self, before: Method, score: Any) -> bool:
        """Whether no value of a map, and no image's score, can be higher than it was `before`, up to rounding.

        Args:
            before: a method of the same train settings.
            score: the score settings of both.
        """
        return False

    def stand_in(self, examples: Tensor, images: Sequence[int]) -> None:
        """Take on statistics as large as `fit_statistics` finds them in so many images of each category.

        It takes a few of their examples. For planning, where only counts what they cost; nothing where their size does
        not depend on the images.
        """

    @property
    def trained(self) -> nn.Module | None:
        """The part that gradients train (and the EMA follows), or None."""
        return None

    def parameter_groups(self) -> list[dict[str, Any]]:
        """What the optimiser trains, `params` with their learning rate `lr`: all of `trained` alike, by default."""
        assert self.trained is not None
        return [{"params": list(self.trained.parameters()), "lr": self.settings.learning_rate}]

    def forward(self, examples: Tensor, generator: torch.Generator) -> Tensor:
        """Training loss of a batch of examples. All randomness comes from the CPU `generator`."""
        raise NotImplementedError(f"{self.name} is not trained by gradients")

    @abstractmethod
    def maps(self, examples: Tensor, keys: Sequence[str], score: Any) -> AnomalyMaps:
        """Anomaly maps of a batch of examples.

        Args:
            examples: rows as `example` gives them.
            keys: one string an image, from its content: noise may depend on it and on nothing else.
            score: this method's score settings.
        """

    @abstractmethod
    def reader(self, score: Any, height: int, width: int) -> MapReader:
        """What reads image scores off anomaly maps of this size; a large image's come some rows at a time."""

    def scores(self, maps: Tensor, score: Any) -> Tensor:
        """(N,) image scores of anomaly maps (N, H, W)."""
        reader = self.reader(score, *maps.shape[1:])
        reader.add(maps)
        return reader.scores()

    def image_score_rule(self, score: Any) -> str:
        """How `maps` and `scores` make an image's score of its map, in words."""
        return self.reader(score, self.settings.image_size, self.settings.image_size).rule

    @property
    def categories(self) -> Sequence[str]:
        """The categories that `likely_categories` tells apart; none where a method cannot tell."""
        return ()

    def likely_categories(self, examples: Tensor) -> list[str]:
        """Which of its categories each of N examples shows, as far as the method can tell by looking."""
        raise NotImplementedError(f"{self.name} does not tell categories apart")

    def looks(self, examples: Tensor, places: Tensor) -> Tensor:
        """(N, D) what each example looks like at a place of it: near to another's where the two look alike.

        By default a coarse crop, for methods whose examples are images (N, 3 or more, S, S), colours first.

        Args:
            places: (N, 2) y and x, pixels of the networks' input.
        """
        return crops(examples[:, :3], places)

    @property
    def reconstructs(self) -> bool:
        """Whether `reconstructions` makes pictures to look at; what is reconstructed may be features."""
        return False

    def reconstructions(self, examples: Tensor, keys: Sequence[str], score: Any) -> Tensor:
        """(N, 3, S, S) pictures in [0, 1]: what the method takes each image for; arguments as of `maps`."""
        raise NotImplementedError(f"{self.name} reconstructs no pictures")

    @property
    def saw_made_anomalies(self) -> bool:
        """Whether it was trained on made anomalies, so that it finds others of them better than it finds defects."""
        return False

    def about(self) -> dict[str, Any]:
        """What the model's card should say of this method (licences, sizes)."""
        return {}

    def autocast(self) -> torch.autocast:
        """The precision that networks run in: while they train the settings' own, else bfloat16 on a GPU only."""
        low = self.device.type == "cuda"
        if torch.is_grad_enabled():
            asked = self.settings.precision
            low = asked == "bfloat16" or (asked == "auto" and (low or _cpu_computes_in_bfloat16()))
        return torch.autocast(self.device.type, torch.bfloat16, enabled=low)

    @property
    def device(self) -> torch.device:
        """Where the method computes."""
        return next(iter(self.buffers())).device


def _cpu_computes_in_bfloat16() -> bool:
    can = torch.cpu.get_capabilities()
    return bool(can.get("avx512_bf16") or can.get("amx_bf16"))
