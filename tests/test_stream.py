"""The stream of decoded images on a real Ray: nothing lost, nothing twice, bad files as rows, memory bounded."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import made_images
from PIL import Image

from raydiff.errors import DataError
from raydiff.images import table
from raydiff.images.decode import decode, resize
from raydiff.images.shards import parts, read_rows, row_count
from raydiff.images.stream import Reading, stream

SIZE = 24
ROWS_PER_PART = 5


def image_table(uris: list[str]) -> pa.Table:
    """An image table of unlabelled test images, in the order given."""
    row = {"dataset": "d", "category": "bolt", "split": "test"}
    return pa.Table.from_pylist([{"uri": uri, **row} for uri in uris], schema=table.SCHEMA)


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    """URI of a table of 17 images of several sizes, three of them bad, and what is wrong with those."""
    folder = tmp_path_factory.mktemp("archive")
    for number in range(17):
        image = made_images(1, size=20 + number, seed=number)[0, : 18 + number]
        Image.fromarray(image).save(folder / f"{number:02d}.png")
    whole = (folder / "03.png").read_bytes()
    (folder / "03.png").write_bytes(whole[: len(whole) // 2])
    (folder / "09.png").write_text("not an image at all")
    images = image_table([str(path) for path in sorted(folder.iterdir())])
    (folder / "16.png").unlink()
    uri = str(folder / "images.parquet")
    table.write(uri, images)
    return uri, {"03.png": "damaged", "09.png": "this is no PNG", "16.png": "is not there"}


@pytest.mark.ray
def test_every_image_arrives_once_in_its_part(local_ray, archive):
    uri, bad = archive
    rows = table.read(uri).to_pylist()
    assert (row_count(uri), len(parts(uri, ROWS_PER_PART))) == (17, 4)
    blocks = list(stream(parts(uri, ROWS_PER_PART), Reading(SIZE)).iter_batches(batch_size=None))
    numbers = [np.unique(block["part"]).tolist() for block in blocks]
    assert sorted(numbers) == [[0], [1], [2], [3]]  # a block is a part, whole
    for block in blocks:
        start = int(block["part"][0]) * ROWS_PER_PART
        assert [json.loads(record) for record in block["record"]] == rows[start : start + ROWS_PER_PART]
        assert block["image"].dtype == np.uint8
        for place, row in enumerate(rows[start : start + ROWS_PER_PART]):
            reason = bad.get(row["uri"].rsplit("/", 1)[-1])
            found = {name: column[place] for name, column in block.items()}
            if reason:
                assert reason in found["error"]
                assert not found["image"].any()
                assert (found["height"], found["width"]) == (0, 0)
            else:
                with open(row["uri"], "rb") as file:
                    data = file.read()
                image = decode(data)
                assert found["error"] == ""
                np.testing.assert_array_equal(found["image"], resize(image, SIZE))
                assert (found["height"], found["width"]) == image.shape[:2]
                assert found["content_hash"] == hashlib.sha256(data).hexdigest()


@pytest.mark.ray
def test_only_the_parts_asked_for(local_ray, archive):
    uri, _ = archive
    rows = table.read(uri).to_pylist()
    asked = [parts(uri, ROWS_PER_PART)[number] for number in (3, 1)]
    found = stream(asked, Reading(SIZE)).drop_columns(["image"]).take_all()
    arrived = sorted((row["part"], json.loads(row["record"])["uri"]) for row in found)
    assert arrived == [(part, row["uri"]) for part in (1, 3) for row in rows[part * 5 : part * 5 + 5]]


@pytest.mark.parametrize(("start", "stop"), [(0, 7), (0, 1), (6, 8), (7, 14), (3, 20), (13, 23), (22, 23), (0, 23)])
def test_rows_across_row_groups(tmp_path, start, stop):
    images = image_table([f"/{number:02d}.png" for number in range(23)])
    uri = str(tmp_path / "images.parquet")
    pq.write_table(images, uri, row_group_size=7)
    assert read_rows(uri, start, stop).equals(images.slice(start, stop - start))
    assert read_rows(uri, start, stop, ["uri"]).equals(images.select(["uri"]).slice(start, stop - start))
    with pytest.raises(DataError, match="has 23 rows, 24 were expected"):
        read_rows(uri, start, 24)


# A Ray with the smallest object store there is; the driver is slower than the decoding tasks. The images are hard
# links to one file, so that it is the decoded ones that need the room.
BOUNDED = """
import hashlib, json, re, sys
import ray
from ray._private.internal_api import memory_summary
from raydiff import cluster
from raydiff.images.shards import parts
from raydiff.images.stream import Reading, stream

uri, size, store = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
ray.init(address="local", _node_ip_address=cluster.LOOPBACK, num_cpus=2, object_store_memory=store)
cluster.connect()
peak = lambda: 1024 * int(re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read()).group(1))
before, rows, decoded = peak(), [], 0
for block in stream(parts(uri), Reading(size)).iter_batches(batch_size=None):
    for _ in range(3):
        hashlib.sha256(block["image"]).digest()
    decoded += block["image"].nbytes
    rows += [json.loads(record)["uri"] for record in block["record"]]
store = memory_summary(ray.get_runtime_context().gcs_address, stats_only=True)
print(json.dumps({"rows": len(rows), "different": len(set(rows)), "decoded": decoded, "grown": peak() - before,
                  "store": store}))
"""


@pytest.mark.ray
def test_ten_times_the_object_store_flows_through(tmp_path, job_environment):
    size, store, count = 256, 80_000_000, 4160
    first = tmp_path / "0000.png"
    Image.fromarray(made_images(1, size=16)[0]).save(first)
    for number in range(1, count):
        (tmp_path / f"{number:04d}.png").hardlink_to(first)
    uri = str(tmp_path / "images.parquet")
    table.write(uri, image_table([str(tmp_path / f"{number:04d}.png") for number in range(count)]))
    command = [sys.executable, "-c", BOUNDED, uri, str(size), str(store)]
    done = subprocess.run(command, env=job_environment, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["rows"] == found["different"] == count
    assert found["decoded"] > 10 * store
    assert found["grown"] < 3 * store  # the driver maps the store itself, too
    assert "Plasma memory usage" in found["store"]
    assert "Spilled" not in found["store"]  # it is named only where there was some
