"""Pictures to look at, as pages carry them: JPEG, and data URIs."""

from __future__ import annotations

import base64
import io

from PIL import Image


def jpeg(picture: Image.Image, quality: int) -> bytes:
    """A picture as JPEG."""
    sink = io.BytesIO()
    picture.save(sink, "JPEG", quality=quality)
    return sink.getvalue()


def data_uri(kind: str, data: bytes) -> str:
    """A file of a kind (`image/png`) as a URI that holds all of it."""
    return f"data:{kind};base64,{base64.b64encode(data).decode('ascii')}"
