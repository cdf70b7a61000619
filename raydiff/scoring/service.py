"""The deployed model over HTTP: an API, and the inspection page that uses it (docs/serving.md).

    raydiff serve --model s3://plant/runs/may/models/lafite
    curl --data-binary @image.png 'http://127.0.0.1:8000/v1/score?category=bolt'

The score is the one that a bulk run gives the same bytes. Who may ask is said by RAYDIFF_SERVE_TOKEN: where it is set,
the API answers only those who send it. It encrypts nothing, so a network needs a proxy with TLS before this port.
"""

from __future__ import annotations

import asyncio
import posixpath
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from fastapi import FastAPI
from pydantic import Field
from ray import serve
from ray.serve import Application
from ray.serve.config import BackpressureConfig

import raydiff
from raydiff import cluster
from raydiff.model.folder import load
from raydiff.nn.engine import Engine
from raydiff.scoring.answers import Limits, Parameters, answer, described
from raydiff.scoring.gate import RETRY_SECONDS, Gate
from raydiff.scoring.http_app import http_app
from raydiff.scoring.router import PATIENT
from raydiff.scoring.service_metrics import ServiceMetrics
from raydiff.scoring.tokens import hashed_token
from raydiff.settings import Settings

NAME = "service"  # of the deployment
# Requests with images that a replica takes in hand, each with its body in memory: one is scored and the others wait.
# Who comes after them is sent away with status 503.
PLACES = 16
# What Serve lets through to a replica: those, and room for the page and for questions after its health. Serve's own
# queue is for what comes beyond.
LET_IN, QUEUED = 64, 32


class Arguments(Settings):
    """What the application is given: `args` in a Serve config, NAME=VALUE after `serve run`."""

    model: str = Field(min_length=1)  # URI of a model folder
    max_bytes: int = Field(64 * 2**20, ge=1)  # of a request's body
    max_pixels: int = Field(50_000_000, ge=1)  # told from the image's header; unpacked it takes three bytes each
    max_images: int = Field(32, ge=1)  # of a form
    max_seconds: float = Field(60, gt=0)  # that a request may take, its waiting and its upload included
    engine: Engine = "torch"  # that computes features on CPUs, as of `Model.use`


class Service:
    """A replica: a loaded model that answers HTTP requests."""

    def __init__(self, arguments: Arguments, token_hash: str | None = None) -> None:
        """Load the model.

        Args:
            token_hash: SHA-256 of the token that requests must bring, in hexadecimal digits; None asks for none.
        """
        self.arguments = arguments
        self.token_hash = token_hash
        self.model = load(arguments.model, cluster.use_assigned_device())
        self.model.use(arguments.engine)
        self.model_id = self.model.id
        self.described = described(
            self.model,
            posixpath.basename(arguments.model.rstrip("/")),
            raydiff.__version__,
            Limits.model_validate(arguments.model_dump(exclude={"model", "engine"})),
        )
        self.metrics = ServiceMetrics(self.model_id)
        self.gate = Gate(PLACES, arguments.max_seconds)
        self._one_at_a_time = ThreadPoolExecutor(1)  # beside the event loop, which goes on reading other bodies

    def __serve_build_asgi_app__(self) -> FastAPI:
        """What Serve has answer the requests."""
        return http_app(self)

    async def answered(self, data: bytes, parameters: Parameters) -> dict[str, Any]:
        """As `answer`, computed beside the event loop, one image after the other."""
        return await asyncio.get_running_loop().run_in_executor(self._one_at_a_time, self._answer, data, parameters)

    def answer(self, data: bytes, category: str | None = None, page: int | None = None) -> dict[str, Any]:
        """What is said of one image file (`Answer`), without pictures; alarm and p-value need a calibration.

        Args:
            data: the file's bytes.
            category: whose levels, threshold and position statistics apply. One that the model does not know is
                guessed, where the method can, once the image is read; else those of all categories together apply.
            page: which page of a file of several, from 1.

        Raises:
            ImageError: if the bytes are no image, or one of too many pixels.
        """
        return self._answer(data, Parameters(category=category, page=page))

    def _answer(self, data: bytes, parameters: Parameters) -> dict[str, Any]:
        with self.metrics.image() as said:
            seen = self.model.seen(data, parameters.category, self.arguments.max_pixels, parameters.page)
            scored = self.model.score_seen([seen.pixels], [parameters.category])
            said.update(answer(self.model, self.model_id, seen, scored, parameters))
        return said


def application(arguments: Arguments, **options: Any) -> Application:
    """The Serve application.

    The token is taken from the environment of the process that calls this. Replicas get its hash alone, since what they
    are given can be read in Ray's dashboard.

    Args:
        options: of the deployment, beside those that it always has.

    Raises:
        SettingsError: if the token cannot be sent.
    """
    deployment: Any = serve.deployment(
        serve.ingress()(Service),
        name=NAME,
        max_ongoing_requests=LET_IN,
        max_queued_requests=QUEUED,
        backpressure_config=BackpressureConfig(retry_after_s=RETRY_SECONDS),
        request_router_config=PATIENT,
        **options,
    )
    bound: Application = deployment.bind(arguments, hashed_token())
    return bound


def build(arguments: Mapping[str, Any]) -> Application:
    """The application by a Serve config or `serve run`; what a replica needs of the cluster is the config's to say.

    Raises:
        SettingsError: if an argument is unknown, missing or out of its range, or the token cannot be sent.
    """
    return application(Arguments.parse(arguments))
