"""Plain values as a tensor, so that a model folder, which holds tensors and settings and nothing else, has them too."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import torch
from torch import Tensor


def to_tensor(values: Any) -> Tensor:
    """The JSON of plain values as uint8."""
    return torch.from_numpy(np.frombuffer(json.dumps(values, sort_keys=True).encode(), np.uint8).copy())


def from_tensor(tensor: Tensor) -> Any:
    """What `to_tensor` wrote."""
    return json.loads(bytes(tensor.cpu().numpy()))
