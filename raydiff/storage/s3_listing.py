"""All keys of an S3-like bucket, asked for many requests at once, in bounded memory.

A request brings 1,000 keys in the order of their bytes, and the next one needs its answer. So the keys are cut into
ranges that are listed side by side: whenever a range goes on and one request more may be under way, it is cut in two
somewhere ahead of where it is. Where is a guess from the keys seen, and only speed depends on it: together the ranges
are always all keys, and each key lies in one. Folders are not asked for, because an archive with a folder for each
product would cost a request each.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass
from itertools import takewhile
from operator import lt
from typing import Any

from raydiff.errors import StorageError
from raydiff.storage.errors import explained
from raydiff.storage.patience import patiently_awaited

PAGE = 1000  # keys of one request; S3 gives no more
REQUESTS_AT_ONCE = 16
CUTS_AT_FIRST = 64  # it takes some to find out which letters all keys share
_SAMPLE = 50  # each so-many-th key of a page is looked at for the letters that keys are made of


@dataclass
class _Range:
    """Keys after one and up to another, that one included. Python compares text as stores do: by code points, which is
    the order of UTF-8's bytes.
    """

    after: str  # grows as keys come; "" is before all
    upto: str | None  # None is behind all
    token: str = ""  # with which the store goes on; "" if it was not asked yet


def keys(fs: Any, uri: str, bucket: str, prefix: str) -> Iterator[list[str]]:
    """All keys that begin with `prefix`, each once, in lists of at most 1,000 and in no order.

    It takes at most twice as many requests as one after the other would, and 65 more. What is under way is cancelled
    when the caller stops.

    Args:
        fs: an `s3fs.S3FileSystem` or alike.
        uri: what errors name.

    Raises:
        StorageError: if the bucket is not there or may not be listed.
        StorageUnavailable: if the store gives no list; it is asked for each `patiently`.
    """
    under_way: dict[Future[Any], _Range] = {}
    letters: set[str] = set()
    ordered = True  # some stores' lists are not (S3's directory buckets); those are asked one after the other
    cut = False
    spare = CUTS_AT_FIRST  # and one more for each full page, so that wrong guesses stay few

    def ask(part: _Range) -> None:
        future = asyncio.run_coroutine_threadsafe(_page(fs, uri, bucket, prefix, part), fs.loop)
        under_way[future] = part

    try:
        ask(_Range("", None))
        while under_way:
            pages = []
            for future in wait(under_way, return_when=FIRST_COMPLETED).done:
                part, answer = under_way.pop(future), future.result()
                found = [item["Key"] for item in answer.get("Contents", [])]
                ordered = ordered and all(map(lt, [part.after, *found], found))
                if cut and not ordered:
                    raise StorageError(f"{uri}: the store lists keys in no order; give a table of the images instead")
                mine = found if part.upto is None else found[: bisect_right(found, part.upto)]
                pages.append(mine)
                if not answer.get("IsTruncated") or len(mine) < len(found):
                    continue
                part.token = answer["NextContinuationToken"]
                part.after = mine[-1] if mine else part.after
                spare += 1
                letters.update(*mine[::_SAMPLE], *mine[-1:])
                while ordered and mine and spare and len(under_way) + 1 < REQUESTS_AT_ONCE:
                    place = _between(part, letters, len(prefix), _shared(mine[0], mine[-1]))
                    if place is None:
                        break
                    ask(_Range(place, part.upto))
                    part.upto = place
                    spare -= 1
                    cut = True
                ask(part)
            yield from filter(None, pages)
    finally:
        for future in under_way:
            future.cancel()


async def _page(fs: Any, uri: str, bucket: str, prefix: str, part: _Range) -> Any:
    """The store's next answer for a range."""
    where = {"ContinuationToken": part.token} if part.token else {"StartAfter": part.after} if part.after else {}

    async def ask() -> Any:
        with explained(uri, fs):
            return await fs._call_s3("list_objects_v2", Bucket=bucket, Prefix=prefix, MaxKeys=PAGE, **where)

    return await patiently_awaited(ask)


def _between(part: _Range, letters: Iterable[str], first: int, last: int) -> str | None:
    """Some place inside a range, as near to the middle of what is ahead as can be told.

    It is the last known key up to the first letter that can still grow, and there a letter half-way to the range's end.

    Args:
        letters: those that keys are made of.
        first: how many letters all keys share.
        last: the last letter to be changed: the first one in which a page's own keys differ. What lies behind that is
            less than a page, and None is returned.
    """
    known, end = part.after, part.upto
    for place in range(first if end is None else _shared(known, end), min(last + 1, len(known))):
        stem = known[:place]
        ahead = sorted(letter for letter in letters if letter > known[place] and (end is None or stem + letter < end))
        if ahead:
            return stem + ahead[len(ahead) // 2]
    return None


def _shared(one: str, other: str) -> int:
    """With how many letters both begin."""
    return len(list(takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False))))
