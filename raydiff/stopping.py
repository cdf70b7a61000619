"""Ending at SIGTERM, in one line and for certain."""

from __future__ import annotations

import os
import signal
import sys
import threading
from types import FrameType
from typing import Any

_told = threading.Event()


def stop_at_sigterm() -> None:
    """Have this process end at SIGTERM: by SystemExit, so that what is open is put away, after one line on stderr."""
    signal.signal(signal.SIGTERM, stop)
    sys.unraisablehook = _Hook(sys.unraisablehook)


def stop(number: int = signal.SIGTERM, _: FrameType | None = None) -> None:
    """The handler; also for whoever finds that another handler of SIGTERM has ended the process."""
    if not _told.is_set():
        _told.set()
        # At once, because `ray job stop` kills three seconds later what is still cleaning up; and not by print, which
        # may be what was interrupted.
        os.write(2, b"stopped; what is finished is kept, run the same command again to go on\n")
    sys.exit(128 + number)


class _Hook:
    """Python drops an exception that is raised in a destructor or a weak reference's callback, and prints it. If a
    signal comes just there, its SystemExit goes that way: then nothing is printed, and the code that was interrupted
    by the callback gets it instead, at its next line.
    """

    def __init__(self, before: Any) -> None:
        self._before = before

    def __call__(self, unraisable: Any) -> None:
        end = unraisable.exc_value
        if not isinstance(end, SystemExit) or not _told.is_set():
            self._before(unraisable)
            return

        def raise_there(*event: Any) -> None:
            sys.settrace(None)
            raise SystemExit(end.code)

        interrupted = sys._getframe(1)
        sys.settrace(lambda *event: None)  # whatever is called before that line runs as ever
        interrupted.f_trace = raise_there
