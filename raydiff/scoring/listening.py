"""A service in the foreground: where it listens, what is said of who may ask, and the signals that end it. No Ray."""

from __future__ import annotations

import contextlib
import signal
import socket
import threading
from collections.abc import Iterator

from raydiff.errors import ClusterError
from raydiff.progress import console
from raydiff.scoring.tokens import TOKEN

_ALL = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}  # hosts that mean every interface, and where those are found from here
_LOOPBACKS = ("127.", "localhost", "::1")


def is_loopback(host: str) -> bool:
    """Whether nobody but this machine reaches it."""
    return host.startswith(_LOOPBACKS)


def address(host: str, port: int) -> str:
    """The address of a service's page, for a browser on this machine."""
    shown = _ALL.get(host) or (f"[{host}]" if ":" in host else host)
    return f"http://{shown}:{port}/"


def tell_who_may_ask(guarded: bool, host: str, port: int) -> None:
    """Print whether the service asks for its token, and what it means if it does not."""
    if guarded:
        console.print(f"the page and the API ask for the token that {TOKEN} was set to", markup=False)
    elif not is_loopback(host):
        console.print(
            f"{TOKEN} is not set: whoever reaches port {port} may use it, and nothing is encrypted", markup=False
        )


@contextlib.contextmanager
def signalled() -> Iterator[threading.Event]:
    """An event that SIGINT and SIGTERM set; they do nothing else while the context lasts."""
    event = threading.Event()
    before = {each: signal.signal(each, lambda *_: event.set()) for each in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield event
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def bound(host: str, port: int) -> socket.socket:
    """A socket that is bound there, to be closed by the caller.

    Raises:
        ClusterError: if nothing can listen there.
    """
    made = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((host, port))
    except OSError as error:
        made.close()
        raise ClusterError(
            f"nothing can listen at {host}:{port} ({error.strerror or error}); give another --port or --host"
        ) from None
    return made
