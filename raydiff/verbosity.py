"""What of Ray's own output is shown: warnings and errors, or all of it where `--verbose` asks for that.

No Ray is imported here: it reads some of this while it is imported, so what is to be shown has to be said before.
"""

from __future__ import annotations

import os

# Lines of workers that Ray repeats on the driver: those of loggers, which name level, file and line.
REMARKS = r"(\bINFO\b|\bDEBUG\b).*\.(py|cc):\d+ -- "

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
