"""What a replica of the HTTP service has done, as Prometheus reads it (/metrics)."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Iterator
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)  # bounds of the histogram; a request may take a minute

CONTENT_TYPE = CONTENT_TYPE_LATEST


class ServiceMetrics:
    """Counts of a replica, each with its model and its replica as labels: another replica counts for itself."""

    def __init__(self, model_id: str) -> None:
        self._registry = CollectorRegistry()
        self._labels = {"model_id": model_id, "replica": f"{socket.gethostname()}:{os.getpid()}"}
        names = tuple(self._labels)
        self._images = Counter("raydiff_images", "Images by outcome", (*names, "outcome"), registry=self._registry)
        self._requests = Counter(
            "raydiff_requests", "Requests with images by status", (*names, "status"), registry=self._registry
        )
        self._seconds = Histogram(
            "raydiff_score_seconds",
            "From an image's bytes to what is said of it",
            names,
            buckets=SECONDS,
            registry=self._registry,
        )

    @contextlib.contextmanager
    def image(self) -> Iterator[dict[str, Any]]:
        """Count an image; what is said of it is put into the dictionary. One that raises could not be scored."""
        said: dict[str, Any] = {}
        begun = time.monotonic()
        outcome = "not_scored"
        try:
            yield said
            alarm = said["is_anomalous"]
            outcome = "no_verdict" if alarm is None else "anomalous" if alarm else "normal"
        finally:
            self._images.labels(**self._labels, outcome=outcome).inc()
            self._seconds.labels(**self._labels).observe(time.monotonic() - begun)

    def request(self, status: int) -> None:
        """Count a request with images that was answered so."""
        self._requests.labels(**self._labels, status=str(status)).inc()

    def text(self) -> bytes:
        """All of it, in Prometheus' text format."""
        return generate_latest(self._registry)
