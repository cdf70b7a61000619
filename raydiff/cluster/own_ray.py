"""How a Ray that is started here, on this machine, is set: it saves starts of processes, which take seconds each."""

from __future__ import annotations

from collections.abc import MutableMapping
from pathlib import Path

KEPT_SECONDS = 600


def settle(environment: MutableMapping[str, str]) -> None:
    """Settings for the environment that such a Ray is started in; what stands there already counts more."""
    # As many processes as CPUs would start ahead, and serve nobody: a job's workers are in its own environment.
    environment.setdefault("RAY_prestart_worker_first_driver", "0")
    # Ray's log monitor looks for new files ten times a second where there are fewer than so many, and else twice.
    environment.setdefault("RAY_LOG_MONITOR_MANY_FILES_THRESHOLD", "0")
    # It would look whether a provider is about to take this machine away.
    environment.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")
    # Ray ends a worker's process a second after its task, and the next task's then loads torch anew. But a GPU's memory
    # would be kept, too.
    if not any(Path("/dev").glob("nvidia[0-9]*")):
        environment.setdefault("RAY_idle_worker_killing_time_threshold_ms", str(1000 * KEPT_SECONDS))
