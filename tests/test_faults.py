"""What dies on the way of a bulk run: every time the score table is that of an undisturbed run, row for row."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import ray
import s3_server
from conftest import calibrated_model, made_images
from faulty_proxy import FaultyProxy
from nodes import joining, lose_node_with
from PIL import Image
from processes import is_named, named, wait_for
from s3fs import S3FileSystem

from raydiff import storage
from raydiff.cluster.local import local_cluster
from raydiff.cluster.processes import running
from raydiff.errors import Stopped
from raydiff.images.shards import ROWS_PER_PART
from raydiff.scoring import table
from raydiff.scoring.archive_run import score_archive

# The proxy first: Ray's processes must find S3 in the environment that they begin with.
pytestmark = [pytest.mark.ray, pytest.mark.faults, pytest.mark.usefixtures("proxy", "local_ray", "one_deployment")]

ROOT = Path(__file__).parents[1]
PARTS = 20
BAD = ("bolt/0100.png", "bolt/1000.png")
REPLICA, DATA_WORKER, DECODER = (
    "ray::ServeReplica:raydiff",
    "ray::MapWorker(MapBatches(PartScorer))",
    "ray::MapBatches(",
)


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    """A calibrated model folder."""
    return calibrated_model(tmp_path_factory.mktemp("model"), "bolt")


@pytest.fixture(scope="module")
def archive(tmp_path_factory) -> str:
    """Twenty parts of images large enough that a run over them can be caught in the middle; two are bad."""
    root = tmp_path_factory.mktemp("archive") / "bolt"
    root.mkdir()
    rng = np.random.default_rng(0)
    few = [rng.integers(0, 255, (256, 256, 3), dtype=np.uint8) for _ in range(16)]
    for number in range(PARTS * ROWS_PER_PART):
        image = few[number % 16].copy()
        image[:8, :8] = number % 251  # no two are the same
        image[8:16, :8] = number // 251
        Image.fromarray(image).save(root / f"{number:04d}.png", compress_level=0)
    for name in BAD:
        (root.parent / name).write_bytes(b"no image")
    return str(root.parent)


@pytest.fixture(scope="session")
def gateway():
    """The environment of a client of an S3 server that may be killed."""
    if missing := s3_server.missing_programs():
        pytest.fail(f"FAULTS OF S3 ARE NOT TESTED: no {', '.join(missing)} on this machine; {s3_server.INSTALL}")
    with s3_server.s3_server() as environment:
        yield environment


@pytest.fixture(scope="session")
def proxy(gateway):
    """A proxy before the S3 server, by which all processes started from now on reach it."""
    assert not ray.is_initialized(), "run `make test-faults`: Ray began without the environment that S3 is found by"
    with contextlib.closing(FaultyProxy(gateway["AWS_ENDPOINT_URL"])) as found, pytest.MonkeyPatch.context() as patch:
        for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN"):
            patch.delenv(name, raising=False)
        for name, value in (gateway | {"AWS_ENDPOINT_URL": found.url}).items():
            patch.setenv(name, value)
        S3FileSystem.clear_instance_cache()
        yield found
        S3FileSystem.clear_instance_cache()


@pytest.fixture(scope="module")
def undisturbed(one_deployment, model, archive, tmp_path_factory) -> pa.Table:
    """The score table that nothing has disturbed."""
    out = str(tmp_path_factory.mktemp("undisturbed"))
    done, _ = score_archive(model, archive, out)
    assert (done.images, done.errors) == (PARTS * ROWS_PER_PART, len(BAD))
    return table.read(out)


def check(out: str, undisturbed: pa.Table) -> None:
    """The table is whole: the same rows, each once, and nothing left of the work."""
    assert table.read(out).equals(undisturbed)
    assert storage.read_json(storage.join(out, "manifest.json"))["complete"] is True
    assert not storage.exists(storage.join(out, "_work"))


def parts_done(out: str) -> int:
    """Parts that are scored and not yet in a finished shard."""
    work = storage.join(out, "_work")
    return len(storage.list_files(work)) if storage.exists(work) else 0


@contextlib.contextmanager
def scoring(model: str, archive: str, out: str, after: int = 3):
    """A run in another thread, caught after so many parts; at the end of the block it is waited for."""
    with ThreadPoolExecutor(1) as pool:
        run = pool.submit(score_archive, model, archive, out)
        wait_for(lambda: parts_done(out) >= after, still=lambda: not (run.done() and run.result()))
        yield run
        done, _ = run.result()
        assert done.scored_now == PARTS * ROWS_PER_PART


def kill_one(title: str, of: int | None = None) -> None:
    """kill -9 of one process."""
    first = wait_for(lambda: named(title, of))
    os.kill(first[0], signal.SIGKILL)
    wait_for(lambda: not is_named(first[0], title))


@pytest.mark.parametrize("title", [REPLICA, DATA_WORKER, DECODER], ids=["replica", "data worker", "decoder"])
def test_a_killed_worker(undisturbed, model, archive, tmp_path, title):
    out = str(tmp_path)
    after = 0 if title == DECODER else 3  # decoders may be done with so small an archive before three parts are scored
    with scoring(model, archive, out, after) as run:
        kill_one(title)
        assert not run.done()
    check(out, undisturbed)


def job(model: str, archive: str, out: str) -> list[str]:
    """The command of a run in a process and on a Ray of its own."""
    arguments = ["--model", model, "--data", archive, "--out", out]
    return [sys.executable, str(ROOT / "jobs/score_archive.py"), *arguments]


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_or_stopped_driver_is_gone_on_with(undisturbed, model, archive, tmp_path, job_environment, how):
    out = str(tmp_path / "out")
    command = job(model, archive, out)
    with subprocess.Popen(command, env=job_environment, stderr=subprocess.PIPE, text=True) as driver:
        try:
            wait_for(lambda: parts_done(out) >= 3, still=lambda: driver.poll() is None)
            workers = named(DATA_WORKER, driver.pid)
            driver.send_signal(how)
            _, told = driver.communicate(timeout=60)
        finally:
            driver.kill()
    if how == signal.SIGTERM:
        assert driver.returncode == 128 + signal.SIGTERM
        assert "stopped; what is finished is kept, run the same command again to go on" in told.splitlines()
    wait_for(lambda: not any(is_named(worker, DATA_WORKER) for worker in workers))
    done = parts_done(out)
    assert 3 <= done < PARTS
    assert storage.read_json(f"{out}/manifest.json") == {"complete": False, "shards": {}}
    assert table.part_names(out) == []  # nothing that a reader would take for finished
    summary, _ = score_archive(model, archive, out)
    assert summary.scored_now == (PARTS - done) * ROWS_PER_PART
    check(out, undisturbed)


def test_a_killed_node(undisturbed, model, archive, tmp_path, job_environment):
    out = str(tmp_path / "out")
    with local_cluster(nodes=3) as cluster:
        with subprocess.Popen(job(model, archive, out), env=joining(cluster, job_environment)) as driver:
            try:
                wait_for(lambda: parts_done(out) >= 3, still=lambda: driver.poll() is None)
                lose_node_with(cluster, DATA_WORKER, REPLICA)
                assert parts_done(out) < PARTS
                assert driver.wait(timeout=500) == 0
            finally:
                driver.kill()
        assert sum(node is not None for node in map(running, (node.pid for node in cluster.nodes))) == 2
    check(out, undisturbed)


@pytest.fixture
def on_s3(proxy, archive):
    """The archive on S3, and a place for its scores."""
    calm(proxy)
    fs = storage.filesystem("s3://")[0]
    bucket = f"faults-{os.urandom(6).hex()}"
    fs.mkdir(bucket)
    fs.put(archive, f"{bucket}/archive", recursive=True)
    yield f"s3://{bucket}/archive", f"s3://{bucket}/scores"
    calm(proxy)


def calm(proxy: FaultyProxy) -> None:
    """No more faults."""
    for fault in (proxy.answer_503, proxy.reset, proxy.stall):
        fault()


def same_scores(out: str, undisturbed: pa.Table, source: str) -> None:
    """As `check`, for images that lie elsewhere."""
    rows = table.read(out)
    assert [uri.removeprefix(source) for uri in rows["uri"].to_pylist()] == [
        f"/bolt/{uri.rsplit('/', 1)[-1]}" for uri in undisturbed["uri"].to_pylist()
    ]
    columns = [name for name in rows.column_names if name not in ("uri", "dataset")]
    assert rows.select(columns).equals(undisturbed.select(columns))
    assert not storage.exists(storage.join(out, "_work"))


def test_a_store_that_misbehaves_all_along(undisturbed, model, on_s3, proxy):
    source, out = on_s3
    before = proxy.requests
    proxy.answer_503(every=7)
    proxy.reset(every=11)
    proxy.stall(every=500, method="GET")
    done, _ = score_archive(model, source, out)
    assert done.errors == len(BAD)
    assert proxy.requests - before > PARTS * ROWS_PER_PART
    assert min(proxy.spoiled[fault] for fault in ("answer_503", "reset")) > 50
    assert proxy.spoiled["stall"] >= 1
    calm(proxy)
    same_scores(out, undisturbed, source)


def test_a_store_that_is_killed_and_comes_back(undisturbed, model, on_s3):
    source, out = on_s3
    with scoring(model, source, out):
        (pid,) = named("radosgw")
        command = Path(f"/proc/{pid}/cmdline").read_text().split("\0")[:-1]
        os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):  # ten seconds without a store
            subprocess.run(["sleep", "10"], check=True, timeout=15)
        again = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        same_scores(out, undisturbed, source)
    finally:
        again.terminate()
        again.wait()


def test_a_full_disk(undisturbed, model, archive, tmp_path):
    mount = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=150k", "tmpfs", str(tmp_path)], capture_output=True)
    if mount.returncode:
        pytest.skip(f"A FULL DISK IS NOT TESTED: no small disk can be mounted here ({mount.stderr.decode().strip()})")
    try:
        out = str(tmp_path / "out")
        with pytest.raises(Stopped, match=r"No space left on device.*run the same command again to go on"):
            score_archive(model, archive, out)
        done = parts_done(out)
        assert 0 < done < PARTS
        assert not list(tmp_path.rglob("*.partial"))
        subprocess.run(["mount", "-o", "remount,size=100m", str(tmp_path)], check=True)
        summary, _ = score_archive(model, archive, out)
        assert summary.scored_now == (PARTS - done) * ROWS_PER_PART
        check(out, undisturbed)
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


# A filesystem in which reading one file ends the process that reads it, as a damaged image may end its decoder.
DEADLY = """
import os, signal
from fsspec import AbstractFileSystem
from fsspec.implementations.local import LocalFileSystem

class Deadly(AbstractFileSystem):
    protocol = "deadly"
    local = LocalFileSystem()

    def ls(self, path, detail=True, **options):
        return self.local.ls(path, detail)

    def info(self, path, **options):
        return self.local.info(path)

    def cat_file(self, path, start=None, end=None, **options):
        if path.endswith("deadly.png"):
            with open(path, "a") as file:
                file.write("read\\n")
            os.kill(os.getpid(), signal.SIGKILL)
        return self.local.cat_file(path, start, end)
"""


def test_an_image_that_kills_its_reader_becomes_a_row(model, tmp_path, job_environment):
    plugin = tmp_path / "plugin"
    (plugin / "deadly-1.dist-info").mkdir(parents=True)
    (plugin / "deadly-1.dist-info/METADATA").write_text("Metadata-Version: 2.1\nName: deadly\nVersion: 1\n")
    (plugin / "deadly-1.dist-info/entry_points.txt").write_text("[fsspec.specs]\ndeadly = deadly:Deadly\n")
    (plugin / "deadly.py").write_text(DEADLY)
    images = tmp_path / "archive"
    images.mkdir()
    for number, image in enumerate(made_images(ROWS_PER_PART + 6, 24)):
        Image.fromarray(image).save(images / f"{number:03d}.png")
    (images / "007_deadly.png").write_text("")
    (images / "008_bad.png").write_text("no image")
    out = str(tmp_path / "out")
    environment = job_environment | {"PYTHONPATH": os.pathsep.join([str(plugin), str(ROOT)])}
    command = job(model, f"deadly://{images}", out)
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = {row["uri"].rsplit("/", 1)[-1]: row for row in table.read(out).to_pylist()}
    assert len(rows) == ROWS_PER_PART + 8
    bad = {name: row["error"] for name, row in rows.items() if row["error"]}
    assert sorted(bad) == ["007_deadly.png", "008_bad.png"]
    assert "ended its process 3 times" in bad["007_deadly.png"]
    # Three times with the whole part, then three times alone.
    assert (images / "007_deadly.png").read_text().count("read") == 6
