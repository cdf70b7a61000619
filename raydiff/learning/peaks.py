"""What images of a scored archive look like where their maps peak, found by workers that hold the model."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import ray
import torch

from raydiff import cluster, storage
from raydiff.cluster.notes import Topic
from raydiff.cluster.worker_progress import shown_progress
from raydiff.images import packed_archive
from raydiff.images.decode import MAX_PIXELS
from raydiff.images.stream import FETCHES_AT_ONCE, Image, Reading, read_image
from raydiff.learning.candidates import SHARD
from raydiff.model.folder import Model, load
from raydiff.model.scorer import examples_of
from raydiff.scoring import table as scores
from raydiff.views import ragged
from raydiff.views.roi import alike

AT_LEAST = 64  # images for which a further worker is worth the start of one


class Found(NamedTuple):
    """What images look like."""

    places: list[int]  # in the rows, of those that could be read
    looks: np.ndarray  # (len(places), D) float32
    first_error: str = ""  # why one of the others could not be


def looks_at_peaks(model_uri: str, scores_uri: str, rows: pa.Table) -> Found:
    """What the images of some rows look like at the peaks of their maps, by the model that scored them.

    Args:
        rows: as `candidates.drawn` gives them; of an archive that was packed, images that are gone are taken from it.

    Raises:
        StorageError: if a store does not answer for long.
        ClusterError: if there are no workers.
    """
    run = storage.read_json(storage.join(scores_uri, scores.RUN))
    size = max(AT_LEAST, -(-len(rows) // cluster.devices()))
    starts = range(0, len(rows), size)
    with shown_progress("suggest", "images") as board:
        task = partial(_looks.options(**cluster.worker_options()).remote, model_uri, run, board, len(rows))
        found: list[Found] = [
            cluster.result(each) for each in [task(rows.slice(start, size).combine_chunks()) for start in starts]
        ]
    places = [start + place for start, each in zip(starts, found, strict=True) for place in each.places]
    seen = [each.looks for each in found if len(each.places)]
    error = next((each.first_error for each in found if each.first_error), "")
    return Found(places, np.concatenate(seen) if seen else np.empty((0, 0), np.float32), error)


@ray.remote(max_retries=2)
def _looks(model_uri: str, run: dict[str, object], board: Topic, total: int, rows: pa.Table) -> Found:
    model = load(model_uri, cluster.use_assigned_device())
    reading = Reading.of(model.method.settings, max_pixels=int(str(run.get("max_pixels", MAX_PIXELS))))
    archive_uri = packed_archive.scored(run)
    places, looks, errors = [], [], []
    for start in range(0, len(rows), reading.rows_per_part):
        part = rows.slice(start, reading.rows_per_part).to_pylist()
        with ThreadPoolExecutor(FETCHES_AT_ONCE) as pool:
            images: list[Image] = list(pool.map(lambda row: _read(row, reading, archive_uri), part))
        good = [place for place, image in enumerate(images) if not image.error]
        errors += [image.error for image in images if image.error]
        if good:
            shown = [images[place].pixels for place in good]
            looks.append(looks_of(model, shown, [part[place]["category"] for place in good]))
            places += [start + place for place in good]
        batches = ray.get(board.count("batch"))  # of all workers
        board.write("looking at images", min(batches * reading.rows_per_part, total), total)
    return Found(places, np.concatenate(looks) if looks else np.empty((0, 0), np.float32), next(iter(errors), ""))


def _read(row: dict[str, str], reading: Reading, archive_uri: str) -> Image:
    fetch = partial(packed_archive.fetch, archive_uri=archive_uri, shard=row[SHARD])
    return read_image(row["uri"], reading, fetch, row)


def looks_of(model: Model, images: list[np.ndarray], categories: list[str]) -> np.ndarray:
    """(N, D) float32: what images, as the model's view has them, look like where their maps are highest.

    Of an image of several tiles the tile is looked at whose middle is nearest to that place.
    """
    size = model.image_size
    tiles, places = [], []
    for image, found in zip(images, model.score_seen(ragged(images), categories).maps, strict=True):
        y, x = np.unravel_index(int(found.argmax()), found.shape)
        layout = model.view.layout(image.shape, size)
        origins = np.array(layout.origins)
        own = int(np.square(origins + size / 2 - (y, x)).sum(1).argmin())
        tiles.append(layout.tiles(image)[own])
        places.append((y, x) - origins[own])
    examples = examples_of(model.method, np.stack(list(alike(tiles))))
    with torch.inference_mode():
        return model.method.looks(examples, torch.from_numpy(np.stack(places))).float().cpu().numpy()
