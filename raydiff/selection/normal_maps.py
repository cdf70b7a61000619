"""The position statistics of a tuned model, from the held-out normals that it was tuned on.

Not from those that calibrate it: what a map is told against must not have been looked up on the images that the
false-alarm rate is promised from. Where images are cut into tiles the positions are a tile's, and some of each image's
tiles tell them.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import ray
import torch
from torch import Tensor

from raydiff import cluster
from raydiff.cluster.notes import Topic
from raydiff.cluster.worker_progress import shown_progress
from raydiff.images import table
from raydiff.images.stream import Reading, decode_rows
from raydiff.methods.base import ScoreSettings
from raydiff.model.folder import load
from raydiff.model.scorer import inputs_of, score_examples
from raydiff.nn.positions import PositionStatistics, in_cells
from raydiff.selection.sample import sample
from raydiff.views.region import regions

IMAGES = 200  # of a category, at most; more tell no more
AT_A_TIME = 32  # decoded


def position_statistics(model_uri: str, score: ScoreSettings, table_uri: str, name: str) -> PositionStatistics | None:
    """Of the model at `model_uri` under these settings, from a table of normals; None if none of them can be read."""
    with shown_progress(f"tune {name}", "images") as board:
        task = _position_statistics.options(**cluster.worker_options())
        found: PositionStatistics | None = cluster.result(task.remote(model_uri, score, table_uri, board))
    return found


@ray.remote(max_retries=2)
def _position_statistics(model_uri: str, score: Any, table_uri: str, board: Topic) -> PositionStatistics | None:
    model = load(model_uri, cluster.use_assigned_device())
    rows = sample(table.read(table_uri), IMAGES)
    total, done = sum(group.num_rows for group in rows.values()), 0
    cells: dict[str, list[Tensor]] = defaultdict(list)
    for category, group in rows.items():
        for start in range(0, group.num_rows, AT_A_TIME):
            part = group.slice(start, AT_A_TIME)
            decoded = decode_rows(part, Reading.of(model.method.settings))
            images = decoded["image"][decoded["error"] == ""]
            if len(images):
                inputs = inputs_of(model.method, regions(images, model.view, model.image_size, start))
                inside = inputs.inside
                # each tile by itself
                found = score_examples(model.method, inputs.examples, inputs.keys, score, inside=inside)
                looked_at = None if inside is None else torch.from_numpy(inside)
                cells[category].append(in_cells(torch.from_numpy(found.maps), inside=looked_at))
            done += part.num_rows
            board.write("maps of normal images", done, total)
    return PositionStatistics.of({name: torch.cat(found) for name, found in cells.items()}) if cells else None
