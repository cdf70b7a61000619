"""One run at a time in a folder: who is at work is told, and who was killed holds nothing up."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from conftest import calibrated_model, write_mvtec

from raydiff import at_work as module
from raydiff import storage
from raydiff.at_work import FILE, at_work, check
from raydiff.errors import DataError, Stopped, StorageError
from raydiff.scoring import archive_run

ROOT = Path(__file__).parents[1]
HOLD = """
import sys
from raydiff.at_work import at_work

with at_work(sys.argv[1]):
    print("in", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def quick(monkeypatch):
    """All waits a hundredth as long."""
    for name in ("BEAT_SECONDS", "DEAD_SECONDS", "LOOK_SECONDS", "SETTLE_SECONDS"):
        monkeypatch.setattr(module, name, getattr(module, name) / 100)


@pytest.fixture(params=["local", pytest.param("s3", marks=pytest.mark.s3)])
def folder(request, tmp_path):
    return str(tmp_path / "out") if request.param == "local" else f"{request.getfixturevalue('s3_bucket')}/out"


def holder(folder: str) -> subprocess.Popen:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, folder],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "in\n"
    return process


def test_a_second_run_is_told_of_the_first_and_a_killed_one_holds_nothing_up(folder, quick):
    with holder(folder) as process:
        with (
            pytest.raises(DataError, match=rf"a run is at work in {folder} since .*process {process.pid} on "),
            at_work(folder),
        ):
            pass
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        with at_work(folder):  # no wait for its beats: its process is known to be gone
            assert storage.read_json(storage.join(folder, FILE))["pid"] == os.getpid()
    assert not storage.exists(storage.join(folder, FILE))


def test_a_run_that_ends_leaves_nothing(tmp_path):
    process = holder(str(tmp_path))
    process.communicate("", timeout=60)
    assert list(tmp_path.iterdir()) == []


def elsewhere(folder: str, beats: int) -> None:
    about = {
        "id": "theirs",
        "since": "2026-05-01T06:00:00+00:00",
        "host": "node-7",
        "job": "raysubmit_1",
        "beats": beats,
    }
    storage.write_json(storage.join(folder, FILE), {**about, "pid": 7, "began": 1, "boot": "another", "space": "x"})


def test_a_run_elsewhere_is_taken_over_when_its_file_stands_still(folder, quick, capsys):
    elsewhere(folder, 3)
    with at_work(folder):
        check(folder)
    assert "a run on node-7 was at work here; looking for up to" in capsys.readouterr().out
    assert not storage.exists(storage.join(folder, FILE))


def test_a_run_elsewhere_that_beats_is_left_alone(tmp_path, quick, monkeypatch):
    elsewhere(str(tmp_path), 1)
    monkeypatch.setattr(module.time, "sleep", lambda seconds: elsewhere(str(tmp_path), 2))
    sentence = r"since 2026-05-01T06:00:00\+00:00 \(process 7 on node-7, Ray job raysubmit_1\)"
    with pytest.raises(DataError, match=sentence), at_work(str(tmp_path)):
        pass
    assert json.loads((tmp_path / FILE).read_text())["id"] == "theirs"


def test_who_was_taken_over_stops_and_leaves_the_others_file(tmp_path, quick):
    folder = str(tmp_path)
    with at_work(folder):
        check(folder)
        elsewhere(folder, 1)
        assert module._held[folder].lost.wait(30)
        with pytest.raises(Stopped, match="another run has gone on"):
            check(folder)
    assert json.loads((tmp_path / FILE).read_text())["id"] == "theirs"


def test_the_file_beats(tmp_path, quick):
    place = tmp_path / FILE
    with at_work(str(tmp_path)):
        first, deadline = place.read_text(), threading.Event()
        while place.read_text() == first:
            assert not deadline.wait(0.01)


def test_steps_of_one_run_are_nested_and_other_threads_are_not(tmp_path):
    folder = str(tmp_path)
    with at_work(folder):
        with at_work(folder):
            pass
        assert (tmp_path / FILE).exists()
        with ThreadPoolExecutor(1) as pool, pytest.raises(DataError, match=r"at work in .* already"):
            pool.submit(at_work(folder).__enter__).result()
    with at_work(folder):  # and again after it
        pass


def test_of_threads_that_begin_together_one_gets_in(tmp_path, quick):
    gate, refused = threading.Barrier(4), threading.Semaphore(0)

    def enter(_: int) -> bool:
        gate.wait(30)
        try:
            with at_work(str(tmp_path)):  # until all others have tried
                return all(refused.acquire(timeout=30) for _ in range(3))
        except DataError:
            refused.release()
            return False

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(enter, range(4))) == 1
    assert not module._held


def test_a_lost_run_folder_stops_what_lies_in_it(tmp_path, quick):
    folder = str(tmp_path)
    with at_work(folder):
        module._held[folder].lost.set()
        check(f"{folder}x/scores")  # another's
        for place in (folder, f"{folder}/scores/lafite-1/test"):
            with pytest.raises(Stopped, match=f"gone on in {folder},"):
                check(place)
        with pytest.raises(Stopped), at_work(folder):  # the run's next step
            pass


def test_a_claim_that_may_not_be_read_is_not_taken_for_none(tmp_path, quick, monkeypatch):
    elsewhere(str(tmp_path), 1)

    def refuse(uri):
        raise StorageError(f"{uri}: access refused")

    monkeypatch.setattr(storage, "read_bytes", refuse)
    with pytest.raises(StorageError, match="access refused"), at_work(str(tmp_path)):
        pass
    assert json.loads((tmp_path / FILE).read_text())["id"] == "theirs"


def test_a_store_that_knows_no_conditional_writes_gets_a_plain_one(monkeypatch):
    fs = storage.filesystem("memory://")[0]
    plain = type(fs).pipe_file

    def pipe_file(self, path, value, mode="overwrite", **options):
        if mode == "create":
            raise NotImplementedError("If-None-Match")
        return plain(self, path, value, **options)

    monkeypatch.setattr(type(fs), "pipe_file", pipe_file)
    assert storage.create("memory://claims/x", b"1")
    assert not storage.create("memory://claims/x", b"2")
    assert storage.read_bytes("memory://claims/x") == b"1"
    storage.delete("memory://claims")


def test_of_many_at_the_same_time_one_creates_the_file(folder):
    with ThreadPoolExecutor(8) as pool:
        done = list(pool.map(lambda number: storage.create(f"{folder}/x", b"%d" % number), range(8)))
    assert sum(done) == 1
    assert storage.read_bytes(f"{folder}/x") == b"%d" % done.index(True)


def test_a_half_written_or_foreign_file_holds_nothing_up(tmp_path, quick):
    (tmp_path / FILE).write_text('{"id": ')
    with at_work(str(tmp_path)):
        pass


def test_a_second_archive_run_does_nothing(tmp_path, monkeypatch):
    data, out = write_mvtec(tmp_path / "images", train=2, test=1), str(tmp_path / "out")
    model = calibrated_model(tmp_path / "model", "bolt")
    monkeypatch.setattr(archive_run.cluster, "connect", lambda *asked: pytest.fail("a cluster was joined"))
    with holder(out) as process:
        before = sorted(Path(out).iterdir())
        with pytest.raises(DataError, match="a run is at work in"):
            archive_run.score_archive(model, str(data), out)
        assert sorted(Path(out).iterdir()) == before
        process.kill()
