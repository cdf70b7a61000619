"""Object storage, against a real S3 server."""

from __future__ import annotations

import contextlib
import io
import os
import socket
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import botocore.session
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import fitted, made_images, write_mvtec
from PIL import Image
from s3fs import S3FileSystem

import raydiff
from raydiff import storage
from raydiff.errors import ModelFolderError, StorageError, StorageUnavailable
from raydiff.images import archive, pack
from raydiff.images import table as image_table
from raydiff.images.index import index
from raydiff.images.listing import Listing
from raydiff.images.pages import count
from raydiff.images.shards import parts_of, shards
from raydiff.images.stream import Reading, decode_part
from raydiff.model.description import WEIGHTS
from raydiff.model.folder import Model
from raydiff.scoring import table as score_table
from raydiff.scoring import unfinished
from raydiff.scoring.archive_plan import Requests, packing, requests
from raydiff.scoring.columns import read_part
from raydiff.storage import patience, s3_listing, uris
from raydiff.storage.patience import patiently

pytestmark = pytest.mark.s3

LONGEST = 30.0  # seconds until a user is told what is wrong


@pytest.fixture
def client_with(s3, monkeypatch):
    """Within `client_with(NAME=value)`, clients see that environment."""

    @contextlib.contextmanager
    def changed(**environment):
        with monkeypatch.context() as patch:
            for name, value in environment.items():
                patch.setenv(name, value)
            S3FileSystem.clear_instance_cache()
            try:
                yield
            finally:
                S3FileSystem.clear_instance_cache()

    return changed


@pytest.fixture
def bare_client(monkeypatch):
    """Clients that try once, so that every fault comes through to raydiff, which hardly waits."""
    config = {**uris._OPTIONS["s3"]["config_kwargs"], "retries": {"max_attempts": 0, "mode": "standard"}}
    monkeypatch.setitem(uris._OPTIONS["s3"], "config_kwargs", config)
    monkeypatch.setattr(S3FileSystem, "retries", 1)
    monkeypatch.setattr(patience, "FIRST_WAIT_SECONDS", 1e-3)
    monkeypatch.setattr(patience, "LONGEST_WAIT_SECONDS", 0.01)
    return config


def refusal(ask, *arguments) -> str:
    """The one sentence of the StorageError that this call raises."""
    began = time.monotonic()
    with pytest.raises(StorageError) as raised:
        ask(*arguments)
    assert time.monotonic() - began < LONGEST
    sentence = str(raised.value)
    assert "\n" not in sentence
    assert sentence.startswith("s3://")
    return sentence


def test_what_is_written_is_read(s3_bucket):
    for name in ("a.bin", "sub/ü b.bin", "sub/a::b.bin", "sub/c#d+e%20f.bin"):
        uri = storage.join(s3_bucket, name)
        assert not storage.exists(uri)
        storage.write_bytes(uri, b"old")
        storage.write_bytes(uri, name.encode())
        assert storage.exists(uri)
        assert storage.read_bytes(uri) == name.encode()
        with storage.local_copy(uri) as path, open(path, "rb") as file:
            assert file.read() == name.encode()
    assert [storage.read_bytes(uri).decode() for uri in storage.list_files(s3_bucket + "/sub")] == [
        "sub/a::b.bin",
        "sub/c#d+e%20f.bin",
        "sub/ü b.bin",
    ]
    assert storage.list_folders(s3_bucket) == [storage.join(s3_bucket, "sub")]
    assert storage.is_folder(s3_bucket)
    assert storage.is_folder(s3_bucket + "/sub/")
    assert not storage.is_folder(s3_bucket + "/a.bin")
    assert storage.absolute(s3_bucket + "/sub/") == s3_bucket + "/sub"
    storage.write_json(storage.join(s3_bucket, "x.json"), {"x": 1})
    assert storage.read_json(storage.join(s3_bucket, "x.json")) == {"x": 1}


def test_a_listing_of_more_than_one_page(s3_bucket, s3_proxy, bare_client):
    fs, root = storage.filesystem(s3_bucket)
    names = [f"line4/{number % 3}/ü {number:04d}%20" for number in range(2100)]  # a page has 1000 keys
    others = ["line4", "line40/a", "line4.b"]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda name: storage.write_bytes(f"{s3_bucket}/{name}", b""), names + others))
    expected = sorted(storage.join(s3_bucket, name) for name in names)
    assert expected == sorted(map(fs.unstrip_protocol, fs.find(f"{root}/line4")))
    for uri in (f"{s3_bucket}/line4", f"{s3_bucket}/line4/"):
        asked = s3_proxy.requests
        pages = storage.walk_files(uri)
        assert s3_proxy.requests == asked  # nothing is asked for before it is wanted
        found = list(pages)
        assert asked + 3 <= s3_proxy.requests <= asked + 2 * 3 + 1 + s3_listing.CUTS_AT_FIRST
        assert max(map(len, found)) == 1000
        assert sorted(file for page in found for file in page) == expected
    s3_proxy.answer_503(every=2)
    s3_proxy.reset(every=3)
    assert storage.list_files(f"{s3_bucket}/line4") == expected
    assert s3_proxy.spoiled.total() >= 3
    s3_proxy.answer_503()
    s3_proxy.reset()
    everything = {file for page in storage.walk_files(s3_bucket) for file in page}
    assert everything == {*expected, *(storage.join(s3_bucket, name) for name in others)}
    assert storage.list_folders(s3_bucket + "/line4") == [f"{s3_bucket}/line4/{number}" for number in range(3)]


ODD = [
    *("a", "a/b", "a//b", "a/b/", "/", "/a", "//a", "a b/c d", "a#1/b?x=1", "50%25/50%", "a+b", "ü/ü.png"),
    *("検査/画像.png", "a::b", "[x]*", "'\".png", "new\nline", "tab\there", "\U0001f600/\uffee"),
    *("_a", "__a", ".a/.b", "a.", "A"),
]


def test_odd_names_in_many_folders_are_listed_once(s3_bucket, monkeypatch):
    fs, root = storage.filesystem(s3_bucket)
    keys = {*ODD, *(f"{each}/{name}" for each in ODD[:6] for name in ODD[::2])}
    keys |= {f"{number % 7}/{number:03d}" for number in range(90)}
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda key: fs.call_s3("put_object", Bucket=root, Key=key, Body=b""), keys))
    client = botocore.session.get_session().create_client("s3", endpoint_url=os.environ["AWS_ENDPOINT_URL"])
    with contextlib.closing(client):
        pages = list(client.get_paginator("list_objects_v2").paginate(Bucket=root))
    there = [item["Key"] for page in pages for item in page["Contents"]]
    assert set(there) == keys
    for size in (1000, 7):
        monkeypatch.setattr(s3_listing, "PAGE", size)
        for prefix in ("", "a/", "a//"):
            below = [key for key in there if key.startswith(prefix)]
            listed = [key for page in s3_listing.keys(fs, s3_bucket, root, prefix) for key in page]
            assert sorted(listed) == sorted(below)
    files = [f"{s3_bucket}/{key}" for key in there if not key.endswith("/")]
    assert storage.list_files(s3_bucket) == sorted(files)


def test_folder_markers_are_no_files(s3_bucket):
    fs, root = storage.filesystem(s3_bucket)
    for key in ("sub/", "sub/empty/"):  # as web consoles make them
        fs.call_s3("put_object", Bucket=root, Key=key, Body=b"")
    storage.write_bytes(f"{s3_bucket}/sub/a.bin", b"1")
    assert storage.list_files(s3_bucket) == [f"{s3_bucket}/sub/a.bin"]
    assert storage.list_files(f"{s3_bucket}/sub/empty") == []
    assert list(storage.walk_files(f"{s3_bucket}/sub/empty")) == []


def test_a_folder_is_copied_at_any_depth_and_the_copy_removed(s3_bucket):
    """What a pretrained model is read from, for one."""
    files = {"model_index.json": b"{}", "unet/config.json": b"u", "text encoder/deep/weights#1.bin": bytes(range(256))}
    for name, content in files.items():
        storage.write_bytes(storage.join(s3_bucket, "sd", name), content)
    storage.write_bytes(storage.join(s3_bucket, "sd-other", "no.bin"), b"another folder's")
    for uri in (f"{s3_bucket}/sd", f"{s3_bucket}/sd/"):
        with storage.local_folder(uri) as folder:
            found = {str(path.relative_to(folder)): path.read_bytes() for path in Path(folder).rglob("*.*")}
        assert found == files
        assert not Path(folder).exists()


@pytest.mark.parametrize("megabytes", [20, 101])  # s3fs writes files of 100 MB and more in parts
def test_large_files(s3_bucket, megabytes):
    data = np.random.default_rng(0).bytes(2**20) * (megabytes - 1) + b"the end"
    uri = f"{s3_bucket}/large.bin"
    storage.write_bytes(uri, data)
    assert storage.read_bytes(uri) == data
    parts = storage.filesystem(uri)[0].info(uri)["ETag"].strip('"').partition("-")[2]
    assert bool(parts) == (megabytes > 100)


def test_arrow_writes_a_stream(s3_bucket):
    fs, path = storage.arrow_filesystem(f"{s3_bucket}/stream.bin")
    block = np.random.default_rng(0).bytes(2**20)
    with fs.open_output_stream(path) as stream:
        for _ in range(20):
            stream.write(block)
    assert storage.read_bytes(f"{s3_bucket}/stream.bin") == block * 20


def test_arrow_reads_parquet(s3_bucket):
    expected = pa.table({"x": list(range(1000)), "y": [str(x) for x in range(1000)]})
    sink = pa.BufferOutputStream()
    pq.write_table(expected, sink)
    storage.write_bytes(f"{s3_bucket}/t/x.parquet", sink.getvalue().to_pybytes())
    fs, path = storage.arrow_filesystem(f"{s3_bucket}/t/x.parquet")
    assert pq.read_table(path, filesystem=fs).equals(expected)
    fs, path = storage.arrow_filesystem(f"{s3_bucket}/t")
    assert pq.read_table(path, filesystem=fs, columns=["x"]).equals(expected.select(["x"]))


def test_what_is_not_there(s3_bucket):
    missing = f"{s3_bucket}/none.bin"
    assert not storage.exists(missing)
    for ask in (storage.read_bytes, storage.list_files, storage.list_folders):
        assert missing in refusal(ask, missing)
    storage.write_bytes(f"{s3_bucket}/a.bin", b"1")
    assert "not a folder" in refusal(storage.list_files, f"{s3_bucket}/a.bin")
    assert "s3://no-such-bucket/a is not there; check the bucket" in refusal(
        storage.read_bytes, "s3://no-such-bucket/a"
    )
    assert "check the bucket" in refusal(storage.write_bytes, "s3://no-such-bucket/a", b"1")
    assert "check the bucket" in refusal(storage.list_files, "s3://no-such-bucket")
    assert "bucket name" in refusal(storage.read_bytes, "s3://no bucket/a").lower()
    assert "s3://: " in refusal(storage.list_files, "s3://")


@pytest.mark.parametrize("wrong", ["AWS_SECRET_ACCESS_KEY", "AWS_ACCESS_KEY_ID"])
def test_wrong_credentials(s3, s3_bucket, client_with, wrong):
    uri = f"{s3_bucket}/a.bin"
    storage.write_bytes(uri, b"1")
    with client_with(**{wrong: "surely-not-this-one"}):
        asked = [(storage.read_bytes, uri), (storage.write_bytes, uri, b"2")]
        asked += [(storage.list_files, s3_bucket), (storage.list_folders, s3_bucket), (storage.is_folder, uri)]
        asked += [(ask, place) for ask in (storage.exists, storage.probe) for place in (s3_bucket, uri)]
        for call in asked:
            sentence = refusal(*call)
            assert "access refused" in sentence
            assert "check the credentials" in sentence
            for secret in ("surely-not-this-one", s3["AWS_SECRET_ACCESS_KEY"]):
                assert secret not in sentence
    assert storage.read_bytes(uri) == b"1"


def test_a_dead_endpoint(s3, s3_bucket, client_with):
    with socket.socket() as unused:  # bound, but nobody listens
        unused.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{unused.getsockname()[1]}"
        with client_with(AWS_ENDPOINT_URL=endpoint):
            sentence = refusal(storage.probe, s3_bucket)
    assert "Could not connect" in sentence
    assert endpoint in sentence
    assert s3["AWS_SECRET_ACCESS_KEY"] not in sentence


DATA = np.random.default_rng(0).bytes(2**20)


def test_faults_pass(s3_bucket, s3_proxy, bare_client):
    uri = f"{s3_bucket}/a.bin"
    storage.write_bytes(uri, DATA)
    s3_proxy.answer_503(1, method="GET")
    with pytest.raises(StorageUnavailable, match="Slow down"):
        storage.read_bytes(uri)
    s3_proxy.reset(1, method="GET")
    with pytest.raises(StorageUnavailable, match="not completed"):
        storage.read_bytes(uri)
    s3_proxy.answer_503(1, method="PUT")
    with pytest.raises(StorageUnavailable, match="Slow down"):
        storage.write_bytes(uri, b"new")
    s3_proxy.down()
    for ask in (storage.read_bytes, storage.exists, storage.probe, storage.is_folder, storage.list_folders):
        with pytest.raises(StorageUnavailable, match="Could not connect"):
            ask(uri)
    s3_proxy.up()
    assert storage.read_bytes(uri) == DATA
    assert s3_proxy.spoiled == {"answer_503": 2, "reset": 1}


@pytest.mark.parametrize("fault", ["answer_503", "reset"])
@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT"])
def test_patience_outlasts_faults(s3_bucket, s3_proxy, bare_client, fault, method):
    uri = f"{s3_bucket}/a.bin"
    getattr(s3_proxy, fault)(6, method=method)
    patiently(storage.write_bytes, uri, DATA)
    assert patiently(storage.exists, uri)  # by HEAD
    assert patiently(storage.read_bytes, uri) == DATA
    assert s3_proxy.spoiled == {fault: 6}


def test_patience_outlasts_a_server_that_is_down(s3_bucket, s3_proxy, bare_client, waits, monkeypatch):
    def wait(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) % 10 == 0:  # so many have been refused
            s3_proxy.up()

    monkeypatch.setattr(time, "sleep", wait)
    uri = f"{s3_bucket}/a.bin"
    s3_proxy.down()
    patiently(storage.write_bytes, uri, DATA)
    s3_proxy.down()
    assert patiently(storage.read_bytes, uri) == DATA
    assert len(waits) == 20


def test_patience_outlasts_a_server_that_says_nothing(s3_bucket, s3_proxy, bare_client):
    bare_client["read_timeout"] = 1
    uri = f"{s3_bucket}/a.bin"
    began = time.monotonic()
    s3_proxy.stall(1)
    patiently(storage.write_bytes, uri, DATA)
    s3_proxy.stall(1, method="GET")
    assert patiently(storage.read_bytes, uri) == DATA
    assert s3_proxy.spoiled == {"stall": 2}
    assert time.monotonic() - began < LONGEST  # it is the client that gives up; the server would after a minute


def test_steady_faults_change_nothing(s3_bucket, s3_proxy, bare_client):
    contents = {f"{s3_bucket}/{number}.bin": DATA[number : 4000 * number] for number in range(60)}
    s3_proxy.answer_503(every=7)
    s3_proxy.reset(every=5, method="GET")
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda uri: patiently(storage.write_bytes, uri, contents[uri]), contents))
        read = list(pool.map(lambda uri: patiently(storage.read_bytes, uri), contents))
    assert read == list(contents.values())
    assert s3_proxy.requests > 2 * len(contents)  # a write is one, and so is a read
    assert s3_proxy.spoiled["answer_503"] >= s3_proxy.requests // 8
    assert s3_proxy.spoiled["reset"] >= len(contents) // 5


def test_no_patience_with_what_does_not_pass(s3_bucket, s3_proxy, client_with, waits):
    uri = f"{s3_bucket}/a.bin"
    assert "is not there" in refusal(patiently, storage.read_bytes, uri)
    assert "check the bucket" in refusal(patiently, storage.write_bytes, "s3://no-such-bucket/a", b"1")
    assert "bucket name" in refusal(patiently, storage.read_bytes, "s3://no bucket/a").lower()
    with client_with(AWS_SECRET_ACCESS_KEY="surely-not-this-one"):
        assert "access refused" in refusal(patiently, storage.read_bytes, uri)
        assert "access refused" in refusal(patiently, storage.write_bytes, uri, b"1")
    assert waits == []
    assert s3_proxy.requests < 10


def billed(lines: list[str]) -> Requests:
    """Requests by what S3 bills them as."""
    kinds = {"GET": "get", "HEAD": "get", "PUT": "put", "POST": "delete"}
    found = Counter("list" if "list-type" in line else kinds[line.split()[0]] for line in lines)
    lines.clear()
    return Requests(**{name: found[name] for name in Requests._fields})


def test_a_run_asks_for_what_its_plan_says(s3_bucket, s3_proxy):
    """Its steps one by one, for 64 images: what they come to is what `archive_plan.requests` counts on."""
    picture = io.BytesIO()
    Image.new("RGB", (8, 8)).save(picture, "PNG")
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: storage.write_bytes(f"{s3_bucket}/a/{n}.png", picture.getvalue()), range(64)))
    s3_proxy.lines.clear()
    rows = pa.concat_tables(list(Listing(f"{s3_bucket}/a")))
    scores, images, packed = (f"{s3_bucket}/{name}" for name in ("scores", "scores/images", "packed"))
    archive.write_shard(images, "0001-000000-64", rows)
    listed = billed(s3_proxy.lines)
    assert listed == Requests(list=1, get=0, put=1, delete=0)
    (shard,) = shards(images)
    (part,) = parts_of([shard])
    s3_proxy.lines.clear()
    batch = {name: np.array([value]) for name, value in part._asdict().items()}
    assert not decode_part(batch, Reading(8))["error"].any()
    read = billed(s3_proxy.lines)
    done = pa.Table.from_pylist([{"uri": uri} for uri in rows["uri"].to_pylist()], score_table.SCHEMA)
    score_table.write(unfinished.work_uri(scores, shard.name, 0), done)
    unfinished.finish(scores, shard)
    assert read_part(score_table.part_uri(scores, shard.name), ["uri"]).num_rows == 64
    rest = billed(s3_proxy.lines)
    assert Requests(*map(sum, zip(listed, read, rest, strict=True))) == requests(64)

    pack._pack_shard._function(shard, f"{packed}/packed")
    once = billed(s3_proxy.lines)
    assert (once.get, once.put) == (packing(64, 1e6).get, 1)
    assert not decode_part(batch, Reading(8, packed_uri=packed))["error"].any()
    assert requests(64).get - requests(64, packed=True).get == read.get - billed(s3_proxy.lines).get - 1


def test_pages_are_counted_by_small_parts_of_a_file(s3_bucket, s3_proxy, monkeypatch):
    """A stack of 12 MB, of which the directories alone are asked for."""
    some = [Image.fromarray(picture) for picture in made_images(3, 1024)]
    some[0].save(file := io.BytesIO(), "TIFF", save_all=True, append_images=some[1:])
    storage.write_bytes(f"{s3_bucket}/stack.tif", file.getvalue())
    monkeypatch.setattr(storage, "read_bytes", None)
    s3_proxy.lines.clear()
    assert count(f"{s3_bucket}/stack.tif") == 3
    assert count(f"{s3_bucket}/missing.tif") == 1
    assert billed(s3_proxy.lines).get <= 8


def test_index_of_a_bucket(s3_bucket, tmp_path):
    write_mvtec(tmp_path, train=3, test=2)
    fs, root = storage.filesystem(s3_bucket)
    fs.put(f"{tmp_path}/", f"{root}/images", recursive=True)
    storage.write_bytes(f"{s3_bucket}/images/bolt/train/good/bad.png", b"no image")
    report = index(f"{s3_bucket}/images/", f"{s3_bucket}/run/images.parquet")
    local = index(str(tmp_path), str(tmp_path / "images.parquet"))
    assert [group for group in report.groups if group[:3] != ("bolt", "train", "good")] == [
        group for group in local.groups if group[:3] != ("bolt", "train", "good")
    ]
    assert [problem.uri for problem in report.unreadable] == [f"{s3_bucket}/images/bolt/train/good/bad.png"]
    assert report.ignored + report.misplaced + report.bad_masks + report.unused_masks == ()
    images = image_table.read(f"{s3_bucket}/run/images.parquet")
    assert len(images) == 2 * 7 + 1
    masked = images.filter(pa.compute.is_valid(images["mask_uri"])).to_pylist()
    assert len(masked) == 4
    for row in masked:
        assert row["mask_uri"] == row["uri"].replace("/test/", "/ground_truth/").replace(".png", "_mask.png")
        assert storage.read_bytes(row["mask_uri"]) == storage.read_bytes(
            row["mask_uri"].replace(f"{s3_bucket}/images", str(tmp_path))
        )


def test_score_table_parts(s3_bucket):
    uri = f"{s3_bucket}/scores/nearest_patch"
    rows = [{"uri": f"s3://x/{number}", "score": number / 3, "is_anomalous": number > 1} for number in range(4)]
    tables = [pa.Table.from_pylist(part, schema=score_table.SCHEMA) for part in (rows[:2], rows[2:])]
    places = [score_table.part_uri(uri, name) for name in ("0001-000000-2", "0001-000001-2")]
    score_table.write(places[1], tables[1])
    score_table.write(places[0], tables[0])
    score_table.write(places[1], tables[1])  # again, as after a crash
    storage.write_bytes(f"{uri}/scores.csv", b"not a part")
    assert score_table.parts(uri) == places
    assert score_table.read(uri).equals(pa.concat_tables(tables))


def test_model_round_trip(s3_bucket):
    method, _ = fitted("nearest_patch", made_images(6))
    model = Model(method, method.ScoreSettings())
    uri = f"{s3_bucket}/models/nearest_patch"
    model.save(uri)
    loaded = raydiff.load(uri)
    assert loaded.id == model.id
    images = made_images(2, seed=3)
    np.testing.assert_array_equal(loaded.score(images).scores, model.score(images).scores)

    weights = storage.read_bytes(f"{uri}/{WEIGHTS}")
    changed = bytearray(weights)
    changed[len(changed) // 2] ^= 1
    for bad in (weights[:-1000], bytes(changed)):
        storage.write_bytes(f"{uri}/{WEIGHTS}", bad)
        with pytest.raises(ModelFolderError, match=f"{WEIGHTS} is not the file"):
            raydiff.load(uri)
    with pytest.raises(ModelFolderError, match="is not a model folder"):
        raydiff.load(f"{s3_bucket}/models/none")
