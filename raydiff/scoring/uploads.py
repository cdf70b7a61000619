"""The body of an HTTP request: its bytes, counted, and the parts of a form (multipart/form-data, RFC 7578)."""

from __future__ import annotations

import logging
from typing import NamedTuple

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import Field, File, FormParser, parse_options_header
from starlette.requests import ClientDisconnect, Request

from raydiff.scoring.refusal import Refusal

FORM = "multipart/form-data"
logging.getLogger("python_multipart").setLevel(logging.ERROR)  # a line for each broken form; the answer says it
_CUT = "the form's body is cut short or not as its boundary says; send it as multipart/form-data (RFC 7578)"


class Part(NamedTuple):
    """A part of a form: a field, or a file where there is a file's name."""

    name: str
    filename: str | None
    data: bytes


async def body(request: Request, max_bytes: int) -> bytes:
    """A request's whole body.

    Raises:
        Refusal: if it has more bytes than `max_bytes`; then no more of it is read.
    """
    too_long = Refusal(413, f"the body has more than {max_bytes:,} bytes, which is the limit here")
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and int(announced) > max_bytes:
        raise too_long
    found = bytearray()
    try:
        async for chunk in request.stream():
            found += chunk
            if len(found) > max_bytes:  # counted, because a Content-Length may lie or be missing
                raise too_long
    except ClientDisconnect:
        raise Refusal(400, "the body ended before it was whole") from None
    return bytes(found)


def is_form(content_type: str) -> bool:
    """Whether a body of this Content-Type is a form, and not an image file itself."""
    return parse_options_header(content_type)[0] == FORM.encode()


def parts(data: bytes, content_type: str, most: int) -> list[Part]:
    """The parts of a form's body, in their order.

    Args:
        data: the body.
        content_type: the request's header, which names the boundary between parts.
        most: how many parts there may be.

    Raises:
        Refusal: if the body is no whole form, or has more parts.
    """
    boundary = parse_options_header(content_type)[1].get(b"boundary")
    if not boundary:
        raise Refusal(400, "the form's Content-Type names no boundary; let your HTTP client make the form")
    found: list[Part] = []
    ended: list[bool] = []

    def take(part: Field | File) -> None:
        if len(found) == most:
            raise Refusal(413, f"the form has more than {most} parts, which is the limit here")
        found.append(_part(part))

    whole = {"MAX_MEMORY_FILE_SIZE": len(data) + 1}  # which it is already; nothing is to go to the disk
    try:
        parser = FormParser(FORM, take, take, lambda: ended.append(True), boundary, config=whole)
        parser.write(data)
        parser.finalize()
    except FormParserError:
        raise Refusal(400, _CUT) from None
    if not ended:
        raise Refusal(400, _CUT)
    return found


def _part(part: Field | File) -> Part:
    """A part as it was read."""
    name = (part.field_name or b"").decode("utf-8", "replace")
    if isinstance(part, Field):
        return Part(name, None, part.value or b"")
    with part.file_object as file:
        file.seek(0)
        return Part(name, (part.file_name or b"").decode("utf-8", "replace") or None, file.read())
