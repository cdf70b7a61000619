"""UniAD: one reconstruction network for all categories (You et al., NeurIPS 2022, arXiv 2206.03687).

A transformer learns to reconstruct the frozen features of normal images from jittered ones. It is kept from copying its
input, and with it a defect, by a neighbourhood that each position may not look at and by queries that each layer of its
decoder learns. Where the reconstruction differs from the features, the image is anomalous. LafitE's feature editing can
go before it (table 4 there).

As its authors' code (zhiyuanyou/UniAD, a5b9d9d) has it, but:

- features are standardised by category in `demo` and `small`, as the other feature methods' are, for a fair comparison;
  `paper` takes them as they are. The network is never told a category, as there; only editing asks for it;
- stages and error map are resized without aligned corners, and the paper's EfficientNet-b4 has timm's weights;
- jitter is always added (so do the authors' settings; the paper has a probability);
- positions that are not looked at have no jitter and count in no attention, loss or map. One that may look at nothing,
  because all that is looked at is its own neighbourhood, is reconstructed from learned queries and its place alone;
- the last weights are kept, not those that were best on the test set, and an AUROC below .5 is not turned over; a GPU
  trains in bfloat16 unless it is asked for more.

As there, maps are not blurred, and an image's score is the largest mean over 16 x 16 pixels of its map. A memory bank
is kept, so that editing can be switched on without training again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from raydiff.methods.base import AnomalyMaps, GradientSettings
from raydiff.methods.editing import EditingMethod, EditingScoreSettings
from raydiff.methods.features import FEATURES_DEMO, FEATURES_PAPER, FEATURES_SMALL, FeatureTrainSettings
from raydiff.nn.layerwise_query import LayerwiseQueryTransformer, TransformerSettings
from raydiff.nn.seeded import seeded


class UniADTrain(FeatureTrainSettings, GradientSettings):
    """Train settings of UniAD."""

    transformer: TransformerSettings = TransformerSettings()
    jitter: float = Field(20.0, ge=0)  # alpha: the noise's deviation is a position's norm over its channels, times this

    @model_validator(mode="after")
    def _sees_something(self) -> Self:
        hidden, grid = self.transformer.neighbourhood, self.backbone.grid
        if not self.transformer.fits(grid):
            raise ValueError(
                f"transformer.neighbourhood {hidden} hides all of a grid of {grid} from its middle; give a grid of "
                f"{hidden + 1} or more, or a smaller neighbourhood"
            )
        return self


class UniADScore(EditingScoreSettings):
    """Score settings of UniAD."""

    blur_sigma: float = Field(0.0, ge=0)  # the paper has no blur
    feature_editing: bool = False  # True is LafitE's UniAD with editing


# Minutes on two cores: fewer weights, in heads as wide as the paper's, which see each image some tens of times and so
# need no dropout (with which a step on a CPU takes twice as long).
_QUICK: Mapping[str, Any] = {
    "transformer": {
        "width": 128,
        "heads": 4,
        "encoder_layers": 2,
        "decoder_layers": 2,
        "feedforward": 512,
        "dropout": 0.0,
    },
    "learning_rate": 1e-3,
    "warmup_steps": 50,
    "ema_decay": 0.995,
}
DEMO: Mapping[str, Any] = {**FEATURES_DEMO, **_QUICK, "train_steps": 200, "batch_size": 8}
SMALL: Mapping[str, Any] = {
    **FEATURES_SMALL,
    **_QUICK,
    "backbone": {**FEATURES_SMALL["backbone"], "grid": 16},  # as LafitE's
    "train_steps": 1500,
}

# The authors' settings for MVTec AD: 1000 epochs of its 3629 images at batch 64 (8 on each of eight GPUs), learning
# rate 1e-4 and a tenth of it from 800 epochs on, no average of the weights. A GPU; not run here.
PAPER: Mapping[str, Any] = {
    **FEATURES_PAPER,
    "backbone": {**FEATURES_PAPER["backbone"], "grid": 14},
    "standardised": False,
    "train_steps": 56_700,
    "batch_size": 64,
    "learning_rate": 1e-4,
    "weight_decay": 1e-4,
    "ema_decay": 0.0,
}


class UniAD(EditingMethod):
    """Reconstruction of features by a transformer that cannot copy them."""

    name = "uniad"
    clip_norm = 0.1
    TrainSettings = UniADTrain
    ScoreSettings = UniADScore
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"demo": DEMO, "small": SMALL, "paper": PAPER}

    def __init__(self, train: UniADTrain, load_weights: bool = True) -> None:
        super().__init__(train, load_weights)
        self.network = LayerwiseQueryTransformer(sum(self.parts), train.backbone.grid, train.transformer)

    @classmethod
    def for_examples(cls, train: UniADTrain) -> UniAD:
        """With the least of networks: examples are features."""
        least = {"width": 2, "heads": 1, "encoder_layers": 1, "decoder_layers": 1, "feedforward": 1}
        return cls(train.changed(transformer=train.transformer.changed(**least)))

    @property
    def trained(self) -> nn.Module:
        """The transformer; the backbone stays frozen."""
        return self.network

    def forward(self, examples: Tensor, generator: torch.Generator) -> Tensor:
        """Mean squared error of the reconstruction from jittered features (section 3)."""
        clean, inside = self.standardised(examples), self.inside(examples)
        noisy = jittered(clean, self.settings.jitter, generator)
        with seeded(generator, self.device):
            errors = (self._reconstruct(noisy, inside) - clean).square().mean(1)
        return errors[inside].mean()

    @torch.inference_mode()
    def maps(self, examples: Tensor, keys: Sequence[str], score: UniADScore) -> AnomalyMaps:
        """Distances of reconstructed features, edited before where it is asked for, to the features."""
        shown = self.shown(examples)
        features = self.standardised(examples, shown)
        found = self._reconstruct(self.edit(features, shown, score), self.inside(examples))
        return AnomalyMaps(self.error_map(self.distances(found, features), examples, score.blur_sigma))

    def _reconstruct(self, features: Tensor, inside: Tensor) -> Tensor:
        with self.autocast():
            output: Tensor = self.network(features, inside)
        return output.float()


def jittered(features: Tensor, scale: float, generator: torch.Generator) -> Tensor:
    """Features (N, C, g, g) with normal noise, of the deviation scale * norm / C at a position with that norm."""
    noise = torch.randn(features.shape, generator=generator).to(features)
    return features + noise * (scale / features.shape[1]) * features.norm(dim=1, keepdim=True)
