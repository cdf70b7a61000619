"""The images that a tuning scores, by one worker. In a file without Ray Tune, which that worker need not load."""

from __future__ import annotations

import numpy as np
import pyarrow.compute as pc
import ray

from raydiff import cluster
from raydiff.cluster.notes import Topic
from raydiff.errors import ImageError, StorageError, StorageUnavailable
from raydiff.images import table
from raydiff.images.masks import read_mask
from raydiff.images.stream import Reading, decode_rows
from raydiff.model.folder import load
from raydiff.selection.pseudo_validation import (
    LabelledImages,
    PseudoValidationSettings,
    ScoringSet,
    pseudo_validation_set,
    scoring_set,
)
from raydiff.selection.sample import sample
from raydiff.views import View
from raydiff.views.region import around, regions


@ray.remote(max_retries=2)
def make_sets(
    model_uri: str, table_uri: str, test_table_uri: str | None, size: PseudoValidationSettings, seed: int, board: Topic
) -> tuple[ScoringSet, ScoringSet | None]:
    """The pseudo-validation set of a model, and the test set where there is one; arguments as of `tune`."""
    model = load(model_uri, cluster.use_assigned_device())
    method, image_size, view = model.method, model.image_size, model.view
    reading = Reading.of(method.settings)
    normals: dict[str, np.ndarray] = {}
    rows = sample(table.read(table_uri), size.normals)
    for category, group in rows.items():
        board.write("making anomalies", len(normals), len(rows))
        images = decode_rows(group, reading)
        good = images["image"][images["error"] == ""]
        normals[category] = regions(good, view, image_size, seed) if len(good) else good
    board.write("making anomalies", len(rows), len(rows))
    pseudo = pseudo_validation_set(method, normals, size, seed)
    if test_table_uri is None:
        return pseudo, None
    parts = []
    labelled = table.read(test_table_uri)
    for label, most in ((0, size.normals), (1, size.anomalies)):
        chosen = labelled.filter(pc.equal(labelled["label"], label))
        for category, group in sample(chosen, most).items():
            images = decode_rows(group, reading)
            good = np.flatnonzero(images["error"] == "")
            if len(good):
                seen = images["image"][good]
                masks = [
                    _mask(group["mask_uri"][int(row)].as_py(), view, image_size, image.shape[:2])
                    for row, image in zip(good, seen, strict=True)
                ]
                found = around(seen, masks, view, image_size)
                parts.append(LabelledImages(category, found[0], np.full(len(good), bool(label)), found[1]))
    return pseudo, scoring_set(method, parts) if parts else None


def _mask(uri: str | None, view: View, size: int, shape: tuple[int, ...]) -> np.ndarray:
    """The mask of an image that is seen in this shape, bool; empty where there is none, or none that can be read, or
    of another image's size: `evaluate` says why.
    """
    empty = np.zeros(shape, bool)
    try:
        found = empty if uri is None else view.seen_mask(read_mask(uri), size)
        return found if found.shape == shape else empty
    except StorageUnavailable:
        raise
    except (ImageError, StorageError):
        return empty
