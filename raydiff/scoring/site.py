"""What the HTTP services share: the files of their pages, the headers of what they send, and what they refuse with."""

from __future__ import annotations

import importlib.resources
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Router

_KINDS = {"html": "text/html", "css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
# A page asks for nothing from elsewhere, runs no script but its own files, and is shown in no other page's frame.
_GUARDED = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data: blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}
ANSWERED = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}  # headers of an answer of the API


def add_pages(router: Router, pages: Mapping[str, str]) -> None:
    """Serve files of `raydiff.page`.

    Args:
        pages: HTML files, each by its path. What they load (CSS, JavaScript, pictures) lies beside them by its name.
    """
    for file in importlib.resources.files("raydiff.page").iterdir():
        ending = file.name.rpartition(".")[2]
        if ending in _KINDS and ending != "html":
            _add(router, f"/{file.name}", file.read_bytes(), ending)
    for path, name in pages.items():
        _add(router, path, importlib.resources.files("raydiff.page").joinpath(name).read_bytes(), "html")


async def refused(_: Request, refusal: Any) -> Response:
    """The handler of `Refusal`."""
    return JSONResponse({"error": refusal.sentence}, refusal.status, {**ANSWERED, **refusal.headers})


async def failed(_: Request, error: Exception) -> Response:
    """The handler of what nobody thought of."""
    sentence = f"the service failed at this request ({type(error).__name__}); its log says where"
    return JSONResponse({"error": sentence}, 500)


def _add(router: Router, path: str, content: bytes, ending: str) -> None:
    router.add_route(path, _file(content, _KINDS[ending]), methods=["GET"], include_in_schema=False)


def _file(content: bytes, kind: str) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(_: Request) -> Response:
        return Response(content, media_type=kind, headers=_GUARDED)

    return endpoint
