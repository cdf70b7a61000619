"""The examples of the training images, computed once and read again in every epoch. No Ray here.

A store is a folder of numbered safetensors parts, one a part of the image table, and an index written last: a store
with an index is complete. Parts are memory-mapped, so that reading costs no more memory than what is read.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from raydiff import storage
from raydiff.errors import DataError

INDEX = "index.json"


def part_uri(store_uri: str, part: int) -> str:
    """Where part number `part` lies."""
    return storage.join(store_uri, f"part-{part:06d}.safetensors")


def write_part(
    store_uri: str, part: int, examples: Tensor, categories: Sequence[str], images: Sequence[str] = ()
) -> None:
    """Write one part, whole or not at all: its examples, what each shows and, if known, of which image it is."""
    about = {"categories": json.dumps(list(categories)), "images": json.dumps(list(images))}
    data = safetensors.torch.save({"examples": examples.contiguous()}, about)
    storage.write_bytes(part_uri(store_uri, part), data)


def finish(store_uri: str, counts: Mapping[int, int], errors: Mapping[str, str], about: Mapping[str, Any]) -> None:
    """Write the index: the number of examples in each part, and the images left out with their reasons."""
    index = {
        "counts": {str(part): count for part, count in sorted(counts.items())},
        "errors": dict(errors),
        **about,
    }
    storage.write_json(storage.join(store_uri, INDEX), index)


def join(store_uri: str, uris: Sequence[str]) -> None:
    """Make a store of the examples of several complete ones, whose parts stay where they are."""
    counts: dict[int, int] = {}
    places: dict[str, str] = {}
    errors: dict[str, str] = {}
    for uri in uris:
        index = storage.read_json(storage.join(uri, INDEX))
        for part, count in sorted((int(part), count) for part, count in index["counts"].items()):
            places[str(len(counts))] = part_uri(uri, part)
            counts[len(counts)] = count
        errors |= index["errors"]
    finish(store_uri, counts, errors, {"parts": places})


def is_finished(store_uri: str) -> bool:
    """Whether the store is complete."""
    return storage.exists(storage.join(store_uri, INDEX))


class ExampleStore:
    """A complete store, or every `world`-th part of it (a worker's own share).

    A part in object storage is copied first. The copy has no name any more once it is mapped, so its disk space is
    free again when the store goes, however the process ends.

    Raises:
        DataError: if the share has no example.
    """

    def __init__(self, uri: str, rank: int = 0, world: int = 1) -> None:
        index = storage.read_json(storage.join(uri, INDEX))
        self.errors: dict[str, str] = index["errors"]
        counts = {int(part): count for part, count in index["counts"].items() if count}
        own = sorted(counts)
        if len(own) < world:  # fewer parts than workers: all read all, with other random numbers
            rank, world = 0, 1
        own = own[rank::world]
        if not own:
            raise DataError(f"{uri} holds no usable training image; `raydiff index` shows why")
        elsewhere = index.get("parts", {})  # of a store that `join` made
        files = [_opened(elsewhere.get(str(part)) or part_uri(uri, part)) for part in own]
        self._parts = [file.get_slice("examples") for file in files]
        self.categories: list[str] = [name for file in files for name in json.loads(file.metadata()["categories"])]
        self.images: list[str] = [name for file in files for name in json.loads(file.metadata().get("images", "[]"))]
        self._rows = [(part, row) for part, number in enumerate(own) for row in range(counts[number])]

    def __len__(self) -> int:
        return len(self._rows)

    def batches(self) -> Iterator[Tensor]:
        """All examples in order, a part at a time."""
        for part in self._parts:
            yield part[:]

    def take(self, indices: list[int]) -> Tensor:
        """The examples of these positions."""
        rows = (self._rows[index] for index in indices)
        return torch.stack([self._parts[part][row] for part, row in rows])


def _opened(uri: str) -> Any:
    with storage.local_copy(uri) as path:
        return safetensors.safe_open(path, framework="pt")
