"""A Ray head of one's own on this machine: started on loopback, used through `ray job submit`, ended without a trace.

`ray stop` ends every Ray of the machine; here only processes that the head started are ended, found by descent and by
Unix session, so that another Ray beside it lives on. Linux only: processes are read from /proc.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sysconfig
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from raydiff.cluster import LOOPBACK
from raydiff.errors import ClusterError
from raydiff.progress import console

START_SECONDS = 120.0
END_SECONDS = 3.0  # how long a process may take to end by itself; some of Ray's never do
POLL_SECONDS = 0.2
INTERRUPTS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
LOG_LINES = 20  # of the head's log, in an error


@dataclass(frozen=True)
class LocalHead:
    """A running head: the address of its dashboard and job server, and the environment in which `ray` talks to it."""

    dashboard: str
    environment: dict[str, str]

    def submit(self, command: Sequence[str], working_dir: str = ".") -> int:
        """Run a command as a Ray job from `working_dir`, showing its log; the exit status of `ray job submit`."""
        submit = [_ray(), "job", "submit", "--working-dir", working_dir, "--", *command]
        return subprocess.run(submit, env=self.environment, check=False).returncode


@contextlib.contextmanager
def local_head() -> Iterator[LocalHead]:
    """A Ray head with all of this machine's CPUs and GPUs, on free ports and with a token of its own.

    Its files lie in a new private folder, which is removed at the end, or left and named when the head does not start.

    Raises:
        ClusterError: if the head does not start, or this is not Linux.
    """
    if not Path("/proc/self/stat").exists():
        raise ClusterError("a Ray head of one's own needs Linux; start one with `ray start --head` and set RAY_ADDRESS")
    # Not under TMPDIR: a Unix socket's path may be 107 characters long, and Ray's own part of it takes 80.
    folder = Path(tempfile.mkdtemp(prefix="raydiff-head-", dir="/tmp"))
    gcs, dashboard, client, agent = _free_ports(4)
    head = LocalHead(f"http://127.0.0.1:{dashboard}", _environment(folder, dashboard))
    start = [_ray(), "start", "--head", "--block", f"--node-ip-address={LOOPBACK}", f"--port={gcs}"]
    start += ["--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard}", f"--dashboard-agent-listen-port={agent}"]
    start += [f"--ray-client-server-port={client}", f"--temp-dir={folder / 'ray'}", "--disable-usage-stats"]
    environment = {name: value for name, value in head.environment.items() if name != "RAY_ADDRESS"}
    log = folder / "head.log"
    with log.open("w") as output:
        process = subprocess.Popen(
            start,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # a Ctrl-C in the terminal is for the caller, who ends the head afterwards
        )
    started = False
    try:
        _wait(head, process, log)
        started = True
        yield head
    finally:
        end_family(process)
        if started:
            shutil.rmtree(folder, ignore_errors=True)


def end_family(leader: subprocess.Popen[bytes], seconds: float = END_SECONDS) -> None:
    """End the leader of a Unix session and all that it started, even what has left its session.

    Each process gets SIGTERM, and SIGKILL if it lives `seconds` later. Ctrl-C has to wait until that is done.
    """
    with _undisturbed():
        family = _Family(leader.pid)
        _signal(family.alive(), signal.SIGTERM)
        deadline = time.monotonic() + seconds
        while (alive := family.alive()) and time.monotonic() < deadline + END_SECONDS:
            if time.monotonic() > deadline:
                _signal(alive, signal.SIGKILL)
            time.sleep(POLL_SECONDS)
        if alive:
            console.print(f"these processes of the Ray head could not be ended: {sorted(alive)}", markup=False)
        else:
            leader.wait()


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """Let no second Ctrl-C cut off what the first one began.

    Handlers are changed because a blocked signal would still come through the threads of other libraries.
    """
    if threading.current_thread() is not threading.main_thread():  # only there do signals interrupt
        yield
        return
    before = {number: signal.signal(number, signal.SIG_IGN) for number in INTERRUPTS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _Family:
    """The processes that descend from the leader of a session, found again after their parents have ended."""

    def __init__(self, leader: int) -> None:
        self._pids = {leader}
        self._sessions = {leader}

    def alive(self) -> set[int]:
        """Those that run now. Each look also finds what those of the last look have started."""
        running = _processes()
        while True:
            new = {
                pid
                for pid, (parent, session) in running.items()
                if pid not in self._pids and (parent in self._pids or session in self._sessions)
            }
            if not new:
                return self._pids & running.keys()
            self._pids |= new
            self._sessions |= {running[pid].session for pid in new}


class _Process(NamedTuple):
    parent: int
    session: int


def _processes() -> dict[int, _Process]:
    """All processes of this machine by process id, without those that have ended and were not waited for."""
    found = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(OSError):  # it has just ended
                # The command, in brackets, may hold anything; behind it: state, parent, group, session.
                state, parent, _, session = (folder / "stat").read_text(errors="replace").rpartition(")")[2].split()[:4]
                if state not in "ZX":
                    found[int(folder.name)] = _Process(int(parent), int(session))
    return found


def _signal(pids: set[int], number: signal.Signals) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def _wait(head: LocalHead, process: subprocess.Popen[bytes], log: Path) -> None:
    """Wait until the head's job server answers to its token."""
    token = Path(head.environment["RAY_AUTH_TOKEN_PATH"]).read_text()
    request = urllib.request.Request(f"{head.dashboard}/api/jobs/", headers={"Authorization": f"Bearer {token}"})
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    deadline = time.monotonic() + START_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(urllib.error.URLError, ConnectionError, TimeoutError), direct.open(request, timeout=5):
            return
        time.sleep(POLL_SECONDS)
    tail = "\n".join(log.read_text(errors="replace").splitlines()[-LOG_LINES:])
    happened = f"did not answer within {START_SECONDS:.0f} s" if process.poll() is None else "ended while it started"
    raise ClusterError(f"the Ray head {happened}; its files are in {log.parent}, its log ends:\n{tail}")


def _environment(folder: Path, dashboard: int) -> dict[str, str]:
    """This process's environment, changed so that `ray` and all that it starts find this head and no other."""
    token = folder / "token"
    with open(os.open(token, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(secrets.token_hex(32))
    direct = [os.environ[name] for name in ("NO_PROXY", "no_proxy") if os.environ.get(name)]
    no_proxy = ",".join([*direct, "127.0.0.1", LOOPBACK])
    return {
        **os.environ,
        "PATH": os.pathsep.join([_scripts(), os.environ.get("PATH", os.defpath)]),  # `python` is the one that runs this
        "NO_PROXY": no_proxy,
        "no_proxy": no_proxy,
        "RAY_ADDRESS": f"http://127.0.0.1:{dashboard}",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token),
    }


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
