"""Whether a head answers: against ports that do not, that drop, that speak otherwise, and against a gRPC server."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
import ray

from raydiff import cluster
from raydiff.cluster import probe as cluster_probe
from raydiff.errors import ClusterError


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(cluster_probe, "SAY_SECONDS", 0.3)
    monkeypatch.setattr(cluster_probe, "DEADLINE_SECONDS", 0.9)


@contextlib.contextmanager
def silent():
    """Takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@contextlib.contextmanager
def dropping():
    """Takes no connection any more and refuses none: its queue is full."""
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(socket.socket())
        server.bind(("127.0.0.1", 0))
        server.listen(0)
        for _ in range(4):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(server.getsockname())
        yield server.getsockname()[1]


@contextlib.contextmanager
def refusing():
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        yield unused.getsockname()[1]


@contextlib.contextmanager
def web_server():
    """Answers, but as a dashboard does."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            with contextlib.suppress(OSError):
                while True:
                    with server.accept()[0] as caller:
                        caller.recv(64)
                        caller.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)
        thread.join()


@pytest.mark.parametrize("server", [silent, dropping, refusing, web_server])
@pytest.mark.parametrize("form", ["{}", "ray://{}"])
def test_what_is_no_head_is_one_sentence_in_time(server, form, quick, monkeypatch, capsys):
    monkeypatch.setattr(ray, "init", lambda **how: pytest.fail("Ray was asked"))
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    with server() as port:
        address = form.format(f"127.0.0.1:{port}")
        began = time.monotonic()
        with pytest.raises(ClusterError, match=f"no Ray head answers at {address} within 0.9 s"):
            cluster.connect(address)
        assert time.monotonic() - began < 5
    assert capsys.readouterr().out == f"waiting for the Ray cluster at {address}\n"


@pytest.mark.parametrize("late", [False, True])
def test_a_server_that_answers_is_taken_at_once_or_late(late, monkeypatch, capsys):
    monkeypatch.setattr(cluster_probe, "SAY_SECONDS", 0.3 if late else 10.0)
    with refusing() as port:
        pass
    server = grpc.server(ThreadPoolExecutor(1))
    server.add_insecure_port(f"127.0.0.1:{port}")
    starts = threading.Timer(0.6 if late else 0.0, server.start)
    starts.start()
    cluster_probe.probe(f"127.0.0.1:{port}")
    starts.join()
    server.stop(None).wait()
    assert ("waiting" in capsys.readouterr().out) == late


@pytest.mark.parametrize("address", ["local", "head", "anyscale://x", "", "ray://head"])
def test_other_addresses_are_left_to_ray(address):
    cluster_probe.probe(address)


def test_the_deadline_is_below_half_a_minute():
    assert cluster_probe.SAY_SECONDS <= 5 < cluster_probe.DEADLINE_SECONDS < 30
