"""What a model folder says of itself: `model.json`, checked against its own hash. No torch, and no weights are read."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from raydiff import storage
from raydiff.errors import ModelFolderError, StorageError

WEIGHTS = "weights.safetensors"
DESCRIPTION = "model.json"
FORMAT = 5


def describe(uri: str, calibrated: bool = True) -> dict[str, Any]:
    """A model folder's description, checked against its own hash; the weights are not read.

    `calibrated=False` describes the model (and its id) as it was before calibration.

    Raises:
        ModelFolderError: as `load`.
    """
    place = storage.join(uri, DESCRIPTION)
    try:
        description = storage.read_json(place)
    except StorageError as error:
        raise ModelFolderError(f"{uri} is not a model folder: {error}; a run has them, as OUT/models/lafite") from None
    if not isinstance(description, dict) or description.get("format") != FORMAT:
        raise ModelFolderError(f"{place} is not in model format {FORMAT}; load it with the raydiff that wrote it")
    if description.get("id") != model_id(description):
        raise ModelFolderError(f"{place} was changed since it was written: its contents no longer have its id")
    if not calibrated:
        description["calibration"] = None
        description["id"] = model_id(description)
    return dict(description)


def model_id(description: dict[str, Any]) -> str:
    """Hash of all that decides a score or an alarm: 16 hexadecimal digits."""
    decides = {key: value for key, value in description.items() if key not in ("id", "card")}
    return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()[:16]
