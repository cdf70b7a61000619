"""The HTTP routes of the viewer: its page, and an API that reads, and takes verdicts where somebody gives them.

A row is asked for by its number. No path and no URI comes from a request, so that only what stands in the table is ever
opened or judged.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Collection, Mapping
from datetime import date
from typing import Any, TypeVar

import pyarrow as pa
from pydantic import Field
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from raydiff.errors import RaydiffError, SettingsError
from raydiff.review.archive import About
from raydiff.review.giving import Giving
from raydiff.review.table import MOST_A_PAGE, PAGE, Filter, Found, Order, Table
from raydiff.review.thumbnails import Pictures, Size
from raydiff.scoring import tokens
from raydiff.scoring.refusal import Refusal
from raydiff.scoring.site import ANSWERED, add_pages, failed, refused
from raydiff.settings import Settings

PICTURES_AT_ONCE = 4
_GONE = 499  # nobody reads it

S = TypeVar("S", bound=Settings)


class Rows(Filter, Order):
    """What a request for rows may say."""

    offset: int = Field(0, ge=0)
    limit: int = Field(PAGE, ge=1, le=MOST_A_PAGE)


class Shown(Settings):
    """What a request for a row's picture may say."""

    size: Size = "small"


class Review:
    """A score table that is looked through."""

    def __init__(
        self, table: Table, pictures: Pictures, about: Callable[[], About], giving: Giving | None = None
    ) -> None:
        """Args:
        about: called at the first request for it, as it may have to read columns.
        giving: takes verdicts; by default nobody gives any.
        """
        self.table, self.pictures = table, pictures
        self.giving = giving or Giving(table, None)
        self._about = about
        self._told: About | None = None
        self._places = asyncio.Semaphore(PICTURES_AT_ONCE)
        self._searching = asyncio.Semaphore(1)

    async def about(self, _: Request) -> Response:
        """The table as a whole."""
        if self._told is None:
            self._told = await asyncio.to_thread(self._about)
        await asyncio.to_thread(self.refresh)
        told = {
            **self._told.model_dump(mode="json"),
            "who": self.giving.who,
            "suggestions": len(self.table.suggestions),
        }
        return JSONResponse(told | self._trouble(), headers=ANSWERED)

    def refresh(self) -> None:
        """See what others said, and what is suggested."""
        self.table.judged.refresh()
        self.table.suggestions.refresh()

    def _trouble(self) -> dict[str, Any]:
        return {"trouble": self.table.judged.trouble or self.table.suggestions.trouble or None}

    async def rows(self, request: Request) -> Response:
        """A page of the rows that a filter leaves, in an order, and how many there are in all."""
        asked = _parsed(Rows, request.query_params)
        await asyncio.to_thread(self.table.judged.refresh)
        wanted = self.table.dated(Filter.parse(asked.model_dump(include=set(Filter.model_fields))))
        left = await self._found(request, wanted, Order.parse(asked.model_dump(include=set(Order.model_fields))))
        if left is None:
            return Response(status_code=_GONE)
        numbers = left.rows[asked.offset : asked.offset + asked.limit].tolist()
        rows = _plain(await asyncio.to_thread(self.table.page, left, asked.offset, asked.limit))
        told = {
            "total": len(left.rows),
            "alarms": left.alarms,
            "errors": left.errors,
            "offset": asked.offset,
            "changes": wanted.changes,
            "rows": [self._told_of(number, row) for number, row in zip(numbers, rows, strict=True)],
        }
        return JSONResponse(told | self._trouble(), headers=ANSWERED)

    def _told_of(self, number: int, row: dict[str, Any]) -> dict[str, Any]:
        """A row with what was said of it."""
        said = {"judged": self.table.judged.of(row["uri"]), "suggestion": self.table.suggestions.of(row["uri"])}
        return {"row": number, **row, **said}

    async def _found(self, request: Request, wanted: Filter, order: Order) -> Found | None:
        """What `Table.find` gives; None if nobody waits for it any more when its turn comes."""
        found = self.table.known(wanted, order)
        if found is not None:
            return found
        async with self._searching:
            if await request.is_disconnected():
                return None
            return await asyncio.to_thread(self.table.find, wanted, order)

    async def row(self, request: Request) -> Response:
        """All that the table says of a row."""
        number = self._number(request)
        (found,) = _plain(await asyncio.to_thread(self.table.files.take, [number]))
        return JSONResponse(self._told_of(number, found), headers=ANSWERED)

    async def picture(self, request: Request) -> Response:
        """The picture of a row, small or large, with its heat map."""
        number, shown = self._number(request), _parsed(Shown, request.query_params)
        async with self._places:
            if await request.is_disconnected():  # scrolled by while it waited
                return Response(status_code=_GONE)
            found = await asyncio.to_thread(self.pictures.of, number, shown.size)
        return Response(found.model_dump_json(), media_type="application/json", headers=ANSWERED)

    def _number(self, request: Request) -> int:
        number = int(request.path_params["row"])
        if number >= self.table.files.rows:
            raise Refusal(404, f"there is no row {number}; the table has {self.table.files.rows:,}, counted from 0")
        return number


def review_app(review: Review, token_hash: str | None, hosts: Collection[str] | None = None) -> Starlette:
    """The application.

    Args:
        token_hash: SHA-256 of the token that requests must bring, in hexadecimal digits; None asks for none.
        hosts: names under which it answers, None for all. Where no token is asked for, a page from elsewhere whose name
            is made to lead to this machine (DNS rebinding) would be let in under any other.
    """

    def guarded(endpoint: Callable[[Request], Any]) -> Callable[[Request], Any]:
        async def answered(request: Request) -> Response:
            if hosts is not None and request.headers.get("host", "").rsplit(":", 1)[0] not in hosts:
                raise Refusal(403, f"set {tokens.TOKEN} to have the viewer answer under other names than localhost")
            scheme, _, token = request.headers.get("authorization", "").partition(" ")
            tokens.check(token_hash, token if scheme.lower() == "bearer" else "")
            found: Response = await endpoint(request)
            return found

        return answered

    routes = [
        Route("/healthz", _healthz),
        Route("/v1/table", guarded(review.about)),
        Route("/v1/rows", guarded(review.rows)),
        Route("/v1/rows/{row:int}", guarded(review.row)),
        Route("/v1/rows/{row:int}/picture", guarded(review.picture)),
        Route("/v1/verdicts", guarded(review.giving.give), methods=["POST"]),
    ]
    handlers: Mapping[Any, Any] = {
        Refusal: refused,
        RaydiffError: _unreadable,
        HTTPException: _unknown,
        Exception: failed,
    }
    app = Starlette(routes=routes, exception_handlers=handlers)
    add_pages(app.router, {"/": "review.html"})
    return app


async def _healthz(_: Request) -> Response:
    return JSONResponse({"status": "ok"})


async def _unreadable(_: Request, error: Any) -> Response:
    """The table itself could not be read."""
    return JSONResponse({"error": str(error)}, 502, ANSWERED)


async def _unknown(request: Request, error: Any) -> Response:
    path, method = request.url.path, request.method
    taken = (error.headers or {}).get("Allow", "")
    sentence = f"{path} does not take {method}; it takes {taken}" if error.status_code == 405 else ""
    return JSONResponse(
        {"error": sentence or f"there is nothing at {path}; the page is at /"}, error.status_code, error.headers
    )


def _parsed(kind: type[S], said: Mapping[str, str]) -> S:
    try:
        return kind.parse(dict(said))
    except SettingsError as error:
        raise Refusal(400, str(error)) from None


def _plain(rows: pa.Table) -> list[dict[str, Any]]:
    """Rows as JSON has them."""
    return [{name: _value(value) for name, value in row.items()} for row in rows.to_pylist(maps_as_pydicts="lossy")]


def _value(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(name): _value(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_value(each) for each in value]
    if isinstance(value, date):
        return value.isoformat()
    return value if value is None or isinstance(value, bool | int | str) else str(value)
