"""The parts of the check, each in a process of its own with a time limit.

Whatever becomes of a part (an error, a crash, a hang, no memory), the others run, and what it had found before is kept.
"""

from __future__ import annotations

import importlib
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from raydiff.errors import RaydiffError
from raydiff.gpu_check import results
from raydiff.gpu_check.results import CUT_OFF, DONE, FAILED, LEFT_OUT, Row

TOTAL_SECONDS = 530.0  # of all parts together: nine minutes with the start
LEAST_SECONDS = 5.0  # a part is not begun with less
TINY_PATIENCE = 3  # times its limit has a part of a tiny check, whose processors may have other work
# Loaded once, in the process that those of the parts are forked from; it never touches the GPU. The first part, which
# may end the check, does not wait for that.
_LOADED_BEFORE = (
    "torch",
    "raydiff.model",
    "raydiff.methods.diffusion_ad",
    "raydiff.methods.glad",
    "raydiff.methods.lafite",
)


class Job(NamedTuple):
    """What a part is told.

    Attributes:
        device: "cuda" or "cpu".
        tiny: sizes with which all runs on a CPU within a minute; they say nothing of speed.
        data: a folder in MVTec AD's layout, or None.
        weights: a folder with files of backbone weights, `<timm name>.safetensors`, or None.
        seconds: the part's limit.
    """

    device: str
    tiny: bool = False
    data: str | None = None
    weights: str | None = None
    seconds: float = TOTAL_SECONDS


class Part(NamedTuple):
    """A part: where its function is, `module:function`, and after how many seconds it is cut off."""

    name: str
    function: str
    limit: float


_HERE = "raydiff.gpu_check"
# In the order of what is to be known first. The limits bound what a hang costs; what is expected is half of them.
PARTS = (
    Part("machine", f"{_HERE}.device:machine", 60),
    Part("correctness: methods", f"{_HERE}.correctness:methods_agree", 75),
    Part("correctness: channels last", f"{_HERE}.correctness:channels_last", 30),
    Part("correctness: one rank", f"{_HERE}.correctness:one_rank", 30),
    Part("speed: backbone", f"{_HERE}.speed:backbone", 40),
    Part("speed: lafite", f"{_HERE}.speed_methods:lafite", 60),
    Part("speed: diffusion_ad", f"{_HERE}.speed_methods:diffusion_ad", 50),
    Part("speed: glad", f"{_HERE}.speed_methods:glad", 40),
    Part("speed: glad, Stable Diffusion's shape", f"{_HERE}.speed_methods:glad_stable_diffusion", 45),
    Part("correctness: torch.compile", f"{_HERE}.correctness:compiled", 60),
    Part("accuracy: lafite", f"{_HERE}.accuracy:lafite", 165),
    Part("accuracy: diffusion_ad", f"{_HERE}.accuracy:diffusion_ad", 220),
)


def run(job: Job, out: Path, parts: Sequence[Part] = PARTS, total: float = TOTAL_SECONDS) -> bool:
    """Run the parts one after the other; whether all that ran are done and as they must be.

    Args:
        out: a folder for the lines and the table; those of a run before are replaced.
        total: seconds for all parts; the later ones get less, or are left out, if the earlier took them.

    Raises:
        RaydiffError: if the first part, which looks at the machine, says that nothing can be run here.
    """
    out.mkdir(parents=True, exist_ok=True)
    for name in (results.LINES, results.TABLE):
        (out / name).unlink(missing_ok=True)
    multiprocessing.set_forkserver_preload(list(_LOADED_BEFORE))
    end = time.monotonic() + total
    for number, part in enumerate(parts):
        seconds = min(part.limit * (TINY_PATIENCE if job.tiny else 1), end - time.monotonic())
        if seconds < LEAST_SECONDS:
            results.add_end(out, part.name, LEFT_OUT, 0, f"no time was left of the {total:.0f} s for all parts")
            continue
        context = multiprocessing.get_context("forkserver" if number else "spawn")
        ended, error = _run_one(context, part, job._replace(seconds=seconds), out)
        print(f"{part.name}: {ended}{': ' if error else ''}{error}", flush=True)
        if number == 0 and ended != DONE:
            raise RaydiffError(error)
    lines = results.read(out)
    return not any(line.get("passed") is False or line.get("ended", DONE) != DONE for line in lines)


def _run_one(context: Any, part: Part, job: Job, out: Path) -> tuple[str, str]:
    """How it ended and why. The part's process appends its rows itself, so that they are there whatever comes."""
    begun = time.monotonic()
    told, tell = context.Pipe(duplex=False)
    process = context.Process(target=_in_child, args=(part, job, str(out), tell), daemon=True)
    process.start()
    tell.close()
    process.join(job.seconds)
    ended, error = DONE, ""
    if process.is_alive():
        ended, error = CUT_OFF, f"it was not done after {job.seconds:.0f} s"
        _end_group(process.pid)
        process.join()
    elif told.poll() and (text := _received(told)) is not None:
        ended, error = (FAILED, text) if text else (DONE, "")
    else:
        ended, error = FAILED, f"its process ended with code {process.exitcode} and without a word"
    results.add_end(out, part.name, ended, time.monotonic() - begun, error)
    return ended, error


def _received(told: Any) -> str | None:
    try:
        return str(told.recv())
    except EOFError:
        return None


def _in_child(part: Part, job: Job, out: str, tell: Any) -> None:
    os.setsid()  # a group of its own, so that what it starts ends with it
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(int(job.seconds) + 10)  # if nobody is left to cut it off
    try:
        module, _, function = part.function.partition(":")
        rows: Callable[[Job], Iterator[Row]] = getattr(importlib.import_module(module), function)
        for row in rows(job):
            results.add(Path(out), part.name, row)
            print(f"{part.name}: {row.what} {dict(row.values)}", flush=True)
        tell.send("")
    except Exception as error:  # whatever it is, it is this part's alone
        tell.send(" ".join(f"{type(error).__name__}: {error}".split())[:500])


def _end_group(pid: int) -> None:
    try:
        os.killpg(pid, signal.SIGKILL)
    except ProcessLookupError:  # it has no group of its own yet
        os.kill(pid, signal.SIGKILL)
