"""The deployed model over HTTP: POST the bytes of an image file, get its score as JSON.

    serve run raydiff.scoring.service:build model=s3://plant/runs/may/models/lafite
    curl --data-binary @image.png 'http://127.0.0.1:8000/?category=bolt'

Of a TIFF of several pages `page=3` says which one is meant.

The score is the one that a bulk run gives the same bytes. Who may ask is not asked here: Ray's token guards Ray, not
this port, so put a proxy with authentication and TLS before it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from pydantic import Field
from ray import serve
from ray.serve import Application
from starlette.requests import Request
from starlette.responses import JSONResponse

from raydiff import cluster
from raydiff.errors import ImageError
from raydiff.model.folder import load
from raydiff.settings import Settings

# Requests at a time: in a replica, each with its body in memory, and waiting for one at a proxy. Who comes after them
# is sent away with status 503.
ONGOING, QUEUED = 4, 32


class Arguments(Settings):
    """What the application is given: `args` in a Serve config, NAME=VALUE after `serve run`."""

    model: str = Field(min_length=1)  # URI of a model folder
    max_bytes: int = Field(64 * 2**20, ge=1)  # of a request's body
    max_pixels: int = Field(50_000_000, ge=1)  # told from the image's header; unpacked it takes three bytes each


class Service:
    """A replica: a loaded model that answers HTTP requests."""

    def __init__(self, arguments: Arguments) -> None:
        self.arguments = arguments
        self.model = load(arguments.model, cluster.use_assigned_device())
        self.model_id = self.model.id
        self._one_at_a_time = ThreadPoolExecutor(1)  # beside the event loop, which goes on reading other bodies

    async def __call__(self, request: Request) -> JSONResponse:
        """The answer to one request."""
        if request.method != "POST":
            return JSONResponse({"error": "POST the bytes of an image file"}, 405, {"Allow": "POST"})
        data = bytearray()
        async for chunk in request.stream():
            data += chunk
            if len(data) > self.arguments.max_bytes:  # counted, because a Content-Length may lie or be missing
                return JSONResponse({"error": f"the body has more than {self.arguments.max_bytes:,} bytes"}, 413)
        category, page = (request.query_params.get(name) for name in ("category", "page"))
        if page is not None and not (page.isdecimal() and int(page)):
            return JSONResponse({"error": f"page={page} is no number from 1"}, 400)
        try:
            found = await asyncio.get_running_loop().run_in_executor(
                self._one_at_a_time, self.answer, bytes(data), category, int(page) if page else None
            )
        except ImageError as error:
            return JSONResponse({"error": str(error)}, 422)
        return JSONResponse(found)

    def answer(self, data: bytes, category: str | None = None, page: int | None = None) -> dict[str, Any]:
        """What is said of one image file; alarm and p-value are null without a calibration.

        Args:
            data: the file's bytes.
            category: whose levels, threshold and position statistics apply. One that the model does not know is
                guessed, where the method can, once the image is read; else those of all categories together apply.
            page: which page of a file of several, from 1.

        Raises:
            ImageError: if the bytes are no image, or one of too many pixels.
        """
        seen = self.model.seen(data, category, self.arguments.max_pixels, page)
        scored = self.model.score_seen([seen], [category])
        score, guessed = float(scored.scores[0]), scored.guessed[0]
        calibration = self.model.calibration
        own = calibration.of(guessed or category) if calibration else None
        return {
            "score": score,
            "p_value": own.p_value(score) if own else None,
            "threshold": own.threshold if own else None,
            "is_anomalous": score > own.threshold if own else None,
            "category_guessed": guessed,
            "model_id": self.model_id,
        }


def build(arguments: Mapping[str, Any]) -> Application:
    """The Serve application; what a replica needs of the cluster is the Serve config's to say.

    Raises:
        SettingsError: if an argument is unknown, missing or out of its range.
    """
    deployment: Any = serve.deployment(
        Service, name="service", max_ongoing_requests=ONGOING, max_queued_requests=QUEUED
    )
    application: Application = deployment.bind(Arguments.parse(arguments))
    return application
