"""`raydiff doctor`: each thing is seen to be in order, and each that is not ends in a sentence that says what to do."""

import email.message
import http.server
import importlib.metadata
import json
import shutil
import socket
import subprocess
import sys
import threading
from collections import namedtuple

import pytest
from huggingface_hub import constants
from typer.testing import CliRunner

from raydiff import cli, doctor
from raydiff.doctor import Finding

Usage = namedtuple("Usage", "total used free")


def metadata(*requirements, python=">=3.11"):
    made = email.message.Message()
    made["Requires-Python"] = python
    made["Provides-Extra"] = "more"
    for each in requirements:
        made["Requires-Dist"] = each
    return made


@pytest.fixture
def installed(monkeypatch):
    def as_if(*requirements, **of_python):
        monkeypatch.setattr(importlib.metadata, "metadata", lambda _: metadata(*requirements, **of_python))
        return {finding.check: finding for finding in doctor.packages()}

    return as_if


def test_what_is_installed_here_is_new_enough():
    found = {finding.check: finding for finding in doctor.packages()}
    assert found["python"].says.startswith("{}.{}.{}".format(*sys.version_info))
    assert {finding.status for finding in found.values()} == {"ok"}


def test_packages_that_are_missing_or_too_old_are_named(installed):
    numpy = importlib.metadata.version("numpy")
    found = installed("numpy>=999", "no-such-package>=1", "pyarrow>=1", "no-such-either; sys_platform == 'none'")
    assert found["packages"].status == "wrong"
    assert (
        f"numpy {numpy} is installed, and >=999 is needed; no-such-package is not installed" in found["packages"].says
    )
    assert "pyarrow" not in found["packages"].says
    assert installed("numpy>=1", python=">=9.1")["python"].status == "wrong"


def test_an_extra_counts_only_if_some_of_it_is_there(installed):
    assert installed("no-such-package>=1; extra == 'more'")["packages"].status == "ok"
    found = installed("no-such-package>=1; extra == 'more'", "numpy>=1; extra == 'more'")["packages"]
    assert (found.status, "pip install --upgrade 'raydiff[more]'" in found.says) == ("but", True)


def test_without_an_address_no_cluster_is_asked(monkeypatch):
    monkeypatch.setattr(subprocess, "run", None)
    assert doctor.cluster(None).status == "ok"
    assert importlib.metadata.version("ray") in doctor.cluster(None).says


@pytest.mark.parametrize(
    ("prints", "status", "says"),
    [
        ('a log line\n{"says": "all is well"}\n', "ok", "all is well"),
        ('{"error": "the token is refused; bring another"}\n', "wrong", "the token is refused; bring another"),
        ("", "wrong", "fails at the cluster at head:1 (Killed); is the same Ray installed there?"),
        ("no JSON\n", "wrong", "is the same Ray installed there?"),
    ],
)
def test_a_clusters_answer_is_told(monkeypatch, prints, status, says):
    asked = []

    def run(command, **_):
        asked.append(command)
        return subprocess.CompletedProcess(command, 0, prints, "first\nKilled\n")

    monkeypatch.setattr(subprocess, "run", run)
    found = doctor.cluster("head:1")
    assert found.status == status
    assert says in found.says
    assert asked == [[sys.executable, "-m", "raydiff.cluster.greeting", "head:1"]]


def test_a_cluster_that_is_silent_is_not_waited_for(monkeypatch):
    monkeypatch.setattr(doctor, "RAY_SECONDS", 0.001)
    found = doctor.cluster("head:1")
    assert (found.status, "says nothing within 0.001 s" in found.says) == ("wrong", True)


def test_data_is_listed_and_read(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "full" / "OK").mkdir(parents=True)
    (tmp_path / "full" / "OK" / "1.png").write_bytes(b"x")
    assert doctor.readable(str(tmp_path / "full")).status == "ok"
    assert doctor.readable(f"file://{tmp_path}/full/OK/1.png").status == "ok"
    assert "without one file" in doctor.readable(str(tmp_path / "empty")).says
    missing = doctor.readable(str(tmp_path / "nowhere"))
    assert (missing.status, f"{tmp_path}/nowhere is not there" in missing.says) == ("wrong", True)
    assert doctor.readable("nothing://known/x").status == "wrong"


def test_out_is_written_to_and_left_as_it_was(tmp_path):
    (tmp_path / "file").write_text("x")
    assert doctor.writable(str(tmp_path / "new" / "deeper")) == Finding(
        "out", "ok", f"{tmp_path}/new/deeper can be written"
    )
    assert doctor.writable(f"file://{tmp_path}").status == "ok"
    assert doctor.writable(str(tmp_path / "file" / "below")).status == "wrong"
    assert [each.name for each in tmp_path.iterdir()] == ["file"]


def test_a_store_that_never_answers_is_given_up(monkeypatch, tmp_path):
    never = threading.Event()
    monkeypatch.setattr(doctor, "STORAGE_SECONDS", 0.05)
    monkeypatch.setattr(doctor.storage, "opened", lambda _: never.wait())
    (tmp_path / "1.png").write_bytes(b"x")
    found = doctor.readable(str(tmp_path))
    never.set()
    assert (found.status, "no answer within 0.05 s" in found.says) == ("wrong", True)


def test_a_hub_is_asked_within_seconds(monkeypatch):
    class Hub(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self):
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_):
            pass

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    with http.server.HTTPServer(("127.0.0.1", 0), Hub) as server:
        threading.Thread(target=server.handle_request, daemon=True).start()
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.server_port}")
        assert doctor.hub().status == "ok"
    with socket.socket() as listener:  # takes connections, and says nothing
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{listener.getsockname()[1]}")
        monkeypatch.setattr(doctor, "HUB_SECONDS", 0.1)
        found = doctor.hub()
    assert (found.status, "no answer within 0.1 s" in found.says, "--backbone-weights" in found.says) == (
        "but",
        True,
        True,
    )
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert doctor.hub().status == "but"


@pytest.mark.parametrize(
    ("total", "free", "status"),
    [(1e12, 5e11, "ok"), (1e12, 4e10, "but"), (1e12, 5e8, "wrong"), (5e9, 2e9, "ok")],
)
def test_full_disks_are_told(monkeypatch, tmp_path, total, free, status):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(total, total - free, free))
    found = [finding for finding in doctor.disks(str(tmp_path / "new")) if finding.check == "disk"]
    assert {finding.status for finding in found} == {status}
    assert f"in {tmp_path}" in found[0].says


def test_little_shared_memory_is_told(monkeypatch):
    monkeypatch.setattr(doctor, "_memory", lambda: 100 * 10**9)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(64e9, 0, 64e6))
    (found,) = [finding for finding in doctor.disks() if finding.check == "memory"]
    assert (found.status, "--shm-size=30g" in found.says) == ("but", True)


@pytest.mark.parametrize("status", ["ok", "but", "wrong"])
def test_the_command_ends_with_1_only_for_what_stops_work(monkeypatch, status):
    found = [Finding("python", "ok", "3"), Finding("hub", status, "one [sentence]")]
    monkeypatch.setattr(doctor, "examine", lambda *asked: iter(found))
    shown = CliRunner().invoke(cli.app, ["doctor"])
    assert shown.exit_code == (status == "wrong")
    assert [line.split()[0] for line in shown.stdout.splitlines()[:2]] == ["ok", status]
    assert "one [sentence]" in shown.stdout
    assert "\x1b" not in shown.stdout
    told = CliRunner().invoke(cli.app, ["doctor", "--json"])
    assert told.exit_code == (status == "wrong")
    assert json.loads(told.stdout) == [finding._asdict() for finding in found]
