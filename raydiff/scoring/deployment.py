"""A model as a Ray Serve deployment: whole batches in, scores and maps out."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import ray
from ray import serve
from ray._private.state import jobs  # ray.util.state asks the dashboard, which a cluster may not have
from ray.serve.handle import DeploymentHandle
from ray.serve.schema import LoggingConfig

from raydiff import cluster, verbosity
from raydiff.cluster.task_errors import told_in
from raydiff.cluster.worker_progress import told_if_pending
from raydiff.errors import SettingsError
from raydiff.model.scored import Scored
from raydiff.nn.engine import Engine
from raydiff.scoring.large import LargeScored, score_large
from raydiff.scoring.router import PATIENT

APP = "raydiff"
CALLS_PER_REPLICA = 2  # one being computed, one ready beside it; callers wait beyond that
GRACE_SECONDS = 0.2  # after which a replica that is to end looks whether it has been asked anything more


class Scorer:
    """A replica: a loaded model on the device that Ray gave it."""

    def __init__(self, model_uri: str, engine: Engine = "torch") -> None:
        from raydiff.model.folder import load  # here, because whoever deploys it need not load torch

        self.model = load(model_uri, cluster.use_assigned_device())
        self.model.use(engine)
        # Serve has each request answered by a thread of its own; they would compute beside each other, and each would
        # keep the memory that it needed.
        self._one_at_a_time = ThreadPoolExecutor(1)

    def score(self, images: np.ndarray, categories: Sequence[str | None], maps: bool = True) -> Scored:
        """Scores of N images as the model's view has them (see `View.seen`), and their maps where these are wanted:
        they are many times as large as what else is sent back.
        """
        scored = self._one_at_a_time.submit(self.model.score_seen, list(images), categories).result()
        return scored if maps else scored.without_maps()

    def score_large(self, uri: str, row: Mapping[str, Any], map_uri: str | None) -> LargeScored:
        """As `large.score_large`."""
        return self._one_at_a_time.submit(score_large, self.model, uri, row, map_uri).result()


def check_fits(engine: Engine) -> None:
    """Whether the engine computes on what replicas have here.

    Raises:
        SettingsError: if they have GPUs, which it does not use.
    """
    if engine != "torch" and cluster.gpus():
        raise SettingsError(f"--engine {engine} computes on CPUs, and this cluster has GPUs; leave it out")


@contextlib.contextmanager
def deployed(model_uri: str, replicas: int | None = None, engine: Engine = "torch") -> Iterator[DeploymentHandle]:
    """The model deployed on the cluster, taken down at the end.

    Args:
        model_uri: a model folder; its score settings are those it has now.
        replicas: how many; one a GPU by default, or one a CPU.
        engine: that computes their features on CPUs, as of `Model.use`.

    Raises:
        ClusterError: if the cluster cannot hold so many.
        SettingsError: if the engine is not there, or the cluster has GPUs, which it does not use.
    """
    check_fits(engine)
    count = replicas or cluster.devices()
    cluster.check_room(count, "replicas")
    gpu = {"num_cpus": 0, "num_gpus": 1} if cluster.gpus() else {"num_cpus": cluster.REPLICA_CPU}
    said = LoggingConfig(log_level=verbosity.level(), enable_access_log=False)
    serve.start(proxy_location="Disabled", logging_config=said)
    scorer: Any = serve.deployment(
        Scorer,
        name="scorer",
        num_replicas=count,
        ray_actor_options=gpu,
        max_ongoing_requests=CALLS_PER_REPLICA,
        graceful_shutdown_wait_loop_s=GRACE_SECONDS,
        graceful_shutdown_timeout_s=5,
        request_router_config=PATIENT,
        logging_config=said,
    )
    take_down_left_over()
    # Of the job, which may be at work with several models at once, and of the model: a task that died and is tried
    # again takes the place of what it has left.
    name = f"{APP}-{ray.get_runtime_context().get_job_id()}-{hashlib.sha256(model_uri.encode()).hexdigest()[:8]}"
    try:
        with told_if_pending("the model's replicas"):
            handle = run(scorer.bind(model_uri, engine), name)
        yield handle
    finally:
        serve.delete(name)


def run(application: Any, name: str, route_prefix: str | None = None) -> DeploymentHandle:
    """Serve's `run`, which says of an error in a replica's start only that there was one."""
    try:
        return serve.run(application, name=name, route_prefix=route_prefix)
    except RuntimeError as error:
        app = serve.status().applications.get(name)
        told = [each.message for each in app.deployments.values()] if app else []
        raise told_in("\n".join(told)) or error from None


def take_down_left_over() -> None:
    """Take down what jobs of ours that were killed have left: a deployment outlives its job and holds its GPUs."""
    running = {job["JobID"] for job in jobs() if not job["IsDead"]}
    for name in serve.status().applications:
        app, *job = name.split("-")
        if app == APP and job[:1] and job[0] not in running:
            serve.delete(name)
