"""What the feature methods share: features on a grid, standardised per channel, and a memory bank of normal ones.

LafitE, UniAD and nearest_patch differ only in what they do with these, so that at equal settings their comparison shows
what diffusion or a transformer adds.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Self, cast

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from raydiff.methods.base import (
    Examples,
    FurtherExamples,
    Learnt,
    Method,
    Report,
    Rows,
    ScoreSettings,
    TrainSettings,
    quiet,
)
from raydiff.methods.further_patches import learn_patches
from raydiff.nn import backbones, json_tensor
from raydiff.nn.backbones import Backbone, BackboneSettings
from raydiff.nn.category_statistics import CategorySums, likeliest
from raydiff.nn.maps import LargestWindow, MapReader, anomaly_map
from raydiff.nn.memory_bank import cover_radius, greedy_coreset, nearest_neighbours

_BY_CATEGORY = ("feature_mean", "feature_std", "looks_mean", "cover_radii")  # buffers with a row a category
POOLED = 300_000  # patches in memory at once, beyond those of one category
OUTSIDE = torch.inf  # the features where an image is not looked at; no others are
SCALE_PATCHES = 4096  # normal patches of a category that tell how large a backbone's distances are


class FeatureTrainSettings(TrainSettings):
    """Train settings of a method that works on frozen features."""

    backbone: BackboneSettings = BackboneSettings()
    # Others beside it, each with a bank of its own; their errors are averaged, in units of what normal patches have.
    further_backbones: tuple[BackboneSettings, ...] = ()
    standardised: bool = True  # False takes the features as they are, as PatchCore does
    coreset_ratio: float = Field(0.1, gt=0, le=1)  # share of a category's patches that the memory bank keeps
    bank_size: int = Field(20_000, ge=1)  # most vectors of a category in the bank, whatever the ratio
    # A category's part of the coreset is chosen among at most this many of its patches, drawn evenly. The more there
    # are, the more unlike each other and the rarer are those that it keeps.
    coreset_pool: int = Field(200_000, ge=1)

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
# categories best (PatchCore's choice too); random weights carry most in the shallowest. On screws 6,000 vectors of
# 60,000 candidates had image AUROC / AUPRO .880 / .943, 6,000 of 20,000 .844 / .933, 2,000 of 60,000 .873 / .907, and
# made anomalies put them in the same order.
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

    Examples are the raw features in half precision, OUTSIDE where no pixel of a patch is looked at. `standardised`
    brings them to zero mean and unit variance per channel over the training images of the category that an image shows
    (not in the papers: EfficientNet's activations differ in scale by orders), and each category has its own part of the
    bank. Which category that is the image tells, not its folder, so that its score depends on nothing else.
    """

    def __init__(self, train: FeatureTrainSettings, load_weights: bool = True) -> None:
        super().__init__(train)
        self.backbones = nn.ModuleList(Backbone(each, load_weights) for each in train.backbones)
        self.parts = [backbone.channels for backbone in self._networks]  # channels of each backbone
        channels = sum(self.parts)
        one, none = (1, channels), (0, channels)
        self.feature_mean: Tensor
        self.feature_std: Tensor
        self.looks_mean: Tensor
        self.looks_std: Tensor
        self.memory_bank: Tensor
        self.bank_categories: Tensor
        self.category_names: Tensor
        self.register_buffer("feature_mean", torch.zeros(one))  # a row a category
        self.register_buffer("feature_std", torch.ones(one))
        self.register_buffer("looks_mean", torch.zeros(one))  # of images' mean features, which tell categories apart
        self.register_buffer("looks_std", torch.ones(channels))
        self.register_buffer("memory_bank", torch.zeros(none))
        # a place in the names each, ascending (gloo, which shares it out to workers, knows no int16)
        self.register_buffer("bank_categories", torch.zeros(0, dtype=torch.int32))
        self.register_buffer("category_names", json_tensor.to_tensor([]))
        # how far a patch that the bank was chosen from may lie from it (`cover_radius`); 0 of a bank of one vector
        self.cover_radii: Tensor
        self.register_buffer("cover_radii", torch.zeros(1, len(self.parts)))  # a row a category
        self.part_scales: Tensor
        self.register_buffer("part_scales", torch.ones(len(self.parts)))

    def example(self, images: Tensor, rows: Rows | None = None) -> Tensor:
        """uint8 (N, S, S, 3 or 4) images to float16 (N, C, grid, grid) features."""
        with torch.inference_mode():
            shown = images[..., :3].to(self.device)
            features = torch.cat([backbone(shown) for backbone in self._networks], dim=1)
            features = features.clamp(-65504, 65504).half()
            if images.shape[3] == 4:
                inside = F.adaptive_max_pool2d(images[..., 3].to(self.device).float(), self.settings.backbone.grid)
                features = features.masked_fill(inside[:, None] == 0, OUTSIDE)
            return features

    def inside(self, examples: Tensor) -> Tensor:
        """(N, grid, grid) of bool: which patches of the examples are looked at."""
        return examples[:, 0].to(self.device) != OUTSIDE

    def example_key(self) -> dict[str, Any]:
        """Backbone and image size."""
        return {
            "example": "features",
            "image_size": self.settings.image_size,
            "backbones": [backbone.model_dump(mode="json") for backbone in self.settings.backbones],
        }

    def shown(self, examples: Tensor) -> Tensor:
        """(N,) which of the model's categories each example shows, by its mean features."""
        features = examples.to(self.device, torch.float32)
        return likeliest(features, self.looks_mean, self.looks_std, self.inside(examples))

    def standardised(self, examples: Tensor, shown: Tensor | None = None) -> Tensor:
        """Examples as float32 features, of zero mean and unit variance per channel over normal images of the category.

        By default the category is what `shown` takes each example for. Where they are not looked at they are zero.
        """
        places = self.shown(examples) if shown is None else shown
        features = examples.to(self.device, torch.float32)
        found = (features - self.feature_mean[places, :, None, None]) / self.feature_std[places, :, None, None]
        return torch.where(self.inside(examples)[:, None], found, 0)

    def fit_statistics(self, examples: Examples, seed: int, report: Report = quiet) -> None:
        """Each category's channel statistics, then its memory bank by greedy coreset (LafitE section 3.3, equation 9).

        Each backbone's vectors are chosen for themselves: row m of the bank holds the m-th of each, side by side.
        """
        generator = torch.Generator().manual_seed(seed)
        names = sorted(set(examples.categories))
        shown = torch.tensor([names.index(name) for name in examples.categories])
        sums = self._fit_channels(examples, shown, len(names), report)
        wanted = [self._kept(*counts) for counts in zip(sums.images, sums.patches, strict=True)]
        banks, scales = [], []
        sizes: list[int] = []
        radii = torch.zeros(len(names), len(self.parts))
        for place, pool in self._pools(examples, shown, sums.images, generator):
            parts, size = [], min(wanted[place], len(pool))
            for number, part in enumerate(pool.split(self.parts, 1)):
                told = functools.partial(_report_coreset, report, sum(sizes), sum(wanted))
                taken = greedy_coreset(part, size, generator, told)
                parts.append(part[taken])
                radii[place, number] = _radius(part[taken])
                if len(self.parts) > 1:
                    drawn = torch.randperm(len(part), generator=generator)[:SCALE_PATCHES].to(part.device)
                    scales.append(nearest_neighbours(part[drawn], part[taken], 1)[0].mean().clamp_min(1e-6))
            banks.append(torch.cat(parts, 1))
            sizes.append(size)
        self.memory_bank, self.cover_radii = torch.cat(banks), radii.to(pool.device)
        places = torch.arange(len(names), dtype=torch.int32).repeat_interleave(torch.tensor(sizes))
        self.bank_categories = places.to(self.memory_bank.device)
        self.category_names = json_tensor.to_tensor(names).to(self.memory_bank.device)
        if scales:
            self.part_scales.copy_(torch.stack(scales).unflatten(0, (len(names), -1)).mean(0))

    def _fit_channels(self, examples: Examples, shown: Tensor, categories: int, report: Report) -> CategorySums:
        """Channel statistics of each category, and the sums that they come from."""
        sums = CategorySums(categories, self.feature_mean.shape[1])
        done = 0
        for batch in examples.batches():
            sums.add(batch, shown[done : done + len(batch)], self.inside(batch))
            done += len(batch)
            report("feature statistics", done, len(examples))
        self.looks_mean = sums.mean.to(self.looks_mean)
        self.looks_std.copy_(self._floored(sums.image_deviation))
        self.feature_mean = torch.zeros_like(self.looks_mean)
        self.feature_std = torch.ones_like(self.looks_mean)
        if self.settings.standardised:
            self.feature_mean = self.looks_mean.clone()
            deviations = torch.stack([self._floored(deviation) for deviation in sums.deviation])
            self.feature_std = deviations.to(self.feature_mean)
        return sums

    def _pools(
        self, examples: Examples, shown: Tensor, counts: Sequence[int], generator: torch.Generator
    ) -> Iterator[tuple[int, Tensor]]:
        """Each category and the patches (n, C) among which its bank is chosen, drawn evenly from its images.

        The examples are gone through once for as many categories as POOLED holds.
        """
        patches, most = self.settings.backbone.grid**2, self.settings.coreset_pool
        at_once = max(1, POOLED // min(most, patches * max(counts)))
        for first in range(0, len(counts), at_once):
            drawn: dict[int, list[Tensor]] = {place: [] for place in range(first, min(first + at_once, len(counts)))}
            done = 0
            for batch in examples.batches():
                places = shown[done : done + len(batch)]
                done += len(batch)
                for row, place in enumerate(places.tolist()):
                    if place in drawn:
                        image = batch[row : row + 1]
                        vectors = as_vectors(self.standardised(image, places[row : row + 1]))
                        vectors = vectors[self.inside(image).flatten()]
                        chosen = torch.randperm(len(vectors), generator=generator)[: max(1, most // counts[place])]
                        drawn[place].append(vectors[chosen.to(vectors.device)])
            for place, images in drawn.items():
                pool = torch.cat(images)
                images.clear()
                if len(pool) > most:
                    pool = pool[torch.randperm(len(pool), generator=generator)[:most].to(pool.device)]
                yield place, pool

    def learn(self, examples: FurtherExamples, seed: int, report: Report = quiet) -> Learnt:
        """Into the bank, what it lacks of further images' patches; statistics stay, so that features mean the same."""
        return learn_patches(self, examples, seed, report)

    def stand_in(self, examples: Tensor, images: Sequence[int]) -> None:
        """Banks of as many vectors as so many images of each category would give, the examples' own again and again."""
        vectors = as_vectors(self.standardised(examples))
        sizes = [self._kept(count, count * self.settings.backbone.grid**2) for count in images]
        self.memory_bank = vectors[torch.arange(sum(sizes), device=vectors.device) % len(vectors)]
        places = torch.arange(len(sizes), dtype=torch.int32).repeat_interleave(torch.tensor(sizes))
        self.bank_categories = places.to(vectors.device)
        self.category_names = json_tensor.to_tensor([str(place) for place in range(len(sizes))]).to(vectors.device)
        for name in _BY_CATEGORY:
            setattr(self, name, getattr(self, name)[:1].expand(len(sizes), -1).clone())

    def _kept(self, images: int, patches: int) -> int:
        """How many patches the bank keeps of a category with so many images and, in all of them, patches."""
        most = self.settings.coreset_pool
        candidates = min(most, patches, images * max(1, most // images))
        wanted = max(1, round(self.settings.coreset_ratio * patches))
        return min(wanted, self.settings.bank_size, candidates)

    def _floored(self, deviation: Tensor) -> Tensor:
        """Deviations of at least a tenth of their stage's median: a channel that normals leave all but silent would
        otherwise drown all others as soon as it stirs.
        """
        stages = deviation.split([channels for backbone in self._networks for channels in backbone.stage_channels])
        return torch.cat([stage.clamp_min(max(0.1 * float(stage.median()), 1e-6)) for stage in stages])

    def bank_rows(self) -> list[slice]:
        """Where each category's part of the bank lies."""
        counts = torch.bincount(self.bank_categories, minlength=len(self.feature_mean)).tolist()
        return [slice(end - count, end) for count, end in zip(counts, itertools.accumulate(counts), strict=True)]

    def nearest(self, features: Tensor, shown: Tensor, neighbours: int) -> list[Nearest]:
        """For each backbone the bank vectors nearest to its part of features (N, C, g, g), of each image's category.

        Image by image, so that every product of matrices has the same shape whatever else is in the batch.
        """
        own = self.bank_rows()
        k = min(neighbours, min(rows.stop - rows.start for rows in own))
        found = []
        for part, bank in zip(features.split(self.parts, 1), self.memory_bank.split(self.parts, 1), strict=True):
            vectors = as_vectors(part)
            each = []
            for image, place in zip(vectors.split(part[0, 0].numel()), shown.tolist(), strict=True):
                distances, indices = nearest_neighbours(image, bank[own[place]], k)
                each.append((distances, indices + own[place].start))
            distances, indices = (torch.cat(parts) for parts in zip(*each, strict=True))
            found.append(Nearest(vectors, bank, distances, indices))
        return found

    def error_map(self, errors: Tensor, examples: Tensor, blur_sigma: float) -> Tensor:
        """(N, S, S) maps of the errors (N, g, g) of the examples' patches, none where these are not looked at."""
        errors = torch.where(self.inside(examples), errors, 0)
        return anomaly_map(errors, self.settings.image_size, blur_sigma)

    def averaged(self, errors: Sequence[Tensor]) -> Tensor:
        """The backbones' errors, of one shape each, in units of what normal patches have, and of these the mean."""
        return torch.stack([each / scale for each, scale in zip(errors, self.part_scales, strict=True)]).mean(0)

    @property
    def _networks(self) -> list[Backbone]:
        return cast("list[Backbone]", list(self.backbones))

    @property
    def categories(self) -> Sequence[str]:
        """Those that the bank holds patches of."""
        names: list[str] = json_tensor.from_tensor(self.category_names)
        return names

    @torch.inference_mode()
    def looks(self, examples: Tensor, places: Tensor) -> Tensor:
        """The standardised features at the place, between those of patches, each backbone's in units of its distances.

        So the place of a stain on the grid counts less than where only the patch that it lies in is taken.
        """
        features = self.standardised(examples)
        at = (2 * places.flip(1).to(features) + 1) / self.settings.image_size - 1  # x and y, from -1 to 1
        vectors = F.grid_sample(features, at[:, None, None], padding_mode="border", align_corners=False)[..., 0, 0]
        parts = vectors.split(self.parts, 1)
        return torch.cat([part / scale for part, scale in zip(parts, self.part_scales, strict=True)], 1)

    @torch.inference_mode()
    def likely_categories(self, examples: Tensor) -> list[str]:
        """The category whose normal images an image's mean features are most like."""
        names = self.categories
        return [names[place] for place in self.shown(examples).tolist()]

    def reader(self, score: FeatureScoreSettings, height: int, width: int) -> MapReader:
        """Image scores are the largest mean over a window of the map (LafitE section 3.2)."""
        return LargestWindow(score.pool, height, width)

    def about(self) -> dict[str, Any]:
        """The backbone's licence, how large the memory bank is, and how far a patch it was chosen from may lie from it.

        That radius is each backbone's, the largest of all categories'; those with one vector have none.
        """
        licences = ", ".join(dict.fromkeys(backbone.licence for backbone in self._networks))
        radii = [radius for radius in self.cover_radii.amax(0).tolist() if radius > 0]
        return {"backbone_licence": licences, "memory_bank": list(self.memory_bank.shape), "cover_radius": radii}

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
        """Take over a trained state; bank and statistics have as many rows and categories as that has."""
        before = "cover_radii" not in state  # it was not kept then, and no bank had learnt anything
        if before:
            state = {**state, "cover_radii": torch.zeros(len(state["feature_mean"]), len(self.parts))}
        for name in (*_BY_CATEGORY, "memory_bank", "bank_categories", "category_names"):
            setattr(self, name, torch.empty_like(state[name]))
        super().load_trained(state)
        if before:
            for place, rows in enumerate(self.bank_rows()):
                for number, part in enumerate(self.memory_bank[rows].split(self.parts, 1)):
                    self.cover_radii[place, number] = _radius(part)


def _radius(bank: Tensor) -> float:
    """A bank's cover radius as training chose it; 0 of a single vector, which tells none."""
    return cover_radius(bank) if len(bank) > 1 else 0.0


def _report_coreset(report: Report, before: int, total: int, taken: int) -> None:
    report("coreset", before + taken, total)


def as_vectors(features: Tensor) -> Tensor:
    """(N, C, g, g) features to (N g g, C) vectors."""
    return features.permute(0, 2, 3, 1).flatten(0, 2).contiguous()


def as_features(vectors: Tensor, like: Tensor) -> Tensor:
    """(N g g, C) vectors back to the shape of `like`, (N, C, g, g)."""
    count, _, height, width = like.shape
    return vectors.unflatten(0, (count, height, width)).permute(0, 3, 1, 2)
