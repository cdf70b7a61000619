"""Computing the examples of an image table on the cluster, once for all methods and epochs that want the same."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import numpy as np
from ray.data import ActorPoolStrategy, TaskPoolStrategy

from raydiff import cluster, methods, storage
from raydiff.cluster import notes
from raydiff.errors import CHECK_FILES, DataError, RaydiffError, of_file
from raydiff.images.shards import parts
from raydiff.images.stream import Reading, stream
from raydiff.methods.base import TrainSettings
from raydiff.model.scorer import examples_of, tiles_of
from raydiff.progress import console, phase
from raydiff.training import store
from raydiff.views import Arrays, each_tile
from raydiff.views.roi import inside_of

ERRORS_KEPT = 1000  # reasons in the index; the count is always whole


def compute_examples(method: str, settings: TrainSettings, table_uri: str, work_uri: str) -> str:
    """The example store of a table's images under `work_uri`, finished; what is there already is not done again.

    Images that cannot be read are left out of the store and named in its index.

    Raises:
        DataError: if the method cannot make an example of an image that can be read, or none can be read, or their
            store does not answer, or a worker cannot have the method's weights.
    """
    key = examples_key(method, settings)
    about = {**key, "table_sha256": hashlib.sha256(storage.read_bytes(table_uri)).hexdigest()}
    digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:16]
    store_uri = storage.join(work_uri, f"examples-{digest}")
    if store.is_finished(store_uri):
        console.print(f"examples: taken from an earlier run ({store_uri})", markup=False)
        return store_uri

    notes.keeper()
    reading = Reading.of(settings)
    whole = parts(table_uri, reading.rows_per_part)
    known, workers = (method, settings, store_uri), min(len(whole), cluster.devices())
    # A task's process stays for the job's next tasks, which want the network too; where it has a GPU, Ray ends it.
    how: dict[str, Any] = (
        {"fn": ExampleWriter, "fn_constructor_args": known, "compute": ActorPoolStrategy(size=workers)}
        if cluster.gpus()
        else {"fn": write_examples, "fn_args": known, "compute": TaskPoolStrategy(size=workers)}
    )
    dataset = stream(whole, reading).map_batches(batch_size=None, **how, **cluster.worker_options())
    counts: dict[int, int] = {}
    errors: dict[str, str] = {}
    with phase(str(key["example"]["example"]), sum(part.stop - part.start for part in whole)) as shown:
        for row in dataset.iter_rows():
            if row["refused"]:
                raise DataError(row["refused"])
            counts[int(row["part"])] = int(row["count"])
            errors.update(json.loads(row["errors"]))
            shown.advance(int(row["images"]))
    if not any(counts.values()):
        named = "".join(f" ({of_file(uri, reason)})" for uri, reason in sorted(errors.items())[:1])
        raise DataError(f"no image to train on could be read{named}; {CHECK_FILES}")
    store.finish(store_uri, counts, dict(sorted(errors.items())[:ERRORS_KEPT]), about)
    return store_uri


def examples_key(method: str, settings: TrainSettings) -> dict[str, Any]:
    """What the examples of an image depend on beside the image: methods with equal keys share them."""
    seen = {"view": settings.view, "levels": settings.levels}
    told = {name: value.model_dump(mode="json") if value else None for name, value in seen.items()}
    return {"example": methods.get(method).untrained(settings).example_key(), **told}


def write_examples(batch: dict[str, Any], method: str, settings: TrainSettings, store_uri: str) -> dict[str, Any]:
    """As an `ExampleWriter` does, which the process keeps for the next part."""
    key = method, settings.model_dump_json(), store_uri
    writer = _writers.pop(key, None) or ExampleWriter(method, settings, store_uri)
    _writers.clear()
    if not writer.refused:  # what it could not have may be there at the next attempt
        _writers[key] = writer
    return writer(batch)


_writers: dict[tuple[str, str, str], ExampleWriter] = {}  # the last one of this process


class ExampleWriter:
    """A worker that holds the untrained method and writes the examples of whole parts."""

    def __init__(self, method: str, settings: TrainSettings, store_uri: str) -> None:
        device = cluster.use_assigned_device()
        self.refused = ""
        try:
            self.method = methods.get(method).for_examples(settings).to(device).eval()
        except RaydiffError as error:  # weights that this worker cannot have; see `_write`
            self.refused = str(error)
        self.store_uri = store_uri

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Write the part that a block is; what comes back is only how many, which failed, and why it was refused."""
        part, refused = int(batch["part"][0]), str(batch["stopped"][0]) or self.refused
        good = batch["error"] == ""
        count = 0
        if not refused and good.any():
            count, refused = self._write(part, batch["image"][good], batch["record"][good])
        uris = (json.loads(record)["uri"] for record in batch["record"][~good])
        errors = json.dumps(dict(zip(uris, batch["error"][~good].tolist(), strict=True)))
        found = {"part": part, "count": count, "images": int(good.sum()), "errors": errors, "refused": refused}
        return {name: np.array([value]) for name, value in found.items()}

    def _write(self, part: int, images: Arrays, records: np.ndarray) -> tuple[int, str]:
        """Write a part's examples, one a tile that has something to be looked at; how many.

        A refusal comes back as text, because Ray Data loses the kind of an error that is raised.
        """
        tiles, layouts = tiles_of(self.method, images)
        rows = each_tile(map(json.loads, records), layouts)
        inside = inside_of(tiles)
        if inside is not None:
            looked_at = np.flatnonzero(inside.any((1, 2)))
            tiles, rows = tiles[looked_at], [rows[place] for place in looked_at]
        try:
            examples = examples_of(self.method, tiles, rows)
        except DataError as error:
            return 0, str(error)
        told = [row["category"] for row in rows], [row["uri"] for row in rows]
        store.write_part(self.store_uri, part, examples, *told)
        return len(rows), ""
