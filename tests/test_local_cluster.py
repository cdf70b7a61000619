"""A cluster of several nodes on this machine: started, used with its token and no other, and ended, by its commands."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from processes import wait_for

from raydiff.cluster.local import GAVE_UP, STARTED, local_cluster
from raydiff.cluster.processes import running
from raydiff.errors import ClusterError

pytestmark = pytest.mark.ray

RAYDIFF = [sys.executable, "-c", "from raydiff.cli import main; main()"]
RAY = str(Path(sys.executable).with_name("ray"))
JOB = "import ray; ray.init(); print('CPUs', sorted(node['Resources'].get('CPU', 0) for node in ray.nodes()))"
SUBMIT = """
import os, pathlib, sys
from raydiff.cluster.local import LocalCluster
names = "RAY_ADDRESS", "RAY_AUTH_MODE", "RAY_AUTH_TOKEN_PATH"
cluster = LocalCluster(pathlib.Path("."), sys.argv[1], "", {name: os.environ.pop(name) for name in names})
sys.exit(cluster.submit(sys.argv[3:], sys.argv[2]))
"""
CONNECT = """
import sys
from raydiff import cluster
from raydiff.errors import ClusterError
try:
    cluster.connect(sys.argv[1])
except ClusterError as error:
    print(f"refused: {error}")
"""


def run(command: list[str], environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900)


def exported(place: Path) -> dict[str, str]:
    """What a shell that has read the file exports."""
    (line,) = (shlex.split(line) for line in [place.read_text().replace("export ", "")])
    return dict(item.split("=", 1) for item in line)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """An environment without a cluster, in a HOME of its own."""
    outside = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    environment = outside | {"HOME": str(tmp_path_factory.mktemp("home"))}
    yield environment
    run([*RAYDIFF, "cluster", "down"], environment)  # whatever a failed test has left


@pytest.fixture(scope="module")
def up(home):
    """A cluster of three nodes, and the environment that its file gives."""
    told = run([*RAYDIFF, "cluster", "up", "--nodes", "3"], home)
    assert told.returncode == 0, told.stderr
    kept = json.loads((Path(home["HOME"]) / ".raydiff/cluster.json").read_text())
    assert f". {kept['folder']}/env" in told.stdout
    return kept, home | exported(Path(kept["folder"]) / "env")


def test_a_job_finds_three_nodes_and_the_head_without_work(up):
    kept, environment = up
    submitted = run([RAY, "job", "submit", "--", sys.executable, "-c", JOB], environment)
    assert submitted.returncode == 0, submitted.stdout + submitted.stderr
    half = (os.cpu_count() or 1) / 2
    assert f"CPUs {[0, max(1.0, half // 1), max(1.0, -(-half // 1))]}" in submitted.stdout
    sessions = {place.parent.name: place.resolve() for place in Path(kept["folder"]).glob("*/session_latest")}
    assert len(set(sessions.values())) == len(sessions)  # sharing one, a node would remove another's working directory
    started = {re.match(r"head|node-\d+", name)[0] for name in sessions}  # some again, after a start that Ray gave up
    assert started == {"head", "node-1", "node-2"}


def test_a_submission_shows_the_jobs_lines_alone_and_hands_its_exit_status_back(up, tmp_path):
    kept, environment = up
    (tmp_path / "job.py").write_text("import os, sys\nprint(os.environ[sys.argv[1]], *sys.argv[2:])\nsys.exit(3)\n")
    job = [sys.executable, "job.py", "RAYDIFF_TYPED_IN", "--two words"]
    done = run([sys.executable, "-c", SUBMIT, kept["gcs"], str(tmp_path), *job], environment)
    assert (done.returncode, done.stdout, done.stderr) == (3, f"{os.getcwd()} --two words\n", "")


def test_a_second_one_is_refused(up, home):
    again = run([*RAYDIFF, "cluster", "up"], home)
    assert again.returncode == 1
    assert "a local cluster is up already" in again.stderr
    assert again.stderr.count("\n") == 1


@pytest.mark.parametrize("token", ["wrong" * 16, None])
def test_no_token_and_a_wrong_one_are_refused(up, tmp_path, token):
    kept, environment = up
    other = {name: value for name, value in environment.items() if name != "RAY_AUTH_TOKEN_PATH"}
    if token:
        (tmp_path / "token").write_text(token)
        other["RAY_AUTH_TOKEN_PATH"] = str(tmp_path / "token")
    else:
        other["RAY_AUTH_MODE"] = "disabled"
    marker = tmp_path / "ran"
    submitted = run([RAY, "job", "submit", "--", "touch", str(marker)], other)
    assert submitted.returncode == 1
    assert "ken authentication is enabled" in submitted.stderr
    assert not marker.exists()
    if token:  # Ray tries for 20 s
        joined = run([sys.executable, "-c", CONNECT, kept["gcs"]], other | {"RAY_ADDRESS": ""})
        assert joined.stdout.startswith(f"refused: no Ray cluster answers at {kept['gcs']}"), joined.stderr
        assert "does it take this token" in joined.stdout


def test_a_job_server_is_no_address(up):
    _, environment = up
    joined = run([sys.executable, "-c", CONNECT, environment["RAY_ADDRESS"]], environment)
    assert joined.stdout.startswith(f"refused: {environment['RAY_ADDRESS']} is a job server, for `ray job submit`")


@pytest.mark.faults
def test_down_ends_all_of_it_even_if_a_node_was_killed(up, home):
    kept, _ = up
    head = kept["nodes"][0][0]
    os.kill(head, signal.SIGKILL)  # its raylet and all the others live on
    wait_for(lambda: running(head) is None)
    assert marked(kept["folder"])
    down = run([*RAYDIFF, "cluster", "down"], home)
    assert (down.returncode, down.stdout) == (0, "the local cluster has ended\n"), down.stderr
    assert not marked(kept["folder"])
    assert not Path(kept["folder"]).exists()
    again = run([*RAYDIFF, "cluster", "down"], home)
    assert again.returncode == 1
    assert "no local cluster is up; `raydiff cluster up` starts one" in again.stderr


def marked(folder: str) -> list[int]:
    """Processes whose command or environment names the cluster's folder."""
    found = []
    for place in Path("/proc").iterdir():
        if place.name.isdigit():
            try:
                told = (place / "cmdline").read_bytes() + (place / "environ").read_bytes()
            except OSError:
                continue
            if folder.encode() in told:
                found.append(int(place.name))
    return found


def test_a_node_on_which_ray_gave_up_is_started_again(tmp_path, monkeypatch) -> None:
    """Ray's limit of 30 s is not ours, and not to be set."""
    ray = tmp_path / "ray"
    ray.write_text(
        '#!/bin/sh\necho "$@" >> "$0.called"\n'
        f'[ $(wc -l < "$0.called") = 3 ] && echo "{STARTED}." && exec sleep 60\n'
        f'echo "Exception: The current node {GAVE_UP}."\nexit 1\n'
    )
    ray.chmod(0o700)
    monkeypatch.setattr("raydiff.cluster.local._ray", lambda: str(ray))
    monkeypatch.setattr("raydiff.cluster.local._alive", lambda cluster: 1)  # as the GCS knows of a node early
    monkeypatch.setattr("raydiff.cluster.local._call", lambda agent: None)

    def ray_calls() -> list[str]:
        return Path(f"{ray}.called").read_text().splitlines() if Path(f"{ray}.called").exists() else []

    with local_cluster() as cluster:
        assert len(ray_calls()) == 3
        assert len(cluster.nodes) == 1
        folders = [call.partition("--temp-dir=")[2].split()[0] for call in ray_calls()]
        assert [Path(folder).name for folder in folders] == ["head", "head-2", "head-3"]
    Path(f"{ray}.called").write_text("")
    monkeypatch.setattr("raydiff.cluster.local.STARTS", 2)
    with pytest.raises(ClusterError, match=f"(?s)ended while it started; .*{GAVE_UP}") as error, local_cluster():
        pass
    assert len(ray_calls()) == 2
    shutil.rmtree(str(error.value).partition("its files are in ")[2].partition(",")[0])
