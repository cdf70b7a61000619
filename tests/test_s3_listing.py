"""Listing a bucket by ranges, against a store held in memory; a real one is in test_storage_s3.py."""

from __future__ import annotations

import asyncio
import random
from bisect import bisect_right
from collections import Counter

import pytest
from botocore.utils import parse_timestamp
from fsspec.asyn import get_loop

from raydiff.errors import StorageError
from raydiff.storage import s3_listing, s3_session


class Store:
    """Answers as S3 does, each request after `answer` lets it."""

    def __init__(self, keys, answer=None):
        self.keys = sorted(keys, key=str.encode)  # by UTF-8's bytes, as S3 says it does
        self.answer = answer or (lambda number: asyncio.sleep(0))
        self.loop = get_loop()
        self.chains = Counter()  # requests that had to wait for one another, by where the first began
        self.requests = self.under_way = self.most = self.cancelled = 0

    async def _call_s3(self, operation, Bucket, Prefix, MaxKeys, StartAfter="", ContinuationToken=""):
        assert (operation, Bucket) == ("list_objects_v2", "bucket")
        self.requests += 1
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        try:
            await self.answer(self.requests)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.under_way -= 1
        return self.page([key for key in self.keys if key.startswith(Prefix)], MaxKeys, StartAfter, ContinuationToken)

    def page(self, keys, size, after, token):
        chain, _, start = token.rpartition(":")
        chain = chain or after
        start = int(start) if token else bisect_right(keys, after.encode(), key=str.encode)
        end = start + size
        self.chains[chain] += 1
        return {
            "Contents": [{"Key": key} for key in keys[start:end]],
            "IsTruncated": end < len(keys),
            "NextContinuationToken": f"{chain}:{end}",
        }

    def list(self, prefix=""):
        return s3_listing.keys(self, "s3://bucket", "bucket", prefix)


def plain_requests(count: int) -> int:
    return max(1, -(-count // s3_listing.PAGE))


def tree(rng: random.Random) -> list[str]:
    """Keys of one made-up way to name things."""
    letters = rng.choice(["01", "0123456789", "abc/", "ab /#?%+:", "a\x01é/検\U0001f600\uffee", "0123456789abcdef-"])
    stem = rng.choice(["", "line4/", "検査/cam_"])
    lengths = rng.choice([(1, 3), (6, 6), (1, 12)])
    made = {
        stem + "".join(rng.choice(letters) for _ in range(rng.randint(*lengths))) + rng.choice(["", ".png", "/"])
        for _ in range(rng.choice([1, 5, 60, 400]))
    }
    return [*made, *rng.sample(["a", "a/b", "a//b", "/a", "line4/", "line40", "line4"], 3)]


@pytest.mark.parametrize("seed", range(30))
def test_every_key_comes_once(monkeypatch, seed):
    rng = random.Random(seed)
    monkeypatch.setattr(s3_listing, "PAGE", rng.choice([1, 3, 10, 1000]))
    monkeypatch.setattr(s3_listing, "CUTS_AT_FIRST", rng.choice([0, 5, 64]))

    async def late(number):
        for _ in range(rng.randrange(4)):
            await asyncio.sleep(0)

    store = Store(dict.fromkeys(tree(rng)), late)
    for prefix in ("", "line4/"):
        store.requests = 0
        expected = [key for key in store.keys if key.startswith(prefix)]
        pages = list(store.list(prefix))
        assert sorted((key for page in pages for key in page), key=str.encode) == expected
        assert all(1 <= len(page) <= s3_listing.PAGE for page in pages)
        assert store.requests <= 2 * plain_requests(len(expected)) + 1 + s3_listing.CUTS_AT_FIRST
    assert store.most <= s3_listing.REQUESTS_AT_ONCE


@pytest.mark.parametrize(
    "name",
    [
        "line4/cam2_{0:08d}.png",  # one folder
        "line4/2026-05-{1:02d}/cam2_{0:08d}.png",  # few
        "line4/SN{0:08d}/front.png",  # as many as files
    ],
)
def test_many_requests_are_under_way_at_once(monkeypatch, name):
    monkeypatch.setattr(s3_listing, "PAGE", 10)

    async def together(number):
        for _ in range(5000):  # turns of the loop, so that the thread that asks can ask for all that it may
            if store.most >= s3_listing.REQUESTS_AT_ONCE:
                return
            await asyncio.sleep(0)

    store = Store((name.format(number, number % 20) for number in range(4000)), together)
    assert sum(map(len, store.list())) == 4000
    assert store.most == s3_listing.REQUESTS_AT_ONCE
    assert max(store.chains.values()) < 400 / 4  # one after the other it would be 400


def test_a_short_listing_is_one_request():
    store = Store([])
    assert list(store.list()) == []
    store = Store(["a", "b"])
    pages = store.list()
    assert store.requests == 0  # nothing is asked for before it is wanted
    assert list(pages) == [["a", "b"]]
    assert store.requests == 1


def test_a_store_without_an_order_is_asked_one_by_one(monkeypatch):
    monkeypatch.setattr(s3_listing, "PAGE", 10)
    store = Store(map(str, range(95)))
    random.Random(0).shuffle(store.keys)
    assert sorted(key for page in store.list() for key in page) == sorted(store.keys)
    assert (store.requests, store.most) == (10, 1)


def test_a_store_that_cannot_begin_after_a_key_is_refused(monkeypatch):
    monkeypatch.setattr(s3_listing, "PAGE", 10)
    store = Store(map(str, range(95)))
    page = store.page
    store.page = lambda keys, size, after, token: page(keys, size, "", token)
    with pytest.raises(StorageError, match="s3://bucket: the store lists keys in no order"):
        list(store.list())


async def _only_the_first(number):
    await (asyncio.sleep(0) if number == 1 else asyncio.Event().wait())


async def _the_third_fails(number):
    if number == 3:
        raise PermissionError("not yours")
    await _only_the_first(number)


def settled(store):
    """The store, when what was to be cancelled is."""
    for _ in range(3):
        asyncio.run_coroutine_threadsafe(asyncio.sleep(0), store.loop).result()
    return store


def test_who_stops_waits_for_nothing(monkeypatch):
    monkeypatch.setattr(s3_listing, "PAGE", 10)
    store = Store((f"{number:04d}" for number in range(1000)), _only_the_first)
    pages = store.list()
    assert next(pages) == [f"{number:04d}" for number in range(10)]
    asked = settled(store).requests
    pages.close()
    settled(store)
    assert asked > 2
    assert (store.requests, store.cancelled, store.under_way) == (asked, asked - 1, 0)


def test_the_first_error_ends_all(monkeypatch):
    monkeypatch.setattr(s3_listing, "PAGE", 10)
    store = Store((f"{number:04d}" for number in range(1000)), _the_third_fails)
    with pytest.raises(StorageError, match="access refused"):
        list(store.list())
    assert settled(store).under_way == 0
    assert store.cancelled > 2


@pytest.mark.parametrize(
    "value",
    [
        "2026-05-07T10:15:00.123Z",
        "2026-05-07T10:15:00+02:00",
        "Thu, 07 May 2026 10:15:00 GMT",
        "1778148900",
        1778148900.5,
    ],
)
def test_dates_are_read_as_botocore_reads_them(value):
    assert s3_session.timestamp(value) == parse_timestamp(value)
