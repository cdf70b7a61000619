"""What the HTTP service says of an image, and of its model; the page shows what is said here and nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image
from pydantic import BaseModel, Field

from raydiff.images.encoded import data_uri, jpeg
from raydiff.images.overlay import layer
from raydiff.settings import Settings

if TYPE_CHECKING:
    from raydiff.images.decode import Seen
    from raydiff.model.calibration import CategoryCalibration
    from raydiff.model.folder import Model
    from raydiff.model.scored import Scored

DOTS = 50  # that normal images' scores are told by at most: each stands for as large a share of them
PICTURE_SIDE = 2048  # of the picture that is sent back of an image, pixels
_JPEG_QUALITY = 90


class Parameters(Settings):
    """What a request may say beside its images, in its address or as fields of its form."""

    category: str | None = Field(
        None, max_length=1000, description="what the images show; one that the model does not know is guessed"
    )
    page: int | None = Field(None, ge=1, le=10_000_000, description="which page of a file of several, from 1")
    maps: bool = Field(False, description="whether heat maps are wanted")
    picture: bool = Field(False, description="whether the image as the model reads it is wanted, to look at")
    reconstruction: bool = Field(
        False, description="whether what the method takes the image for is wanted, to look at; it takes as long again"
    )


class Answer(BaseModel):
    """What is said of an image."""

    name: str | None = Field(description="of its file, as the form gave it")
    score: float = Field(description="higher = more anomalous")
    p_value: float | None = Field(
        description="(1 + normal images that score at least as high) / (1 + normal images); null without a calibration"
    )
    threshold: float | None = Field(description="scores above it raise an alarm; null without a calibration")
    is_anomalous: bool | None = Field(description="whether the score is above the threshold")
    category: str | None = Field(
        description="whose normal images the score is compared with; null: those of all categories together"
    )
    category_guessed: str | None = Field(
        description="what the model took the image for, where it was not given a category that the model knows"
    )
    model_id: str = Field(description="hash of all that decides a score or an alarm")
    width: int = Field(description="of the image as it is read, upright, pixels")
    height: int
    note: str | None = Field(description="what is odd about the file")
    details: dict[str, float | None] = Field(description="what else the method tells of the image")
    map: str | None = Field(
        description="with maps=true: the heat map as data URI of a PNG, to be laid over `map_box` of the image; clear "
        "up to the middle of the normal images' scores, half heat at the threshold; null without a calibration"
    )
    map_box: list[int] = Field(description="x, y, width, height in the image, pixels: what the model looks at")
    picture: str | None = Field(
        description=f"with picture=true: the image as it is read, data URI of a JPEG of at most {PICTURE_SIDE} pixels"
    )
    reconstruction: str | None = Field(
        description="with reconstruction=true: what the method takes the image for, data URI of a JPEG, to be laid "
        "over `map_box`; null where the method makes no picture"
    )


class Failure(BaseModel):
    """An image that could not be scored."""

    name: str | None
    error: str = Field(description="one sentence")


class Answers(BaseModel):
    """What is said of a form's images, in their order."""

    images: list[Answer | Failure]
    model_id: str


class Error(BaseModel):
    """Why a request was refused."""

    error: str = Field(description="one sentence")


class Normals(BaseModel):
    """A category's normal images, which its threshold was set from."""

    normals: int
    threshold: float
    scores: list[float] = Field(description=f"theirs, ascending; of more than {DOTS} as many quantiles")
    promise: str | None = Field(description="what is promised of false alarms, one sentence")


class Limits(BaseModel):
    """What a request may bring."""

    max_bytes: int = Field(description="of its body")
    max_pixels: int = Field(description="of each image")
    max_images: int = Field(description="in a form")
    max_seconds: float = Field(description="that it may take")


class Described(BaseModel):
    """The model that is served."""

    name: str
    model_id: str
    method: str
    version: str = Field(description="raydiff's")
    guesses: bool = Field(description="whether it tells the category of an image itself")
    reconstructs: bool = Field(description="whether it makes a picture of what it takes an image for")
    reads_levels: bool = Field(description="whether it has levels of its own: then images look other than in viewers")
    false_alarm_rate: float | None = Field(description="wanted on normal images; null without a calibration")
    categories: dict[str, Normals | None]
    all: Normals | None = Field(description="of all categories together")
    limits: Limits


def answer(model: Model, model_id: str, seen: Seen, scored: Scored, parameters: Parameters) -> dict[str, Any]:
    """`Answer` of one image, the only one that was `scored`."""
    score, guessed = float(scored.scores[0]), scored.guessed[0]
    calibration = model.calibration
    shown = guessed or parameters.category
    own = calibration.of(shown) if calibration else None
    made = model.reconstruction(seen.pixels) if parameters.reconstruction else None
    return {
        "name": None,
        "score": score,
        "p_value": own.p_value(score) if own else None,
        "threshold": own.threshold if own else None,
        "is_anomalous": score > own.threshold if own else None,
        "category": shown if calibration and shown in calibration.categories else None,
        "category_guessed": guessed,
        "model_id": model_id,
        "width": seen.width,
        "height": seen.height,
        "note": seen.note or None,
        "details": {name: _number(values[0]) for name, values in scored.details.items()},
        "map": data_uri("image/png", layer(scored.maps[0], *own.colour_scale())) if own and parameters.maps else None,
        "map_box": list(model.view.box(seen.height, seen.width)),
        "picture": data_uri("image/jpeg", _shown(seen.image)) if parameters.picture else None,
        "reconstruction": data_uri("image/jpeg", _shown(made)) if made is not None else None,
    }


def described(model: Model, name: str, version: str, limits: Limits) -> Described:
    """What is told of a model."""
    calibration = model.calibration
    known = {*model.method.categories, *(calibration.categories if calibration else ())}
    promises = dict(zip(calibration.categories, calibration.sentences(), strict=False)) if calibration else {}
    return Described(
        name=name,
        model_id=model.id,
        method=model.method.name,
        version=version,
        guesses=bool(model.method.categories),
        reconstructs=model.method.reconstructs,
        reads_levels=model.levels is not None,
        false_alarm_rate=calibration.rate if calibration else None,
        categories={
            category: _normals(calibration.of(category), promises[category].removeprefix(f"{category}: "))
            if calibration and category in calibration.categories
            else None
            for category in sorted(known)
        },
        all=_normals(calibration.all, None) if calibration else None,
        limits=limits,
    )


def _normals(own: CategoryCalibration, promise: str | None) -> Normals:
    scores = own.scores
    if len(scores) > DOTS:
        scores = tuple(scores[int((dot + 0.5) / DOTS * len(scores))] for dot in range(DOTS))
    return Normals(normals=own.normals, threshold=own.threshold, scores=list(scores), promise=promise)


def _number(value: float) -> float | None:
    """JSON has no other numbers than these."""
    return float(value) if np.isfinite(value) else None


def _shown(pixels: np.ndarray) -> bytes:
    picture = Image.fromarray(pixels)
    picture.thumbnail((PICTURE_SIDE, PICTURE_SIDE), Image.Resampling.BOX)
    return jpeg(picture, _JPEG_QUALITY)
