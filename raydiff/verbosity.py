"""What of Ray's own output is shown: warnings and errors, or all of it where `--verbose` asks for that.

No Ray is imported here: it reads some of this while it is imported, so what is to be shown has to be said before.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterable, Iterator

# Lines of workers that Ray repeats on the driver, and of the job server: those of loggers name level, file and line.
# Many workers are as it should be: they share the CPUs. Ray Train's cleaner asks a dashboard each second whether a
# training still runs, and a Ray of one's own has none.
REMARKS = (
    r"(\bINFO\b|\bDEBUG\b).*\.(py|cc):\d+ -- |^Running entrypoint for job |worker processes have been started on node"
    r"|placement_group_cleaner\.py:\d+ -- Failed to query"
)

_all = False


def show_all() -> None:
    """Let through whatever Ray says."""
    global _all
    _all = True


def hush() -> None:
    """Let through warnings and errors alone; what the environment says counts more."""
    global _all
    _all = False
    os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", REMARKS)


def level() -> str:
    """The lowest level of Ray's log messages that are shown."""
    return "INFO" if _all else "WARNING"


def level_of_needless_warnings() -> str:
    """The level of a logger that warns of what is as it should be, such as that a token is asked for."""
    return "INFO" if _all else "ERROR"


def told(lines: Iterable[str]) -> Iterator[str]:
    """Those of some lines that are shown."""
    return (line for line in lines if _all or not re.search(REMARKS, line))


@contextlib.contextmanager
def unheard() -> Iterator[None]:
    """Nothing that is written to standard error meanwhile, by libraries in C++ too, is shown, but with `--verbose`."""
    if _all:
        yield
        return
    with open(os.devnull, "w") as nowhere:
        kept = os.dup(2)
        os.dup2(nowhere.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)
