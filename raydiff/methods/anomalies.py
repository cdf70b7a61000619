"""What the methods share that learn from made anomalies: images with their product's mask, anomalies put on them."""

from __future__ import annotations

from typing import Any, ClassVar, Self

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor

from raydiff.methods.base import Examples, Method, Report, Rows, TrainSettings, quiet
from raydiff.synthesis.foreground import AUTO, check_choice, product_mask
from raydiff.synthesis.perlin import perlin_mask, some_parts
from raydiff.synthesis.textures import TextureSources


class AnomalyTrainSettings(TrainSettings):
    """Train settings of a method that learns from made anomalies."""

    # "procedural", "self", or URIs of folders or tables of texture images; each source with equal chance
    texture_sources: tuple[str, ...] = ()
    # "auto", "full", or the URI of a folder of masks laid out as the images; or these per category, "auto" for the rest
    foreground: str | dict[str, str] = AUTO
    anomalous_share: float = Field(0.5, gt=0, lt=1)  # of the training images, anew in each step
    anomaly_parts: int | None = Field(None, ge=1)  # most connected parts of a made anomaly; None: the papers', no limit

    @model_validator(mode="after")
    def _has_textures(self) -> Self:
        if not self.texture_sources:
            raise ValueError(
                "texture_sources must say what made anomalies are filled with: the URI of a folder of texture images "
                '(DTD, in the paper), or "procedural", "self"; for example '
                '--set \'texture_sources=["procedural","self"]\''
            )
        return self


class AnomalyMethod(Method):
    """A method over images, trained on normal ones and on the same with made anomalies.

    Examples are uint8 (N, 4, S, S): the image, and 255 where there may be anomalies.
    """

    noise_cut: ClassVar[float]  # Perlin noise above this is anomalous
    opacity: ClassVar[tuple[float, float]]  # how much of the image shows through an anomaly, from and to

    def __init__(self, train: AnomalyTrainSettings) -> None:
        super().__init__(train)
        self.textures = TextureSources(train.texture_sources, train.image_size)
        self.foreground_share: Tensor
        self.register_buffer("foreground_share", torch.ones(()))

    @classmethod
    def check(cls, train: Any) -> None:
        """Also the textures and the foreground's masks, wherever they are."""
        super().check(train)
        TextureSources(train.texture_sources, train.image_size).check()
        check_choice(train.foreground)

    @classmethod
    def for_examples(cls, train: Any) -> Method:
        """Without networks, whose library takes seconds to load: examples are images."""
        found = cls.__new__(cls)
        AnomalyMethod.__init__(found, train)
        return found

    def example(self, images: Tensor, rows: Rows | None = None) -> Tensor:
        """uint8 (N, S, S, 3 or 4) images to uint8 (N, 4, S, S): channels first, and where there may be anomalies.

        That is where images are looked at, and in training where they show the product, too.
        """
        shown = images[..., :3]
        masks = images[..., 3] if images.shape[3] == 4 else torch.full(images.shape[:3], 255, dtype=torch.uint8)
        if rows is not None:
            found = [product_mask(*pair, self.settings.foreground) for pair in zip(shown.numpy(), rows, strict=True)]
            masks = masks * torch.from_numpy(np.stack(found))
        return torch.cat([shown.permute(0, 3, 1, 2), masks[:, None]], 1)

    def example_key(self) -> dict[str, Any]:
        """Image size and where the product is taken to be."""
        return {
            "example": "images",
            "image_size": self.settings.image_size,
            "foreground": self.settings.foreground,
        }

    def fit_statistics(self, examples: Examples, seed: int, report: Report = quiet) -> None:
        """How much of the images is product, for the model's card."""
        product, done = 0.0, 0
        for batch in examples.batches():
            product += float((batch[:, 3] > 0).float().mean((1, 2)).sum())
            done += len(batch)
            report("foreground", done, len(examples))
        self.foreground_share.fill_(product / done)

    @property
    def saw_made_anomalies(self) -> bool:
        """It was trained on them."""
        return True

    def about(self) -> dict[str, Any]:
        """What the anomalies were made of and where they could lie."""
        return {
            "texture_sources": list(self.settings.texture_sources),
            "foreground": self.settings.foreground,
            "foreground_share": round(float(self.foreground_share), 4),
        }

    def with_anomalies(self, examples: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Examples to images (N, 3, S, S) in [0, 1], some with a made anomaly, and its mask (N, 1, S, S) of 0 and 1."""
        images, masks = [], []
        for example in examples:
            image, foreground = example[:3], example[3] > 0
            mask = torch.zeros_like(foreground)
            shown = image / 255
            if float(torch.rand((), generator=generator)) < self.settings.anomalous_share:
                mask = perlin_mask(foreground, generator, self.noise_cut)
                if self.settings.anomaly_parts:
                    mask = some_parts(mask, self.settings.anomaly_parts, generator)
                low, high = self.opacity
                opacity = low + (high - low) * float(torch.rand((), generator=generator))
                texture = self.textures.draw(image, generator) / 255
                shown = torch.where(mask, opacity * shown + (1 - opacity) * texture, shown)
            images.append(shown)
            masks.append(mask)
        return torch.stack(images), torch.stack(masks).float()[:, None]


def looked_at(examples: Tensor) -> Tensor:
    """(N, 1, S, S) of bool: where images, as examples to be scored, are looked at."""
    return examples[:, 3:] > 0
