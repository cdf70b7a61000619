"""How a Ray that is started here, on this machine, saves the start of processes: each takes seconds."""

from __future__ import annotations

from collections.abc import MutableMapping
from pathlib import Path

KEPT_SECONDS = 600


def spare_processes(environment: MutableMapping[str, str]) -> None:
    """Settings for the environment that such a Ray is started in; what stands there already counts more."""
    # It would look whether a provider is about to take this machine away.
    environment.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")
    # Ray ends a worker's process a second after its task, and the next task's then loads torch anew. But a GPU's memory
    # would be kept, too.
    if not any(Path("/dev").glob("nvidia[0-9]*")):
        environment.setdefault("RAY_idle_worker_killing_time_threshold_ms", str(1000 * KEPT_SECONDS))
