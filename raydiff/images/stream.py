"""From the image table to decoded batches, on Ray Data, in bounded memory.

A part of the table is fetched, decoded and resized by one task and travels as one block, so that whatever is made of it
can be written as one finished file under its name, and a part that is done need not be done again.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa
import ray

from raydiff.errors import DataError, ImageError, StorageError, StorageUnavailable
from raydiff.images import guarded, packed_archive, pages, table
from raydiff.images.bands import size_if_large
from raydiff.images.decode import MAX_PIXELS, see
from raydiff.images.levels import Levels
from raydiff.images.pages import File, Shared, split
from raydiff.images.regions import own_region
from raydiff.images.shards import ROWS_PER_PART, ROWS_PER_TILED_PART, Part, read_rows
from raydiff.storage.patience import patiently
from raydiff.views import View, ragged

if TYPE_CHECKING:  # whoever reads images need load neither torch nor Ray Data
    from ray.data import Dataset

    from raydiff.cluster.notes import Topic
    from raydiff.methods.base import TrainSettings

FETCHES_AT_ONCE = 8  # per decoding task; object stores answer slowly but many at a time
ATTEMPTS = 3  # of a part, before each of its images is read in a process of its own; and of such an image


class Reading(NamedTuple):
    """How images are read: settings of a decoding task."""

    size: int  # side of the networks' input, pixels
    view: View = View()  # what of an image is to be seen, at that scale
    max_pixels: int = MAX_PIXELS
    packed_uri: str | None = None  # folder of packed shards that hold the files' bytes (see `packed_archive`)
    levels: Levels | None = None  # which stored values are black and white; by default as each file says
    marks_large: bool = False  # whether who comes next reads images of more than `max_pixels` in bands (see `Image`)

    @classmethod
    def of(cls, train: TrainSettings, **more: Any) -> Reading:
        """As a method with these train settings sees its images."""
        return cls(train.image_size, train.view, levels=train.levels, **more)

    @classmethod
    def described(cls, train: Mapping[str, Any], **more: Any) -> Reading:
        """The same, from the plain values in a model's description."""
        return cls(int(train["image_size"]), View.parse(train["view"]), levels=Levels.kept(train), **more)

    @property
    def rows_per_part(self) -> int:
        """How many images are read by a task, and held by each worker that they come to."""
        return ROWS_PER_PART if self.view.tile is None else ROWS_PER_TILED_PART

    def may_mark(self, row: Mapping[str, Any]) -> bool:
        """Whether an image may be read in bands: it is seen in tiles, and everywhere."""
        return self.marks_large and self.view.tile is not None and self.view.roi is None and row.get(table.ROI) is None


class Image(NamedTuple):
    """One image as it was read, or why it was not."""

    pixels: np.ndarray  # uint8 (h, w, 3 or 4) as the view has them, all zero where there is an error
    height: int = 0  # of the image in the archive, pixels
    width: int = 0
    content_hash: str = ""  # of the file's bytes (see `File.digest`), empty where it could not be fetched
    error: str = ""
    note: str = ""  # what is odd about a file that was read all the same
    # of an image that is too large to be held: what its row says of how it is read, as JSON; no pixels are here, and no
    # hash, and whether it can be read turns out later (see `images.bands`)
    large: str = ""


def stream(parts: Sequence[Part], reading: Reading, num_cpus: float = 1, attempts: Topic | None = None) -> Dataset:
    """Some parts' images as a Ray dataset, each block one whole part.

    Columns:
        part, shard, start: which part;
        record: the image table's row as JSON (Ray's blocks turn a column of nulls into one of NaN), without the
            columns that are carried along;
        carried: those of all rows as an Arrow stream (see `carried`), beside the first;
        image, height, width, content_hash, error, note, large: as `Image`. No image ends the job and none vanishes;
        begun: when the part's reading began, in seconds since the epoch;
        stopped: why the whole part could not be read now (its storage does not answer, say), or empty; the block then
            holds no images.

    Args:
        parts: of an image table (see `shards.parts`).
        num_cpus: what a decoding task asks of Ray.
        attempts: counts how often each part was begun in this run: one that was begun often may hold an image that
            kills its reader. Without it such an image is tried for ever.
    """
    from ray.data import from_items

    items = [part._asdict() for part in parts]
    dataset = from_items(items, override_num_blocks=max(1, len(items)))
    decode_parts: Any = partial(decode_part, reading=reading, attempts=attempts)
    return dataset.map_batches(decode_parts, batch_size=None, num_cpus=num_cpus)


def decode_part(batch: dict[str, Any], reading: Reading, attempts: Topic | None = None) -> dict[str, Any]:
    """Fetch and decode the one part that `batch` names; see `stream` for what comes out."""
    number, start, stop = (int(batch[name][0]) for name in ("number", "start", "stop"))
    part = Part(number, str(batch["shard"][0]), str(batch["uri"][0]), start, stop)
    careful = attempts is not None and ray.get(attempts.count(part.shard, part.start)) > ATTEMPTS
    which: dict[str, Any] = {
        "part": part.number,
        "shard": part.shard,
        "start": part.start,
        "begun": time.time(),
        "stopped": "",
    }
    try:
        rows = patiently(read_rows, part.uri, part.start, part.stop)
        columns = decode_rows(rows, reading, packed_archive.read_bytes(reading.packed_uri, part), careful)
    except (StorageError, DataError) as error:
        which["stopped"] = str(error)
        columns = _columns(pa.table({"uri": [""]}), [_nothing(reading.size, "")])
    return columns | {name: np.array([value] * len(columns["record"])) for name, value in which.items()}


def decode_rows(
    rows: pa.Table, reading: Reading, data: Sequence[bytes | ImageError] | None = None, careful: bool = False
) -> dict[str, Any]:
    """The images of some rows of an image table, as columns; see `stream`.

    Args:
        data: the files' bytes (or why there are none), where they need not be fetched.
        careful: read each image in another process, so that what kills it becomes that image's error.

    Raises:
        StorageUnavailable: if the store does not answer for long.
    """
    files: list[Any] = rows["uri"].to_pylist()
    if data is not None:
        pairs = zip(files, data, strict=True)
        files = [found if isinstance(found, ImageError) else File(found, split(uri)[1]) for uri, found in pairs]
    told = ("category", table.ROI, table.BIT_DEPTH)
    known = rows.select([name for name in told if name in rows.column_names]).to_pylist()
    wanted = [Wanted(*pair) for pair in zip(files, known, strict=True)]
    if careful:
        return _columns(rows, guarded.each(partial(_read, reading=reading), wanted, ATTEMPTS, _killed(reading)))
    with ThreadPoolExecutor(FETCHES_AT_ONCE) as pool:
        return _columns(rows, list(pool.map(partial(_read, reading=reading, fetch=Shared()), wanted)))


def carried(batch: dict[str, Any]) -> pa.Table | None:
    """The further columns of a block's rows (see `table.extra`) in their own types, None where there are none."""
    packed = bytes(batch["carried"][0]) if len(batch["carried"]) else b""
    return pa.ipc.open_stream(packed).read_all() if packed else None


class Wanted(NamedTuple):
    """An image to be read."""

    file: str | File | ImageError  # its URI, its file, or why there is none
    row: dict[str, Any]  # what its row of the image table says of how to read it and where to look


def _read(wanted: Wanted, reading: Reading, fetch: Callable[[str], File] = pages.read) -> Image:
    return read_image(wanted.file, reading, fetch, wanted.row)


def read_image(
    file: str | File | ImageError,
    reading: Reading,
    fetch: Callable[[str], File] = pages.read,
    row: Mapping[str, Any] = MappingProxyType({}),
) -> Image:
    """Read one image, given by its URI or its file; what is wrong with the image is in the answer.

    Args:
        fetch: what fetches a file by its URI.
        row: its row of the image table, as far as that says how it is read and where to look: category, depth and
            region of interest.

    Raises:
        StorageUnavailable: if the store does not answer for long.
    """
    digest = ""
    try:
        if isinstance(file, ImageError):
            raise file
        if isinstance(file, str) and reading.may_mark(row):
            size = patiently(size_if_large, file, reading.max_pixels)
            if size:
                told = {name: row[name] for name in ("category", table.BIT_DEPTH) if name in row}
                return _nothing(reading.size, "")._replace(height=size[0], width=size[1], large=json.dumps(told))
        data = patiently(fetch, file) if isinstance(file, str) else file
        digest = data.digest()
        seen = see(
            data.data,
            reading.view,
            reading.size,
            reading.max_pixels,
            Levels.of_row(row, reading.levels),
            data.page,
            row.get("category"),
            own_region(row),
        )
        return Image(seen.pixels, seen.height, seen.width, digest, note=seen.note)
    except StorageUnavailable:
        raise
    except (ImageError, StorageError) as error:
        return _nothing(reading.size, str(error), digest)


def _killed(reading: Reading) -> Image:
    return _nothing(reading.size, f"reading the image ended its process {ATTEMPTS} times; is it damaged on purpose?")


def _nothing(size: int, error: str, digest: str = "") -> Image:
    return Image(np.zeros((size, size, 3), np.uint8), content_hash=digest, error=error)


def _columns(rows: pa.Table, images: Sequence[Image]) -> dict[str, Any]:
    pixels, heights, widths, hashes, errors, notes, large = zip(*images, strict=True)
    extra = [field.name for field in table.extra(rows)]
    beside = np.full(len(rows), b"", object)
    if extra:
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, rows.select(extra).schema) as stream_of_rows:
            stream_of_rows.write_table(rows.select(extra))
        beside[0] = sink.getvalue().to_pybytes()
    return {
        "record": np.array([json.dumps(row, default=str) for row in rows.drop_columns(extra).to_pylist()]),
        "carried": beside,
        "image": ragged(pixels),
        "height": np.array(heights, np.int32),
        "width": np.array(widths, np.int32),
        "content_hash": np.array(hashes),
        "error": np.array(errors),
        "note": np.array(notes),
        "large": np.array(large),
    }
