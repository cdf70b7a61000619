"""Worker processes that stay for the next task: in a Ray that is started here, on a machine without a GPU."""

from __future__ import annotations

from collections.abc import MutableMapping
from pathlib import Path

# Ray ends a process a second after its task, and the next task's then loads torch anew.
VARIABLE = "RAY_idle_worker_killing_time_threshold_ms"
KEPT_SECONDS = 600


def keep_idle_workers(environment: MutableMapping[str, str]) -> None:
    """Have the Ray that is started in this environment keep its idle processes; what it says already counts more.

    Not where there is a GPU, whose memory such a process would keep, too.
    """
    if not any(Path("/dev").glob("nvidia[0-9]*")):
        environment.setdefault(VARIABLE, str(1000 * KEPT_SECONDS))
