"""A proxy on loopback before an HTTP server, which misbehaves when told to, as stores and networks do.

Bytes pass untouched, the Host header included: S3's clients sign it, and the server compares the signature with the
Host that it receives. A client must wait for an answer before its next request, as all clients of S3 do.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from collections import Counter
from collections.abc import AsyncIterator, Coroutine
from typing import Any
from urllib.parse import urlsplit

PIECE = 2**16  # bytes that are passed on at a time
SLOW_DOWN = b'<?xml version="1.0" encoding="UTF-8"?><Error><Code>SlowDown</Code><Message>Slow down.</Message></Error>'
SLOW_DOWN_HEAD = b"HTTP/1.1 503 Slow Down\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % len(SLOW_DOWN)


class FaultyProxy:
    """Stands before `target` ("http://host:port") at `url`, in a thread of this process; to be closed at the end.

    `requests` counts what came, `lines` holds their first lines, `spoiled` counts what was spoiled by which fault. A
    fault is ordered for the next `count` requests, for each `every`-th one, or for both; with a `method` ("GET") only
    requests of that method count. A new order for a fault replaces its old one, so `reset()` ends resets. All may be
    called from any thread.
    """

    def __init__(self, target: str) -> None:
        self.requests = 0
        self.lines: list[str] = []
        self.spoiled: Counter[str] = Counter()
        self._target = urlsplit(target)
        self._orders: dict[str, tuple[int, int, str]] = {}
        self._seen: Counter[str] = Counter()  # requests since a fault was ordered, of the method that it is for
        self._clients: set[asyncio.StreamWriter] = set()
        self._socket = _bound(0)
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self.up()

    def answer_503(self, count: int = 0, *, every: int = 0, method: str = "") -> None:
        """Answer 503 SlowDown as S3 does; the server never sees the request."""
        self._order("answer_503", count, every, method)

    def reset(self, count: int = 0, *, every: int = 0, method: str = "") -> None:
        """Pass the request on, but reset the connection (RST) after half of the answer."""
        self._order("reset", count, every, method)

    def stall(self, count: int = 0, *, every: int = 0, method: str = "") -> None:
        """Take the request and give no answer until the client gives up."""
        self._order("stall", count, every, method)

    def down(self) -> None:
        """Reset all connections and refuse new ones, as where a server has died."""
        self._do(self._stop())
        self._socket = _bound(urlsplit(self.url).port)  # bound, but nobody listens: nobody else gets the port

    def up(self) -> None:
        """Listen again, on the same port."""
        self._server = self._do(asyncio.start_server(self._serve, sock=self._socket))

    def close(self) -> None:
        """Reset all connections and end the thread."""
        self._do(self._stop())
        self._socket.close()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _do(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    async def _stop(self) -> None:
        self._server.close()
        for client in self._clients:
            _reset(client)
        others = asyncio.all_tasks() - {asyncio.current_task()}
        await asyncio.gather(*others, return_exceptions=True)  # they end, now that their clients are gone

    def _order(self, fault: str, count: int, every: int, method: str) -> None:
        self._seen[fault] = 0
        self._orders = {**self._orders, fault: (count, every, method)}

    def _fault(self, method: str) -> str | None:
        """What is to become of the request that came now."""
        self.requests += 1
        due = []
        for fault, (count, every, only) in self._orders.items():
            if only in ("", method):
                self._seen[fault] += 1
                if self._seen[fault] <= count or (every and self._seen[fault] % every == 0):
                    due.append(fault)
        self.spoiled.update(due[:1])
        return due[0] if due else None

    async def _serve(self, reader: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        """One connection, and one to the server for it, until either side closes."""
        client.transport.set_write_buffer_limits(0)  # what is drained has left this process
        self._clients.add(client)
        async with contextlib.AsyncExitStack() as stack:
            stack.callback(self._clients.discard, client)
            stack.push_async_callback(_close, client)
            stack.enter_context(contextlib.suppress(OSError, asyncio.IncompleteReadError))  # one side hung up
            answers, server = await asyncio.open_connection(self._target.hostname, self._target.port)
            stack.push_async_callback(_close, server)
            to_cut: list[str] = []  # the method of a request whose answer is to be reset
            passing = asyncio.create_task(_pass_answers(answers, client, to_cut))
            stack.callback(passing.cancel)
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                method = head.split(b" ", 1)[0].decode()
                self.lines.append(head.split(b"\r\n", 1)[0].decode())
                fault = self._fault(method)
                if fault == "stall":
                    await reader.read()  # until the client hangs up
                    return
                body = _body(head, reader)
                if fault == "answer_503":
                    if not _header(head, b"expect"):  # else the body comes only when it is asked for
                        _ = [None async for _ in body]
                    client.write(SLOW_DOWN_HEAD + (b"" if method == "HEAD" else SLOW_DOWN))
                    await client.drain()
                    return
                if fault == "reset":
                    to_cut.append(method)
                server.write(head)
                async for piece in body:
                    server.write(piece)
                    await server.drain()


async def _body(head: bytes, reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    """A request's body as it comes over the wire, in pieces."""
    chunked = _header(head, b"transfer-encoding").lower() == b"chunked"
    left = 0 if chunked else int(_header(head, b"content-length") or 0)
    while chunked or left:
        if not left:  # the line with the next chunk's size; the last one's is 0, with an empty line behind it
            line = await reader.readuntil(b"\r\n")
            yield line
            left = int(line.split(b";")[0], 16) + 2
            chunked = left > 2
        piece = await reader.read(min(left, PIECE))
        if not piece:
            raise ConnectionError("the client hung up")
        left -= len(piece)
        yield piece


async def _pass_answers(reader: asyncio.StreamReader, client: asyncio.StreamWriter, to_cut: list[str]) -> None:
    """Pass on whatever the server says, until an answer is to be cut."""
    with contextlib.suppress(OSError):
        while data := await reader.read(PIECE):
            if not to_cut or data.startswith(b"HTTP/1.1 100"):  # 100: "send the body", no answer yet
                client.write(data)
                await client.drain()
                continue
            end = data.find(b"\r\n\r\n") + 4
            size = 0 if to_cut[0] == "HEAD" else int(_header(data[:end], b"content-length") or 0)
            left = end + size // 2 if size else len(data) // 2
            while data and left > 0:
                client.write(data[:left])
                await client.drain()
                left -= len(data)
                data = await reader.read(PIECE) if left > 0 else b""
            return _reset(client)
        client.close()  # nobody would answer this client's next request


def _header(head: bytes, name: bytes) -> bytes:
    lines = (line.partition(b":") for line in head.split(b"\r\n")[1:])
    return next((value.strip() for key, _, value in lines if key.lower() == name), b"")


def _reset(writer: asyncio.StreamWriter) -> None:
    if not writer.transport.is_closing():
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def _close(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()


def _bound(port: int) -> socket.socket:
    found = socket.socket()
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    found.bind(("127.0.0.1", port))
    return found
