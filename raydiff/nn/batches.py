"""Batches of a fixed size, so that every kernel sees the same shapes, however many images there are."""

from __future__ import annotations

import torch
from torch import Tensor


def filled(batch: Tensor, count: int) -> Tensor:
    """The batch, lengthened to `count` rows by repeating its first."""
    missing = count - len(batch)
    return batch if missing == 0 else torch.cat([batch, batch[:1].expand(missing, *batch.shape[1:])])
