"""Where the images of a scored archive can be read: where they lie or, of a packed archive, unpacked from it."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import repeat

from raydiff import storage
from raydiff.errors import ImageError, StorageError
from raydiff.images import packed_archive, pages
from raydiff.progress import phase
from raydiff.scoring import table as scores

LOOKS_AT_ONCE = 16  # object stores answer slowly but many at a time


def packed_of(archive: str) -> str:
    """The packed archive that the scores in a folder are of; empty where it is none."""
    run = storage.join(archive, scores.RUN)
    source = packed_archive.scored(storage.read_json(run)) if storage.exists(run) else ""
    return source if source and packed_archive.is_packed(source) else ""


def within_reach(uri: str, packed: str, shard: str, work_uri: str) -> str:
    """Where an image can be read; one of a packed archive that is gone is unpacked under `work_uri`.

    Args:
        packed: as `packed_of` gives it.
        shard: of the image table, that the image is in.
    """
    file = pages.file_of(uri)
    if not packed or storage.exists(file):
        return uri
    name = f"{hashlib.sha256(file.encode()).hexdigest()[:16]}-{storage.name(file)}"
    place = storage.join(work_uri, "images", name)
    if not storage.exists(place):
        with contextlib.suppress(ImageError, StorageError):  # it becomes an image that cannot be read
            storage.write_bytes(place, packed_archive.fetch(uri, packed, shard).data)
    return place + uri.removeprefix(file)


def each_within_reach(images: Sequence[tuple[str, str, str]], work_uri: str) -> Iterator[str]:
    """Where each of some images can be read, several looked up at once.

    Args:
        images: each as (uri, packed, shard), as `within_reach` takes them; at least one.
    """
    with ThreadPoolExecutor(LOOKS_AT_ONCE) as pool:
        yield from pool.map(within_reach, *zip(*images, strict=True), repeat(work_uri))


def all_within_reach(images: Sequence[tuple[str, str, str]], work_uri: str) -> list[str]:
    """As `each_within_reach`, of any number of images; shown where some are of a packed archive."""
    if not any(packed for _, packed, _ in images):
        return [uri for uri, _, _ in images]
    with phase("images within reach", len(images)) as shown:
        found = []
        for uri in each_within_reach(images, work_uri):
            found.append(uri)
            shown.advance()
    return found
