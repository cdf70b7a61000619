"""An image that is too large to be held, from its file to its score: in bands of rows, in a replica of the model.

The task that decodes images has only looked at its header (see `stream`). Here its file is fetched to this machine's
disk, if it is not there, and read twice: for its hash, and for its pixels, of which the rows that tiles reach over are
in memory at a time. Its map is written as it comes.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from raydiff import storage
from raydiff.errors import ImageError, StorageError, StorageUnavailable
from raydiff.images.bands import Bands
from raydiff.images.levels import Levels
from raydiff.images.pages import digest_of, split
from raydiff.scoring.maps import write_map_rows
from raydiff.storage.patience import patiently
from raydiff.views.banded import map_rows

if TYPE_CHECKING:  # who only passes the answer on need not load torch
    from raydiff.model.folder import Model
    from raydiff.model.scored import Scored


class LargeScored(NamedTuple):
    """What was found."""

    scored: Scored | None = None  # of the one image, without its map; None where there is none
    height: int = 0  # of the image in its file, pixels
    width: int = 0
    content_hash: str = ""  # as of `File.digest`; empty where the file could not be fetched
    error: str = ""  # why the image cannot be scored
    stopped: str = ""  # why it could not be scored now


def score_large(model: Model, uri: str, row: Mapping[str, Any], map_uri: str | None) -> LargeScored:
    """Score an image in bands of its rows: the score, and the map, of the whole image, to the bit.

    Args:
        uri: of a file, or of a page of one.
        row: what its row of the image table says of how it is read: category and depth.
        map_uri: where its map is written as TIFF; None: nowhere.
    """
    digest = ""
    file, page = split(uri)
    with contextlib.ExitStack() as held:
        try:
            path = patiently(lambda: held.enter_context(storage.local_copy(file)))
            digest = digest_of(path, page)
            image = Bands(path, page, Levels.of_row(row, model.levels))
            large = model.in_rows(image.rows, image.height, image.width, row.get("category"))
        except StorageUnavailable as error:
            return LargeScored(stopped=str(error))
        except (ImageError, StorageError) as error:
            return LargeScored(content_hash=digest, error=str(error))
        sides = image.height, image.width
        try:
            rows = large.map_rows()
            if map_uri:
                write_map_rows(map_uri, map_rows(model.view, rows, *sides, model.image_size), *sides)
            else:
                _exhaust(rows)
            return LargeScored(large.scored(), *sides, digest)
        except ImageError as error:
            return LargeScored(content_hash=digest, error=str(error))
        except StorageError as error:  # of the map
            return LargeScored(stopped=str(error))


def _exhaust(rows: Iterator[Any]) -> None:
    for _ in rows:
        pass
