"""The body of an HTTP request: its bytes, counted, and the parts of a form (multipart/form-data, RFC 7578)."""

from __future__ import annotations

import re
from email.message import Message
from email.utils import collapse_rfc2231_value
from typing import NamedTuple

from starlette.requests import ClientDisconnect, Request

from raydiff.scoring.refusal import Refusal

FORM = "multipart/form-data"
_HEADER_BYTES = 8192  # of all headers of a part
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
    return _header(content_type).get_content_type() == FORM


def parts(data: bytes, content_type: str, most: int) -> list[Part]:
    """The parts of a form's body, in their order.

    Args:
        data: the body.
        content_type: the request's header, which names the boundary between parts.
        most: how many parts there may be.

    Raises:
        Refusal: if the body is no whole form, or has more parts.
    """
    boundary = _header(content_type).get_param("boundary")
    if not isinstance(boundary, str) or not boundary:
        raise Refusal(400, "the form's Content-Type names no boundary; let your HTTP client make the form")
    line = b"--" + boundary.encode("latin-1", "replace")
    place = 0 if data.startswith(line) else data.find(b"\r\n" + line) + 2
    if place < 2 and not data.startswith(line):
        raise Refusal(400, _CUT)
    found: list[Part] = []
    while True:
        place += len(line)
        if data[place : place + 2] == b"--":
            return found
        if len(found) == most:
            raise Refusal(413, f"the form has more than {most} parts, which is the limit here")
        head = data.find(b"\r\n", place)
        ends = data.find(b"\r\n\r\n", place, place + _HEADER_BYTES)
        after = data.find(b"\r\n" + line, max(ends + 2, place))
        if min(head, ends, after) < 0 or data[place:head].strip(b" \t"):
            raise Refusal(400, _CUT)
        found.append(_part(data[head + 2 : ends + 2], data[ends + 4 : after]))
        place = after + 2


def _part(head: bytes, data: bytes) -> Part:
    """A part with its headers (lines that each end in CRLF) read."""
    disposition = ""
    for text in head.decode("utf-8", "replace").split("\r\n"):
        header, _, value = text.partition(":")
        if header.strip().lower() == "content-disposition":
            disposition = value.strip()
    read = _header(disposition)
    name, filename = (read.get_param(key) for key in ("name", "filename"))
    if name is None:
        raise Refusal(400, "a part of the form has no name; let your HTTP client make the form")
    return Part(collapse_rfc2231_value(name), collapse_rfc2231_value(filename) if filename else None, data)


def _header(value: str) -> Message:
    """A header's value and its parameters, for reading."""
    message = Message()
    message["Content-Type"] = re.sub(r"[\r\n]", " ", value) or "application/octet-stream"
    return message
