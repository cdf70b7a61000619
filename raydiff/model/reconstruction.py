"""What a method takes an image for, as a picture to look at: the normal image that it compares the image with."""

from __future__ import annotations

import numpy as np

from raydiff.methods.base import Method, ScoreSettings
from raydiff.model.scorer import CHUNK, inputs_of
from raydiff.nn.batches import filled


def reconstruction(method: Method, image: np.ndarray, score: ScoreSettings) -> np.ndarray | None:
    """(H, W, 3) of uint8, of an image (H, W, 3 or 4) as the method's view has it (see `View.seen`).

    Its tiles' pictures fade into each other as their maps do. None where the method makes no pictures. It is computed
    from the noise that the image's score is computed from, and a score never takes part in it.
    """
    if not method.reconstructs:
        return None
    inputs = inputs_of(method, [image])
    chunk = CHUNK[method.device.type]
    tiles = []
    for start in range(0, len(inputs.examples), chunk):
        rows = slice(start, start + chunk)
        keys = inputs.keys[rows]
        batch = filled(inputs.examples[rows], chunk)
        made = method.reconstructions(batch, [*keys, *[""] * (chunk - len(keys))], score)
        tiles.append(made[: len(keys)].float().cpu().numpy())
    pictures = np.concatenate(tiles)  # (T, 3, S, S)
    (layout,) = inputs.layouts
    whole = np.stack([layout.joined(pictures[:, channel]) for channel in range(3)], axis=-1)
    return np.rint(whole * 255).astype(np.uint8)
