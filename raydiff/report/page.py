"""What the reports' pages share: how a template is filled, and how what it shows becomes a part of the file."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import jinja2

import raydiff
from raydiff import storage
from raydiff.images.encoded import data_uri
from raydiff.report import drawing, facts

FILE = "report.html"


def write_page(out_uri: str, template: str, **values: Any) -> str:
    """Fill a template of this folder and write it.

    Args:
        out_uri: a folder, which gets `report.html`, or a name that ends in `.html`.
        values: what the template names, but for `made`, `version` and what is written of all numbers.

    Returns:
        The URI of the file.

    Raises:
        StorageError: if it cannot be written.
    """
    page = (
        _environment()
        .get_template(template)
        .render(made=when(datetime.now(UTC)), version=raydiff.__version__, **values)
    )
    target = out_uri if out_uri.endswith(".html") else storage.join(out_uri, FILE)
    storage.write_bytes(target, page.encode())
    return target


def when(time: datetime) -> str:
    """A time as people read it."""
    return time.astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC")


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("raydiff.report", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["picture"] = _data_uri
    environment.filters["percent"] = facts.percent
    environment.filters["count"] = "{:,}".format
    environment.globals["colour"] = lambda number: drawing.method_style(number)[0]
    return environment


def _data_uri(picture: bytes) -> str:
    kind = "png" if picture.startswith(b"\x89PNG") else "jpeg"
    return data_uri(f"image/{kind}", picture)
