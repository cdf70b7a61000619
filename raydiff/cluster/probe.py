"""Whether anything that could be a Ray head answers at an address, asked with a deadline: `ray.init` has none."""

from __future__ import annotations

import contextlib
import os
from typing import Any

import grpc
from ray._common.tls_utils import load_certs_from_env
from ray._private.services import get_ray_address_from_environment

from raydiff.errors import ClusterError
from raydiff.progress import console

SAY_SECONDS = 3.0  # after which it is said what is waited for
DEADLINE_SECONDS = 20.0  # a busy head, or one that is just being started, may take some of them
CLIENT = "ray://"
# Ray's own clients go past a proxy, too.
OPTIONS = [
    ("grpc.enable_http_proxy", 0),
    ("grpc.initial_reconnect_backoff_ms", 500),
    ("grpc.max_reconnect_backoff_ms", 2000),
]


def probe(address: str) -> None:
    """Wait until the server at `address` (HOST:PORT, ray://HOST:PORT or auto) greets as a gRPC server does.

    A port that takes connections, or drops them, is none yet. What needs a token is not asked, so whether that is
    right `ray.init` will tell. Addresses of other kinds are left to it altogether.

    Raises:
        ClusterError: if that takes more than `DEADLINE_SECONDS`.
    """
    place = _place(address)
    if place is None:
        return
    with contextlib.closing(_channel(place)) as channel:
        ready = grpc.channel_ready_future(channel)
        with contextlib.suppress(grpc.FutureTimeoutError):
            ready.result(timeout=SAY_SECONDS)
            return
        console.print(f"waiting for the Ray cluster at {address}", markup=False)
        with contextlib.suppress(grpc.FutureTimeoutError):
            ready.result(timeout=DEADLINE_SECONDS - SAY_SECONDS)
            return
        ready.cancel()
    raise ClusterError(
        f"no Ray head answers at {address} within {DEADLINE_SECONDS:g} s; is it up, is this its HOST:PORT (6379 unless "
        "chosen otherwise; not the dashboard's), and does no firewall lie between?"
    )


def _place(address: str) -> str | None:
    """HOST:PORT of an address, None where it names none."""
    if address == "auto":
        address = get_ray_address_from_environment("auto", None) or ""  # the Ray that runs here
    host, colon, port = address.removeprefix(CLIENT).split("?")[0].rpartition(":")
    return f"{host}:{port}" if colon and host and port.isdigit() else None


def _channel(place: str) -> Any:
    if os.environ.get("RAY_USE_TLS", "0").lower() not in ("1", "true"):
        return grpc.insecure_channel(place, options=OPTIONS)
    certificate, key, root = load_certs_from_env()
    return grpc.secure_channel(place, grpc.ssl_channel_credentials(root, key, certificate), options=OPTIONS)
