"""A real Chromium without a window, driven by its own protocol: pages are opened, asked and photographed as people see
them.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import importlib.resources
import json
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import uvicorn

SECONDS = 60.0
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
)


# axe-core's verdict of a page: what keeps people from using it, each as [how bad, rule, [where and why, ...]].
_FOUND = """axe.run({resultTypes: ['violations']}).then(({violations}) => violations.map(
    ({impact, id, nodes}) => [impact, id, nodes.map(({target, failureSummary}) => `${target}: ${failureSummary}`)]))"""


class Tab:
    """The browser's only page."""

    def __init__(self, port: int, path: str) -> None:
        self._loop = asyncio.new_event_loop()
        self._session, self._socket = self._loop.run_until_complete(self._connect(port, path))
        self._number = 0
        self.errors: list[str] = []  # what its console was told of errors
        for domain in ("Page", "Runtime", "DOM", "Log", "Network"):
            self.call(f"{domain}.enable")

    @staticmethod
    async def _connect(port: int, path: str):
        session = aiohttp.ClientSession()
        return session, await session.ws_connect(f"ws://127.0.0.1:{port}{path}", max_msg_size=0)

    def close(self) -> None:
        self._loop.run_until_complete(self._socket.close())
        self._loop.run_until_complete(self._session.close())
        self._loop.close()

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """A command of the protocol, and its result."""
        return self._loop.run_until_complete(asyncio.wait_for(self._call(method, parameters), SECONDS))

    async def _call(self, method: str, parameters: dict[str, Any]) -> dict[str, Any]:
        self._number += 1
        await self._socket.send_str(json.dumps({"id": self._number, "method": method, "params": parameters}))
        while True:
            told = json.loads((await self._socket.receive()).data)
            if told.get("id") == self._number:
                assert "error" not in told, (method, told["error"])
                return told["result"]
            if told.get("method") == "Runtime.exceptionThrown":
                self.errors.append(str(told["params"]["exceptionDetails"]))
            if told.get("method") == "Log.entryAdded" and told["params"]["entry"]["level"] == "error":
                self.errors.append(str(told["params"]["entry"]["text"]))

    def open(self, url: str) -> None:
        """Go to a page; `wait` for what it should show."""
        self.call("Page.navigate", url=url)

    def ask(self, script: str) -> Any:
        """The value of a JavaScript expression."""
        found = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def wait(self, script: str, seconds: float = SECONDS) -> Any:
        """Wait until an expression is true; its value."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            with contextlib.suppress(AssertionError):  # the page is not there yet
                if found := self.ask(script):
                    return found
            self._loop.run_until_complete(asyncio.sleep(0.05))
        raise AssertionError(f"never true: {script}; the page shows: {self.ask('document.body.innerText')}")

    def choose(self, selector: str, *files: Path | str) -> None:
        """Choose files in a file field, as a person does in the system's dialog."""
        root = self.call("DOM.getDocument")["root"]["nodeId"]
        field = self.call("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.call("DOM.setFileInputFiles", nodeId=field, files=[str(each) for each in files])

    def key(self, name: str, text: str = "") -> None:
        """Press a key."""
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=name, **({"text": text} if kind == "keyDown" else {}))

    def size(self, width: int, height: int, phone: bool = False) -> None:
        """Make the window as large, or a phone's."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=phone)

    def scheme(self, scheme: str) -> None:
        """`light` or `dark`."""
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    def open_at(self, width: int, scheme: str, url: str) -> None:
        """Go to a page anew, on a screen of this width, a narrow one a phone's, that is `light` or `dark`."""
        self.size(width, 800, phone=width < 600)
        self.scheme(scheme)
        self.open("about:blank")
        self.open(url)

    def barriers(self) -> list[Any]:
        """What axe-core finds on the page, as it is now, that it calls serious or critical."""
        if self.ask("typeof axe") == "undefined":
            script = importlib.resources.files("axe_playwright_python").joinpath("axe.min.js").read_text("utf-8")
            self.ask(f"{script}; null")
        return [found for found in self.ask(_FOUND) if found[0] in ("serious", "critical")]

    def photograph(self, place: Path | str, whole: bool = False) -> None:
        """Write what is shown as PNG; the whole page, or the window."""
        data = self.call("Page.captureScreenshot", captureBeyondViewport=whole)["data"]
        Path(place).write_bytes(base64.b64decode(data))


@contextlib.contextmanager
def served(app: Any) -> Iterator[str]:
    """An ASGI application over HTTP, in this process; its address."""
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_config=None, ws="none"))
    thread = threading.Thread(target=lambda: asyncio.run(server.serve()))
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive()
            thread.join(0.02)
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/"
    finally:
        server.should_exit = True
        thread.join()


@contextlib.contextmanager
def opened(folder: Path) -> Iterator[Tab]:
    """A browser whose profile lies in `folder`; the test is skipped where there is none, and fails in CI."""
    chromium = shutil.which("chromium")
    if chromium is None:
        assert not os.environ.get("CI"), "Chromium is not installed; CI needs it (Debian package chromium)"
        pytest.skip("CHROMIUM IS NOT INSTALLED: the page was not opened in a browser (Debian package chromium)")
    command = [chromium, *FLAGS, "--remote-debugging-port=0", f"--user-data-dir={folder}", "about:blank"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            tab = Tab(*_place(folder, process))
            try:
                yield tab
            finally:
                with contextlib.suppress(Exception):
                    tab.call("Browser.close")
                tab.close()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(10)
        finally:
            process.kill()


def _place(folder: Path, process: subprocess.Popen[bytes]) -> tuple[int, str]:
    """Where the browser's page listens: port and path."""
    noted = folder / "DevToolsActivePort"
    deadline = time.monotonic() + SECONDS
    while not (noted.exists() and len(noted.read_text().split()) == 2):
        assert process.poll() is None, "Chromium ended as it started"
        assert time.monotonic() < deadline, "Chromium did not start"
        time.sleep(0.05)
    port = int(noted.read_text().split()[0])

    async def pages() -> Any:
        async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{port}/json/list") as answer:
            return await answer.json()

    (page,) = (each for each in asyncio.run(pages()) if each["type"] == "page")
    return port, "/" + page["webSocketDebuggerUrl"].split("/", 3)[3]
