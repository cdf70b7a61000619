"""Verdicts that the page gives: what a request may say, and whose verdicts they become.

Another site's page in the inspector's browser can send this service a form or plain text without being asked. Before it
sends JSON, the browser asks the service (CORS), and nothing here consents: so what is not sent as JSON is refused. The
guards of all requests (see `app.review_app`) stand before that.
"""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, Self

from pydantic import Field, StrictInt, StrictStr, model_validator
from python_multipart.multipart import parse_options_header
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from raydiff.errors import SettingsError
from raydiff.review.table import MOST_A_PAGE, Table
from raydiff.scoring.refusal import Refusal
from raydiff.scoring.site import ANSWERED
from raydiff.scoring.uploads import body
from raydiff.settings import Settings
from raydiff.verdicts.table import Verdict, is_region

MOST_BYTES = 64 * 2**10  # of a request
MOST_LETTERS = 2000  # of a note
MOST_OF_NAME = 200
_MOST_TOLD = 500  # letters of what was wrong: it may quote all that was sent

_Coordinate = Annotated[float, Field(strict=True, ge=0, allow_inf_nan=False)]
_Row = Annotated[StrictInt, Field(ge=0)]


class Given(Settings):
    """What a request says: one verdict of a row, or of several."""

    row: _Row | None = None
    rows: list[_Row] | None = Field(None, min_length=1, max_length=MOST_A_PAGE)
    verdict: Literal["normal", "defect", "unsure"]
    region: tuple[_Coordinate, _Coordinate, _Coordinate, _Coordinate] | None = None  # x0, y0, x1, y1; image pixels
    note: StrictStr | None = Field(None, max_length=MOST_LETTERS)

    @model_validator(mode="after")
    def _of_something(self) -> Self:
        if (self.row is None) == (self.rows is None):
            raise ValueError('say of which row the verdict is, as "row": 17, or of which several, as "rows": [17, 18]')
        if self.region is not None and self.row is None:
            raise ValueError("a region is a place in one image; give it with row")
        if self.region is not None and not is_region(self.region):
            raise ValueError("region is x0, y0, x1, y1 with x0 < x1 and y0 < y1")
        return self

    @property
    def numbers(self) -> list[int]:
        """Of the rows, each once."""
        return list(dict.fromkeys(self.rows or [self.row]))  # type: ignore[list-item]


class Giving:
    """Takes verdicts for a table, all of one person."""

    def __init__(self, table: Table, who: str | None) -> None:
        """Args:
            who: gives them; None: nobody does.

        Raises:
            SettingsError: if `who` is no name.
        """
        if who is not None and not 0 < len(who.strip()) <= MOST_OF_NAME:
            raise SettingsError(
                f"--who must be a name of 1 to {MOST_OF_NAME} letters; say who judges, as in --who anna"
            )
        self.who = who.strip() if who is not None else None
        self._table = table

    async def give(self, request: Request) -> Response:
        """Append the verdict of a request; the answer says which verdict counts of each row now."""
        if self.who is None:
            raise Refusal(403, "this viewer takes no verdicts; start it with --who NAME to give them under that name")
        kind = parse_options_header(request.headers.get("content-type", ""))[0]
        if kind != b"application/json":
            raise Refusal(415, "send a verdict as JSON, with Content-Type: application/json")
        given = _parsed(await body(request, MOST_BYTES))
        return JSONResponse({"rows": await asyncio.to_thread(self._keep, given, self.who)}, headers=ANSWERED)

    def _keep(self, given: Given, who: str) -> list[dict[str, Any]]:
        files, judged = self._table.files, self._table.judged
        numbers = given.numbers
        if max(numbers) >= files.rows:
            raise Refusal(404, f"there is no row {max(numbers)}; the table has {files.rows:,}, counted from 0")
        rows = files.take(numbers, ["uri", "height", "width"]).to_pylist()
        for number, row in zip(numbers, rows, strict=True):
            if not row["uri"]:
                raise Refusal(409, f"row {number} names no image of which a verdict could be kept")
        if given.region is not None and rows[0]["width"] and rows[0]["height"]:
            (_, _, x1, y1), width, height = given.region, rows[0]["width"], rows[0]["height"]
            if x1 > width or y1 > height:
                raise Refusal(400, f"the region reaches beyond the image, which has {width} x {height} pixels")
        note = (given.note or "").strip() or None
        now = datetime.now(UTC)
        uris = dict.fromkeys(row["uri"] for row in rows)  # a URI may stand in several rows
        judged.give([Verdict(uri, given.verdict, who, now, given.region, note) for uri in uris])
        judged.refresh()  # somebody else's may be newer
        return [{"row": number, "judged": judged.of(row["uri"])} for number, row in zip(numbers, rows, strict=True)]


def _parsed(data: bytes) -> Given:
    try:
        said = json.loads(data)
    except (ValueError, RecursionError):
        said = None
    if not isinstance(said, dict):
        raise Refusal(400, 'the body is no JSON object; send {"row": 17, "verdict": "normal"}')
    try:
        return Given.parse(said)
    except SettingsError as error:
        told = str(error)
        raise Refusal(400, told if len(told) <= _MOST_TOLD else f"{told[:_MOST_TOLD]}...") from None
