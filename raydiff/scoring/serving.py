"""`raydiff serve`: the HTTP service on the cluster, for as long as this process lives."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

import ray
from ray import serve
from ray.serve import Application
from ray.serve.context import _get_global_client  # Serve's public status does not tell where it listens
from ray.serve.exceptions import RayServeException
from ray.serve.schema import LoggingConfig

from raydiff import cluster, storage, verbosity
from raydiff.cluster.worker_progress import told_if_pending
from raydiff.errors import ClusterError
from raydiff.model.description import describe
from raydiff.progress import console
from raydiff.scoring import deployment, listening
from raydiff.scoring.listening import signalled
from raydiff.scoring.service import Arguments, application
from raydiff.scoring.tokens import hashed_token


def serve_model(arguments: Arguments, host: str, port: int, replicas: int, address: str | None = None) -> None:
    """Serve a model until SIGINT or SIGTERM comes, then take it down; arguments and errors as of `serving`."""
    guarded = hashed_token() is not None
    with serving(arguments, host, port, replicas, address) as place, signalled() as ended:
        console.print(f"serving {arguments.model} at {place}", markup=False)
        listening.tell_who_may_ask(guarded, host, port)
        console.print("Ctrl-C ends it")
        ended.wait()
        console.print("ending; the same command starts it again")


@contextlib.contextmanager
def serving(arguments: Arguments, host: str, port: int, replicas: int, address: str | None = None) -> Iterator[str]:
    """A model served over HTTP, taken down at the end; the address of its page.

    Args:
        host, port: where the cluster's head listens.
        replicas: each with a GPU where the cluster has any, else with a CPU.
        address: the cluster's, as of `cluster.connect`.

    Raises:
        ModelFolderError: if there is no model.
        SettingsError: if the token cannot be sent, or the engine does not use the cluster's GPUs.
        ClusterError: if the port is taken, or the cluster cannot hold the replicas.
    """
    describe(arguments.model)
    arguments = arguments.changed(model=storage.absolute(arguments.model))  # for processes that are elsewhere
    if not (address or os.environ.get(cluster.ADDRESS) or ray.is_initialized()):
        listening.bound(host, port).close()  # said at once, and not after Serve has tried for a while
    cluster.connect(address)
    deployment.check_fits(arguments.engine)
    cluster.check_room(replicas, "replicas")
    deployment.take_down_left_over()
    said = LoggingConfig(log_level=verbosity.level(), enable_access_log=False)
    _listen(host, port, said)
    served = application(
        arguments,
        num_replicas=replicas,
        ray_actor_options={"num_cpus": 0, "num_gpus": 1} if cluster.gpus() else {"num_cpus": 1},
        graceful_shutdown_timeout_s=5,
        logging_config=said,
    )
    name = f"{deployment.APP}-{ray.get_runtime_context().get_job_id()}-http"  # as `take_down_left_over` reads it
    try:
        with told_if_pending("the model's replicas"):
            _run(served, name)
        yield listening.address(host, port)
    finally:
        serve.delete(name)


def _listen(host: str, port: int, said: LoggingConfig) -> None:
    """Start Serve. One that runs already keeps its own place; it is started anew if nothing is deployed on it.

    Raises:
        ClusterError: if it listens elsewhere, or nowhere, and somebody uses it.
    """
    client = _get_global_client(raise_if_no_controller_running=False)
    if client is not None:
        options, status = client.http_config, serve.status()
        if status.proxies and (options.host, options.port) == (host, port):
            return
        if status.applications:
            place = f"at {options.host}:{options.port}" if status.proxies else "without HTTP"
            raise ClusterError(
                f"Ray Serve runs on this cluster already, {place}, with {', '.join(status.applications)} deployed; "
                "give its place with --host and --port, or wait until that has ended"
            )
        serve.shutdown()  # what bulk runs have left: they need no HTTP
    serve.start(proxy_location="HeadOnly", http_options={"host": host, "port": port}, logging_config=said)


def _run(served: Application, name: str) -> None:
    """Deploy the application at the root.

    Raises:
        ClusterError: if another one is there.
    """
    try:
        deployment.run(served, name, "/")
    except RayServeException as error:
        others = [other for other in serve.status().applications if other != name]
        if "Prefix / is being used" not in str(error):
            raise
        raise ClusterError(
            f"another application is served there already ({', '.join(others)}); end it first, or serve on another "
            "cluster"
        ) from None
