"""The protocol: all that two numbers must share before they may be compared."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import platform
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import pyarrow as pa

import raydiff
from raydiff.metrics.curve import FPR_LIMIT
from raydiff.settings import Settings

# What a pixel metric is made from (`evaluation.evaluate`).
MASK_RULE = (
    "normal images have empty masks and count; an anomalous one without a mask, or whose mask is all black, of another "
    "size or cannot be read, is left out"
)
PACKAGES = ("torch", "timm", "numpy", "pillow")  # whose versions can move a number


class Protocol(Settings):
    """How a number was made. Its digest stands in every row of results."""

    images: str  # digest of what is trained and tested on
    models: Literal["one for all categories", "one a category"]
    image_size: int | None  # the side of a network's input, pixels; None: no network looks
    view: str  # what of an image that shows: crop, tiles, padding
    evaluation_size: int | None  # the side that maps and masks are resized to; None: the images' own
    mask_rule: str = MASK_RULE
    integration_limit: float = FPR_LIMIT  # of AUPRO: the largest share of false positives
    image_score: str  # how a map becomes the image's score
    threshold: str  # what raises an alarm
    tuned: str  # on what score settings were chosen
    seed: int | None  # of training, coreset and made anomalies; which normals are held out does not depend on it
    versions: dict[str, str]

    @property
    def digest(self) -> str:
        """16 hexadecimal digits."""
        return hashlib.sha256(json.dumps(self.model_dump(mode="json"), sort_keys=True).encode()).hexdigest()[:16]


def versions() -> dict[str, str]:
    """What can move a number and is not in the settings."""
    return {
        "raydiff": raydiff.__version__,
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in PACKAGES},
    }


def images_digest(images: pa.Table, roles: Sequence[str], root: str) -> str:
    """Which images there are, what they are and what each is for: the same wherever the data set lies.

    Args:
        images: an image table; contents are not read.
        roles: of its rows, as `holdout.roles`.
        root: the folder that the paths are told from.
    """

    def below(uri: str | None) -> str | None:
        return uri.removeprefix(root).lstrip("/") if uri else uri

    columns = [images[name].to_pylist() for name in ("uri", "category", "split", "label", "mask_uri")]
    rows = sorted(
        json.dumps([below(uri), category, split, label, below(mask), role])
        for (uri, category, split, label, mask), role in zip(zip(*columns, strict=True), roles, strict=True)
    )
    return hashlib.sha256("\n".join(rows).encode()).hexdigest()[:16]


def differences(protocols: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """The fields in which protocols (as plain values) differ, but for the seed, and the values that each takes.

    Results are put into one table only together with these.
    """
    found: dict[str, list[Any]] = {}
    for field in Protocol.model_fields:
        values = [each[field] for each in protocols]
        distinct = [value for at, value in enumerate(values) if value not in values[:at]]
        if field != "seed" and len(distinct) > 1:
            found[field] = distinct
    return found
