"""How s3fs sends its requests. Imports aiobotocore, so only who has s3fs may import this."""

from __future__ import annotations

from typing import Any

from aiobotocore.httpsession import AIOHTTPSession


class Session(AIOHTTPSession):
    """Sends a body at once, not when the store has asked for it.

    botocore has each body announced by "Expect: 100-continue", and aiohttp waits for the store's "100 Continue" under
    no timeout at all: an upload to a store that has stopped to answer would never end. The header is not signed.
    """

    async def send(self, request: Any) -> Any:
        request.headers.pop("Expect", None)
        return await super().send(request)
