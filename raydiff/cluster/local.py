"""A Ray cluster of one's own on this machine: started on loopback, used by `ray job submit`, ended without a trace.

Each node is a `ray start --block` with processes of its own, so several nodes here behave as several machines do: they
can be lost one by one. `ray stop` ends every Ray of the machine; here only processes that the nodes started are ended,
so that another Ray beside them lives on. Linux only: processes are read from /proc.
"""

from __future__ import annotations

import contextlib
import ipaddress
import json
import os
import secrets
import shlex
import shutil
import socket
import subprocess
import sysconfig
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from raydiff.cluster import LOOPBACK, own_ray
from raydiff.cluster.processes import POLL_SECONDS, Process, end_families, running
from raydiff.cluster.submitting import run_job
from raydiff.errors import ClusterError

START_SECONDS = 300.0
# Ray gives a node 30 s to appear, which are few on a busy machine, and lets nobody say otherwise.
GAVE_UP = "timed out during startup"
STARTED = "Ray runtime started"  # what `ray start` prints when it can give up no more
STARTS = 3  # of a node on which Ray gave up
LOG_LINES = 20  # of a node's log, in an error
STORE_SHARE = 0.3  # of the memory, for the object stores of all nodes together, as Ray's own default for one
KEPT = ".raydiff/cluster.json"  # below HOME: the cluster that `up` has started


@dataclass
class LocalCluster:
    """A running cluster: where it answers, and the environment in which `ray` and its drivers talk to it."""

    folder: Path  # private: token, logs, Ray's files
    gcs: str  # for drivers that do not come through the job server
    dashboard: str  # dashboard and job server
    environment: dict[str, str]  # changes to the caller's
    nodes: list[Process] = field(default_factory=list)  # the head first
    started: list[subprocess.Popen[bytes]] = field(default_factory=list)  # the same, as this process's children

    def submit(self, command: Sequence[str], working_dir: str = ".") -> int:
        """Run a command as a Ray job from `working_dir`, showing its log; its exit status."""
        return run_job(self.environment, self.gcs, command, working_dir)

    def env_file(self) -> Path:
        """A file for a shell to read (`. FILE`): the environment of this cluster."""
        place = self.folder / "env"
        names = [name for name in self.environment if name != "PATH"]
        place.write_text("".join(f"export {name}={shlex.quote(self.environment[name])}\n" for name in names))
        return place


@contextlib.contextmanager
def local_cluster(nodes: int = 1) -> Iterator[LocalCluster]:
    """A cluster with all of this machine's CPUs and GPUs, on free ports and with a token of its own.

    With more nodes than one the head runs no tasks, as on a real cluster, and the others share CPUs and GPUs.
    Its files lie in a new private folder, which is removed at the end, or left and named when a node does not start.

    Raises:
        ClusterError: if a node does not start, or this is not Linux.
    """
    cluster = _new()
    started = False
    try:
        _start(cluster, nodes)
        started = True
        yield cluster
    finally:
        _end(cluster)
        if started:
            shutil.rmtree(cluster.folder, ignore_errors=True)


def up(nodes: int) -> LocalCluster:
    """Start a cluster that stays until `down`; arguments and errors as of `local_cluster`.

    Raises:
        ClusterError: if there is one already.
    """
    place = Path.home() / KEPT
    if _kept_nodes(place):
        raise ClusterError(f"a local cluster is up already (see {place}); `raydiff cluster down` ends it")
    try:
        place.parent.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise ClusterError(
            f"{place.parent}, where it is noted which cluster is up, cannot be made ({error.strerror}); set HOME to a "
            "folder that can be written"
        ) from None
    cluster = _new()
    try:
        _start(cluster, nodes)
        kept = {"folder": str(cluster.folder), "gcs": cluster.gcs, "boot": _boot(), "nodes": cluster.nodes}
        place.write_text(json.dumps(kept))
    except BaseException:
        _end(cluster)
        raise
    return cluster


def down() -> None:
    """End the cluster that `up` has started, and remove its files.

    Raises:
        ClusterError: if there is none.
    """
    place = Path.home() / KEPT
    if not place.exists():
        raise ClusterError("no local cluster is up; `raydiff cluster up` starts one")
    _end_nodes(_kept_nodes(place))
    shutil.rmtree(json.loads(place.read_text())["folder"], ignore_errors=True)
    place.unlink()


def _kept_nodes(place: Path) -> list[Process]:
    """The nodes that `up` has noted; none if they were started before the machine was."""
    if not place.exists():
        return []
    kept = json.loads(place.read_text())
    return [Process(*node) for node in kept["nodes"]] if kept["boot"] == _boot() else []


def _boot() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def _new() -> LocalCluster:
    if not Path("/proc/self/stat").exists():
        raise ClusterError(
            "a Ray cluster of one's own needs Linux; start one with `ray start --head` and set RAY_ADDRESS"
        )
    # Not under TMPDIR: a Unix socket's path may be 107 characters long, and Ray's own part of it takes 80.
    folder = Path(tempfile.mkdtemp(prefix="raydiff-", dir="/tmp"))
    gcs, dashboard = _free_ports(2)
    address = f"http://127.0.0.1:{dashboard}"
    return LocalCluster(folder, f"{LOOPBACK}:{gcs}", address, _environment(folder, address))


def _start(cluster: LocalCluster, nodes: int) -> None:
    """Start the nodes, the head first, and wait until all are there."""
    workers = max(0, nodes - 1)
    port = cluster.gcs.rpartition(":")[2]
    head = [
        "--head",
        f"--node-ip-address={LOOPBACK}",
        f"--port={port}",
        f"--ray-client-server-port={_free_ports(1)[0]}",
    ]
    head += ["--dashboard-host=127.0.0.1", f"--dashboard-port={cluster.dashboard.rpartition(':')[2]}"]
    resources = ["--num-cpus=0", "--num-gpus=0", _store(nodes)] if workers else []
    _start_node(cluster, "head", head + resources)
    if not workers:
        return
    cpus = os.cpu_count() or 1
    gpus = _gpus()
    for number in range(workers):
        own = gpus[number::workers]
        share = max(1, cpus // workers + (number < cpus % workers))
        resources = [f"--num-cpus={share}", f"--num-gpus={len(own)}", _store(nodes)]
        visible = {"CUDA_VISIBLE_DEVICES": ",".join(own)} if gpus else {}
        # An address of its own, or a driver could not tell the head's node from the others.
        place = ipaddress.ip_address(LOOPBACK) + 1 + number
        joining = [f"--address={cluster.gcs}", f"--node-ip-address={place}"]
        _start_node(cluster, f"node-{number + 1}", joining + resources, visible)


def _start_node(cluster: LocalCluster, name: str, options: list[str], more: dict[str, str] | None = None) -> None:
    for start in range(STARTS):
        agent = _free_ports(1)[0]
        own = [*options, f"--dashboard-agent-listen-port={agent}"]
        process, log = _launch(cluster, f"{name}-{start + 1}" if start else name, own, more or {})
        try:
            return _wait(cluster, process, log, agent)
        except ClusterError:
            if start + 1 == STARTS or GAVE_UP not in log.read_text(errors="replace"):
                raise
        failed = [node for node in cluster.nodes if node.pid == process.pid]
        _end_nodes(failed)
        cluster.nodes = [node for node in cluster.nodes if node not in failed]


def _launch(
    cluster: LocalCluster, name: str, options: list[str], more: dict[str, str]
) -> tuple[subprocess.Popen[bytes], Path]:
    """Start a node's process; it and its log."""
    # Files of its own, too: nodes that share a session's folder unpack and remove each other's working directories.
    command = [_ray(), "start", "--block", "--disable-usage-stats", f"--temp-dir={cluster.folder / name}"]
    command += options
    environment = os.environ | cluster.environment | more | {"PYTHONUNBUFFERED": "1"}  # its log is read
    del environment["RAY_ADDRESS"]
    own_ray.settle(environment)
    log = cluster.folder / f"{name}.log"
    with log.open("w") as output:
        process = subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # a Ctrl-C in the terminal is for the caller, who ends the node afterwards
        )
    cluster.started.append(process)
    node = running(process.pid)
    if node is not None:
        cluster.nodes.append(node)
    return process, log


def _wait(cluster: LocalCluster, process: subprocess.Popen[bytes], log: Path, agent: int) -> None:
    """Wait until `ray start` says so, and the job server answers to its token and knows of all nodes.

    And until the node's agent listens on its port: jobs are given to the head's, and Ray waits 10 s for it, which are
    few on a busy machine.
    """
    deadline = time.monotonic() + START_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(OSError):  # urllib's errors, too
            if STARTED in log.read_text(errors="replace") and _alive(cluster) >= len(cluster.nodes):
                _call(agent)
                return
        time.sleep(POLL_SECONDS)
    tail = "\n".join(log.read_text(errors="replace").splitlines()[-LOG_LINES:])
    happened = f"did not answer within {START_SECONDS:.0f} s" if process.poll() is None else "ended while it started"
    raise ClusterError(f"the Ray {log.stem} {happened}; its files are in {log.parent}, its log ends:\n{tail}")


def _alive(cluster: LocalCluster) -> int:
    """How many nodes the cluster has."""
    token = Path(cluster.environment["RAY_AUTH_TOKEN_PATH"]).read_text()
    place = f"{cluster.dashboard}/api/v0/nodes?filter_keys=state&filter_predicates=%3D&filter_values=ALIVE"
    request = urllib.request.Request(place, headers={"Authorization": f"Bearer {token}"})
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with direct.open(request, timeout=30) as answer:
        found: Any = json.load(answer)
    return len(found["data"]["result"]["result"])


def _call(agent: int) -> None:
    """Connect to a node's agent, to see whether it listens on its port.

    Raises:
        OSError: if it does not.
    """
    socket.create_connection(("127.0.0.1", agent), timeout=30).close()


def _end(cluster: LocalCluster) -> None:
    _end_nodes(cluster.nodes)
    for process in cluster.started:
        process.wait()


def _end_nodes(nodes: list[Process]) -> None:
    """End the nodes and what they started.

    Raises:
        ClusterError: if that is not possible.
    """
    left = end_families(nodes)
    if left:
        raise ClusterError(f"these processes of the local cluster could not be ended: {sorted(left)}")


def _environment(folder: Path, dashboard: str) -> dict[str, str]:
    """What makes `ray` and all that it starts find this cluster and no other."""
    token = folder / "token"
    with open(os.open(token, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(secrets.token_hex(32))
    direct = [os.environ[name] for name in ("NO_PROXY", "no_proxy") if os.environ.get(name)]
    no_proxy = ",".join([*direct, "127.0.0.1", LOOPBACK, "127.0.0.0/8"])
    return {
        "PATH": os.pathsep.join([_scripts(), os.environ.get("PATH", os.defpath)]),  # `python` is the one that runs this
        "NO_PROXY": no_proxy,
        "no_proxy": no_proxy,
        "RAY_ADDRESS": dashboard,
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token),
    }


def _gpus() -> list[str]:
    """This machine's GPUs, as CUDA_VISIBLE_DEVICES names them."""
    import torch

    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    return named.split(",") if named else [str(number) for number in range(torch.cuda.device_count())]


def _store(nodes: int) -> str:
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return f"--object-store-memory={int(STORE_SHARE * memory / nodes)}"


def _free_ports(count: int) -> list[int]:
    """Ports of this machine that nothing listens on now."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("", 0))
        return [one.getsockname()[1] for one in sockets]


def _scripts() -> str:
    return sysconfig.get_path("scripts")


def _ray() -> str:
    return os.path.join(_scripts(), "ray")
