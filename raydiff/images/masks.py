"""Reading ground-truth masks: a file each, or a folder of several that are one together."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext

import numpy as np

from raydiff import storage
from raydiff.errors import ImageError, StorageError, StorageUnavailable
from raydiff.images import pages
from raydiff.images.decode import decode_mask
from raydiff.images.names import IMAGE_EXTENSIONS, is_image
from raydiff.progress import phase
from raydiff.storage.patience import patiently

FETCHES_AT_ONCE = 16
# An unpacked image may be a hundred times its file, so fewer are unpacked at once than fetched.
DECODES_AT_ONCE = min(4, os.cpu_count() or 1)
_AT_A_TIME = 1024  # masks in the pool's queue


def read_mask(uri: str, decoding: AbstractContextManager[object] | None = None) -> np.ndarray:
    """The mask at `uri` as bool, shape (height, width): True = anomalous.

    A folder's masks (MVTec LOCO has one for each defect of an image) are united: anomalous is what any of them marks.

    Args:
        decoding: held while a file is unpacked, so that a caller bounds how many are.

    Raises:
        ImageError: if a file cannot be read as a mask, or a folder holds none or some of several sizes.
        StorageError: if a file or folder is missing or cannot be read.
    """
    held = decoding or nullcontext()
    if not _is_folder(uri):
        found = pages.read(uri)
        with held:
            return decode_mask(found.data, page=found.page)
    united: np.ndarray | None = None
    for file in storage.list_files(uri):
        if not is_image(storage.name(file)):
            continue
        data = storage.read_bytes(file)
        with held:
            try:
                mask = decode_mask(data)
            except ImageError as error:
                raise ImageError(f"{storage.name(file)}: {error}") from None
        if united is not None and united.shape != mask.shape:
            sizes = " and ".join(f"{each.shape[1]} x {each.shape[0]}" for each in (united, mask))
            raise ImageError(f"the masks of one image in this folder are {sizes} pixels; they must be of one size")
        united = mask if united is None else united | mask
    if united is None:
        raise ImageError(f"the folder of masks holds none; looked for {', '.join(IMAGE_EXTENSIONS)}")
    return united


def marks(uris: Sequence[str]) -> list[bool | None]:
    """Whether each mask marks anything; None for one that cannot be read.

    Raises:
        StorageUnavailable: if a store does not answer for long: what a mask says must not depend on that.
    """
    decoding = threading.Semaphore(DECODES_AT_ONCE)

    def look(uri: str) -> bool | None:
        try:
            return bool(patiently(read_mask, uri, decoding).any())
        except StorageUnavailable:
            raise
        except (ImageError, StorageError):
            return None

    found: list[bool | None] = []
    with phase("reading masks", len(uris), "masks") as shown, ThreadPoolExecutor(FETCHES_AT_ONCE) as pool:
        for start in range(0, len(uris), _AT_A_TIME):
            for mark in pool.map(look, uris[start : start + _AT_A_TIME]):
                found.append(mark)
                shown.advance()
    return found


def _is_folder(uri: str) -> bool:
    if uri.endswith("/"):
        return True
    # A file's name says so, which saves a request for each mask in a bucket.
    return not pages.file_of(uri).lower().endswith(IMAGE_EXTENSIONS) and storage.is_folder(uri)
