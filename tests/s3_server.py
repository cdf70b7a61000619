"""A real S3 server on loopback for tests: Ceph's RADOS Gateway, from Debian's packages.

Unlike the usual mocks it checks credentials, pages its listings and takes multipart uploads as S3 does. It is up in
about 20 s, wants 1 GB of memory, and needs neither root nor a network.
"""

from __future__ import annotations

import contextlib
import json
import secrets
import shutil
import socket
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

INSTALL = "apt-get install --no-install-recommends radosgw ceph-osd ceph-mon ceph-mgr"
PROGRAMS = ("ceph", "ceph-authtool", "ceph-mon", "ceph-mgr", "ceph-osd", "monmaptool", "radosgw", "radosgw-admin")
START_SECONDS = 90.0
STOP_SECONDS = 5.0

CONF = """\
[global]
fsid = {fsid}
mon host = v2:127.0.0.1:{mon_port}
mon initial members = a
public addr = 127.0.0.1
cluster addr = 127.0.0.1
auth cluster required = cephx
auth service required = cephx
auth client required = cephx
auth allow insecure global id reclaim = false
keyring = {folder}/keyring
run dir = {folder}/run
admin socket = {folder}/run/$name.$pid.asok
log file = {folder}/log/$name.log
mon data = {folder}/mon
mgr data = {folder}/mgr
osd data = {folder}/osd
mon allow pool size one = true
mon warn on pool no redundancy = false
mon data avail crit = 0
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 8
osd pool default pgp num = 8
osd crush chooseleaf type = 0
osd objectstore = bluestore
osd memory target = 1073741824
bluestore block size = 21474836480
[client.rgw.a]
rgw frontends = beast endpoint=127.0.0.1:{port}
rgw data = {folder}/rgw
"""


def missing_programs() -> list[str]:
    """What the server needs and this machine lacks."""
    return [program for program in (*PROGRAMS, "setpriv") if shutil.which(program) is None]


@contextlib.contextmanager
def s3_server() -> Iterator[dict[str, str]]:
    """Run the server; gives the environment variables that a client needs.

    Raises:
        RuntimeError: with the ends of all logs, if it does not come up; its folder is then kept.
    """
    # Daemons put sockets there, whose paths may have 107 characters: so not under a long TMPDIR.
    folder = Path(tempfile.mkdtemp(prefix="raydiff-s3-", dir="/tmp"))
    daemons: list[subprocess.Popen[bytes]] = []
    try:
        try:
            environment = _start(folder, daemons)
        except Exception as error:
            raise RuntimeError(f"the S3 server did not come up: {error}\n{_logs(folder)}") from error
        yield environment
    finally:
        for daemon in reversed(daemons):  # the gateway first: it hangs once its cluster is gone
            daemon.terminate()
            try:
                daemon.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()
    shutil.rmtree(folder)


def _start(folder: Path, daemons: list[subprocess.Popen[bytes]]) -> dict[str, str]:
    mon_port, port = _free_ports(2)
    fsid, osd = str(uuid.uuid4()), str(uuid.uuid4())
    for name in ("mon", "mgr", "osd", "run", "log", "rgw"):
        (folder / name).mkdir()
    keyring = folder / "keyring"
    (folder / "ceph.conf").write_text(CONF.format(folder=folder, fsid=fsid, mon_port=mon_port, port=port))
    deadline = time.monotonic() + START_SECONDS

    def tool(program: str, *arguments: str, secret: str | None = None) -> str:
        configured = [] if program in ("ceph-authtool", "monmaptool") else ["-c", f"{folder}/ceph.conf"]
        done = subprocess.run(
            [program, *configured, *arguments],
            input=secret,
            capture_output=True,
            text=True,
            timeout=deadline - time.monotonic(),
        )
        if done.returncode:
            raise RuntimeError(f"{program} {' '.join(arguments)}: {done.stderr}")
        return done.stdout

    def daemon(program: str, *arguments: str) -> None:
        # In a session of its own, so that Ctrl-C does not end all at once; and never outliving this process.
        with open(folder / "log" / f"{program}.out", "wb") as out:
            command = ["setpriv", "--pdeathsig", "KILL", program, "-c", f"{folder}/ceph.conf", *arguments, "-f"]
            daemons.append(subprocess.Popen(command, stdout=out, stderr=out, start_new_session=True))

    def allow(entity: str, *capabilities: str) -> None:
        with open(keyring, "a") as file:
            file.write(tool("ceph", "auth", "get-or-create", entity, *capabilities))

    # Monitor, with the keys that everything else is made with.
    everything = [word for part in ("mon", "osd", "mgr") for word in ("--cap", part, "allow *")]
    tool("ceph-authtool", "--create-keyring", str(keyring), "--gen-key", "-n", "mon.", "--cap", "mon", "allow *")
    tool("ceph-authtool", str(keyring), "--gen-key", "-n", "client.admin", *everything)
    monmap = str(folder / "monmap")
    tool("monmaptool", "--create", "--fsid", fsid, "--addv", "a", f"[v2:127.0.0.1:{mon_port}]", monmap)
    tool("ceph-mon", "-i", "a", "--mkfs", "--monmap", monmap, "--keyring", str(keyring))
    daemon("ceph-mon", "-i", "a")

    # Manager, and one disk in a file.
    allow("mgr.x", "mon", "allow profile mgr", "osd", "allow *")
    daemon("ceph-mgr", "-i", "x")
    key = tool("ceph-authtool", "--gen-print-key").strip()
    tool("ceph", "osd", "new", osd, "-i", "-", secret=json.dumps({"cephx_secret": key}))
    with open(keyring, "a") as file:
        file.write(f"[osd.0]\n\tkey = {key}\n")
    tool("ceph-osd", "-i", "0", "--mkfs", "--osd-uuid", osd)
    daemon("ceph-osd", "-i", "0")

    # Gateway, and one user.
    allow("client.rgw.a", "mon", "allow rwx", "osd", "allow rwx", "mgr", "allow rw")
    daemon("radosgw", "-n", "client.rgw.a")
    while not _answers(port):
        if daemons[-1].poll() is not None or time.monotonic() > deadline:
            raise RuntimeError("the gateway does not answer")
        time.sleep(0.2)
    user = f"test-{secrets.token_hex(4)}", secrets.token_hex(16)
    names = ["--uid=test", "--display-name=test", f"--access-key={user[0]}", f"--secret={user[1]}"]
    tool("radosgw-admin", "-n", "client.rgw.a", "user", "create", *names)
    return {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": user[0],
        "AWS_SECRET_ACCESS_KEY": user[1],
        "AWS_DEFAULT_REGION": "us-east-1",
        # For clients other than raydiff's own, which asks for this itself: the gateway refuses checksum trailers.
        "AWS_REQUEST_CHECKSUM_CALCULATION": "when_required",
        "AWS_RESPONSE_CHECKSUM_VALIDATION": "when_required",
    }


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def _answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def _logs(folder: Path) -> str:
    ends = [f"{file}:\n{file.read_text(errors='replace')[-2000:]}" for file in sorted(folder.glob("log/*"))]
    return "\n".join(ends)
