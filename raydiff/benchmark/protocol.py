"""The protocol: all that two numbers must share before they may be compared."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib.metadata
import json
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa

import raydiff
from raydiff.images import table
from raydiff.metrics.curve import FPR_LIMIT
from raydiff.settings import Settings

# What a pixel metric is made from (`evaluation.evaluate`).
MASK_RULE = (
    "normal images have empty masks and count; an anomalous one without a mask, or whose mask is all black, of another "
    "size or cannot be read, is left out"
)
_TOLD = ("uri", "category", "split", "label", "mask_uri")  # of an image, where it is known
_PLACES = ("uri", "mask_uri", table.ROI)
PACKAGES = ("torch", "timm", "diffusers", "numpy", "pillow", "anomalib")  # whose versions can move a number


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
    device: Literal["cpu", "gpu"]
    versions: dict[str, str]

    @property
    def digest(self) -> str:
        """16 hexadecimal digits."""
        return hashlib.sha256(json.dumps(self.model_dump(mode="json"), sort_keys=True).encode()).hexdigest()[:16]


def versions() -> dict[str, str]:
    """What can move a number and is not in the settings; of packages that are not installed, nothing."""
    found = {"raydiff": f"{raydiff.__version__}, source {source_digest()}", "python": platform.python_version()}
    for name in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


@functools.cache
def source_digest() -> str:
    """Of raydiff's own code and its search spaces: a version number stands for many states of them."""
    package = Path(raydiff.__file__).parent
    files = sorted([*package.rglob("*.py"), *package.parent.glob("tune_spaces/*.py")])
    told = hashlib.sha256()
    for file in files:
        told.update(file.relative_to(package.parent).as_posix().encode() + b"\0" + file.read_bytes() + b"\0")
    return told.hexdigest()[:12]


def images_digest(images: pa.Table, roles: Sequence[str], root: str) -> str:
    """Which images there are, what they are and what each is for: the same wherever the data set lies.

    Contents are not read: files that were replaced under their names are not told from those before.

    Args:
        images: an image table.
        roles: of its rows, as `holdout.roles`.
        root: the folder that the paths are told from.
    """

    def below(uri: str | None) -> str | None:
        return uri.removeprefix(root).lstrip("/") if uri else uri

    own = [name for name in (*_TOLD, table.ROI, table.BIT_DEPTH) if name in images.column_names]
    rows = sorted(
        json.dumps([role, *(below(row[name]) if name in _PLACES else row[name] for name in own)])
        for row, role in zip(images.select(own).to_pylist(), roles, strict=True)
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
