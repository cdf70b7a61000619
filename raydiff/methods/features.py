"""What the feature methods share: features on a grid, standardised per channel, and a memory bank of normal ones.

LafitE and nearest_patch differ only in what they do with these, so that at equal settings their comparison shows what
diffusion adds.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Self, cast

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from raydiff.methods.base import Examples, Method, Report, Rows, ScoreSettings, TrainSettings, quiet
from raydiff.nn import backbones
from raydiff.nn.backbones import Backbone, BackboneSettings
from raydiff.nn.maps import image_score
from raydiff.nn.memory_bank import greedy_coreset, nearest_neighbours

SCALE_PATCHES = 4096  # normal patches that tell how large a backbone's distances are


class FeatureTrainSettings(TrainSettings):
    """Train settings of a method that works on frozen features."""

    backbone: BackboneSettings = BackboneSettings()
    # Others beside it, each with a bank of its own; their errors are averaged, in units of what normal patches have.
    further_backbones: tuple[BackboneSettings, ...] = ()
    standardised: bool = True  # False takes the features as they are, as PatchCore does
    coreset_ratio: float = Field(0.1, gt=0, le=1)  # share of all patches that the memory bank keeps
    bank_size: int = Field(20_000, ge=1)  # most vectors in the bank, whatever the ratio
    coreset_pool: int = Field(200_000, ge=1)  # the coreset is chosen among at most this many patches, drawn evenly

    @property
    def backbones(self) -> tuple[BackboneSettings, ...]:
        """All of them."""
        return (self.backbone, *self.further_backbones)

    @model_validator(mode="after")
    def _one_grid(self) -> Self:
        if len({backbone.grid for backbone in self.backbones}) > 1:
            told = ", ".join(f"{backbone.name} {backbone.grid}" for backbone in self.backbones)
            raise ValueError(f"the backbones' errors are averaged on one grid, so give all the same (given: {told})")
        return self


class Nearest(NamedTuple):
    """What a bank holds near the vectors of one backbone."""

    vectors: Tensor  # (q, d)
    bank: Tensor  # (m, d)
    distances: Tensor  # (q, k), ascending
    indices: Tensor  # (q, k) into the bank


class FeatureScoreSettings(ScoreSettings):
    """Score settings of a method that works on frozen features."""

    pool: int = Field(16, ge=1)  # image score = largest mean over a pool x pool window of the map, pixels


# Features and bank of the presets, the same for all feature methods. Pretrained, the middle stages serve unlike
# categories best (PatchCore's choice too); random weights carry most in the shallowest. The bank is a sparse cover: on
# one model for three real sets 6,000 vectors found more than 3,000 or 15,000, and far more than 15,000 drawn at random.
FEATURES_DEMO: Mapping[str, Any] = {
    "image_size": 160,
    "backbone": {"name": "tf_efficientnet_lite0", "stages": (1, 2, 3), "grid": 20, "neighbourhood_padding": "zeros"},
    "bank_size": 2_000,
    "coreset_pool": 20_000,
}
FEATURES_SMALL: Mapping[str, Any] = {
    "backbone": {"stages": (2, 3), "grid": 28, "neighbourhood_padding": "zeros"},
    "bank_size": 6_000,
    "coreset_pool": 60_000,
}
# LafitE's: the first four stages, no neighbourhood average, a tenth of all patches. The grid is 32 or 14 by different
# accounts; 32 suits the U-Net's three halvings.
FEATURES_PAPER: Mapping[str, Any] = {
    "backbone": {"name": "efficientnet_b4", "stages": (0, 1, 2, 3), "grid": 32, "neighbourhood": 1},
    "bank_size": 400_000,
    "coreset_pool": 4_000_000,
}


class FeatureMethod(Method):
    """A method over (N, C, grid, grid) features.

    Examples are the raw features in half precision; `standardised` brings them to zero mean and unit variance per
    channel over the training images (not in the papers: EfficientNet's activations differ in scale by orders).
    """

    def __init__(self, train: FeatureTrainSettings, load_weights: bool = True) -> None:
        super().__init__(train)
        self.backbones = nn.ModuleList(Backbone(each, load_weights) for each in train.backbones)
        self.parts = [backbone.channels for backbone in self._networks]  # channels of each backbone
        channels = sum(self.parts)
        self.feature_mean: Tensor
        self.feature_std: Tensor
        self.memory_bank: Tensor
        self.bank_categories: Tensor
        self.category_names: Tensor
        self.register_buffer("feature_mean", torch.zeros(channels))
        self.register_buffer("feature_std", torch.ones(channels))
        self.register_buffer("memory_bank", torch.zeros(0, channels))
        self.register_buffer(
            "bank_categories", torch.zeros(0, dtype=torch.int32)
        )  # a place in the names each (gloo, which shares it out to workers, knows no int16)
        self.register_buffer("category_names", as_bytes(()))
        self.part_scales: Tensor
        self.register_buffer("part_scales", torch.ones(len(self.parts)))

    def example(self, images: Tensor, rows: Rows | None = None) -> Tensor:
        """uint8 (N, S, S, 3) images to float16 (N, C, grid, grid) features."""
        with torch.inference_mode():
            features = torch.cat([backbone(images.to(self.device)) for backbone in self._networks], dim=1)
            return features.clamp(-65504, 65504).half()

    def example_key(self) -> dict[str, Any]:
        """Backbone and image size."""
        return {
            "example": "features",
            "image_size": self.settings.image_size,
            "backbones": [backbone.model_dump(mode="json") for backbone in self.settings.backbones],
        }

    def standardised(self, examples: Tensor) -> Tensor:
        """Examples as float32 features of zero mean and unit variance per channel."""
        features = examples.to(self.device, torch.float32)
        return (features - self.feature_mean[:, None, None]) / self.feature_std[:, None, None]

    def fit_statistics(self, examples: Examples, seed: int, report: Report = quiet) -> None:
        """Channel statistics, then the memory bank by greedy coreset (LafitE section 3.3, equation 9).

        Each backbone's vectors are chosen for themselves: row m of the bank holds the m-th of each, side by side.
        """
        generator = torch.Generator().manual_seed(seed)
        images, patches = len(examples), self.settings.backbone.grid**2
        total = torch.zeros(len(self.feature_mean), dtype=torch.float64)
        squares = torch.zeros_like(total)
        done = 0
        for batch in examples.batches():
            values = batch.double().transpose(0, 1).flatten(1)
            total += values.sum(1)
            squares += values.square().sum(1)
            done += len(batch)
            report("feature statistics", done, images)
        if self.settings.standardised:
            mean = total / (images * patches)
            deviation = (squares / (images * patches) - mean.square()).clamp_min(0).sqrt()
            self.feature_mean.copy_(mean)
            self.feature_std.copy_(self._floored(deviation))

        names = sorted(set(examples.categories))
        place = {name: number for number, name in enumerate(names)}
        shown = torch.tensor([place[name] for name in examples.categories], dtype=torch.int32)
        per_image = self._drawn(images)
        pool = []
        for batch in examples.batches():
            vectors = as_vectors(self.standardised(batch)).unflatten(0, (len(batch), patches))
            for image in vectors:
                drawn = torch.randperm(patches, generator=generator)[:per_image]
                pool.append(image[drawn.to(image.device)])
        candidates = torch.cat(pool)
        shown = shown[: len(pool)].repeat_interleave(per_image).to(candidates.device)
        if len(candidates) > self.settings.coreset_pool:
            keep = torch.randperm(len(candidates), generator=generator)[: self.settings.coreset_pool]
            candidates, shown = (each[keep.to(each.device)] for each in (candidates, shown))
        size = self._kept(images, len(candidates))
        banks, scales = [], []
        for number, part in enumerate(candidates.split(self.parts, 1)):
            taken = greedy_coreset(part, size, generator, lambda n: report("coreset", n, size))
            banks.append(part[taken])
            if number == 0:
                self.bank_categories = shown[taken].clone()
            if len(self.parts) > 1:
                drawn = torch.randperm(len(part), generator=generator)[:SCALE_PATCHES].to(part.device)
                scales.append(nearest_neighbours(part[drawn], part[taken], 1)[0].mean().clamp_min(1e-6))
        self.memory_bank = torch.cat(banks, 1)
        self.category_names = as_bytes(names).to(candidates.device)
        if scales:
            self.part_scales.copy_(torch.stack(scales))

    def stand_in(self, examples: Tensor, images: int) -> None:
        """A bank of as many vectors as so many images would give, the examples' own again and again."""
        size = self._kept(images, min(self._drawn(images) * images, self.settings.coreset_pool))
        vectors = as_vectors(self.standardised(examples))
        self.memory_bank = vectors[torch.arange(size, device=vectors.device) % len(vectors)]
        self.bank_categories = torch.zeros(size, dtype=torch.int32, device=vectors.device)
        self.category_names = as_bytes([""]).to(vectors.device)

    def _drawn(self, images: int) -> int:
        """How many patches of an image are candidates for the bank."""
        return min(self.settings.backbone.grid**2, max(1, self.settings.coreset_pool // images))

    def _kept(self, images: int, candidates: int) -> int:
        """How many of the candidates the bank keeps."""
        wanted = max(1, round(self.settings.coreset_ratio * images * self.settings.backbone.grid**2))
        return min(wanted, self.settings.bank_size, candidates)

    def _floored(self, deviation: Tensor) -> Tensor:
        """Deviations of at least a tenth of their stage's median: a channel that normals leave all but silent would
        otherwise drown all others as soon as it stirs.
        """
        stages = deviation.split([channels for backbone in self._networks for channels in backbone.stage_channels])
        return torch.cat([stage.clamp_min(max(0.1 * float(stage.median()), 1e-6)) for stage in stages])

    def nearest(self, features: Tensor, neighbours: int) -> list[Nearest]:
        """For each backbone the bank vectors nearest to its part of features (N, C, g, g)."""
        k = min(neighbours, len(self.memory_bank))
        parts = zip(*(each.split(self.parts, 1) for each in (as_vectors(features), self.memory_bank)), strict=True)
        return [Nearest(vectors, bank, *nearest_neighbours(vectors, bank, k)) for vectors, bank in parts]

    def averaged(self, errors: Sequence[Tensor]) -> Tensor:
        """The backbones' errors, of one shape each, in units of what normal patches have, and of these the mean."""
        return torch.stack([each / scale for each, scale in zip(errors, self.part_scales, strict=True)]).mean(0)

    @property
    def _networks(self) -> list[Backbone]:
        return cast("list[Backbone]", list(self.backbones))

    @property
    def categories(self) -> Sequence[str]:
        """Those that the bank holds patches of."""
        names: list[str] = json.loads(bytes(self.category_names.tolist()))
        return names

    @torch.inference_mode()
    def likely_categories(self, examples: Tensor) -> list[str]:
        """The category that most of an image's patches have their nearest bank vector from, by the first backbone."""
        nearest = self.nearest(self.standardised(examples), 1)[0].indices
        shown = self.bank_categories[nearest[:, 0]].long().unflatten(0, (len(examples), -1))
        names = self.categories
        votes = F.one_hot(shown, len(names)).sum(1)
        return [names[place] for place in votes.argmax(1).tolist()]

    def scores(self, maps: Tensor, score: FeatureScoreSettings) -> Tensor:
        """(N,) image scores: the largest mean over a window of the map (LafitE section 3.2)."""
        return image_score(maps, score.pool)

    def about(self) -> dict[str, Any]:
        """The backbone's licence and how large the memory bank is."""
        licences = ", ".join(dict.fromkeys(backbone.licence for backbone in self._networks))
        return {"backbone_licence": licences, "memory_bank": list(self.memory_bank.shape)}

    @classmethod
    def untrained(cls, train: FeatureTrainSettings) -> FeatureMethod:
        """The method with its backbone's weights left out."""
        return cls(train, load_weights=False)

    @classmethod
    def check(cls, train: FeatureTrainSettings) -> None:
        """Also the backbone's weights."""
        super().check(train)
        for each in train.backbones:
            backbones.check(each)

    def load_trained(self, state: Mapping[str, Tensor]) -> None:
        """Take over a trained state; the bank has as many rows and categories as that has."""
        for name in ("memory_bank", "bank_categories", "category_names"):
            setattr(self, name, torch.empty_like(state[name]))
        super().load_trained(state)


def as_bytes(names: Sequence[str]) -> Tensor:
    """Names as a tensor, so that they lie with the weights: their JSON list in UTF-8."""
    return torch.tensor(list(json.dumps(list(names)).encode()), dtype=torch.uint8)


def as_vectors(features: Tensor) -> Tensor:
    """(N, C, g, g) features to (N g g, C) vectors."""
    return features.permute(0, 2, 3, 1).flatten(0, 2).contiguous()


def as_features(vectors: Tensor, like: Tensor) -> Tensor:
    """(N g g, C) vectors back to the shape of `like`, (N, C, g, g)."""
    count, _, height, width = like.shape
    return vectors.unflatten(0, (count, height, width)).permute(0, 3, 1, 2)
