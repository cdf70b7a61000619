"""Who may ask a service over HTTP: where RAYDIFF_SERVE_TOKEN was set as it started, whoever sends that token."""

from __future__ import annotations

import hashlib
import hmac
import os

from raydiff.errors import SettingsError
from raydiff.scoring.refusal import Refusal

TOKEN = "RAYDIFF_SERVE_TOKEN"


def hashed_token() -> str | None:
    """SHA-256 of the token in the environment, in hexadecimal digits; None where there is none.

    Raises:
        SettingsError: if it is empty, or cannot be sent in a header.
    """
    token = os.environ.get(TOKEN)
    if token is None:
        return None
    if not token or not all("!" <= letter <= "~" for letter in token):
        raise SettingsError(
            f"{TOKEN} is empty or has other characters than printable ASCII; take letters and digits, as "
            "`openssl rand -hex 32` makes them, or unset it to ask for no token"
        )
    return hashlib.sha256(token.encode()).hexdigest()


def check(token_hash: str | None, given: str) -> None:
    """Let through who brings the token.

    Args:
        token_hash: as of `hashed_token`; None lets everyone through.
        given: the token of a request, empty where there is none.

    Raises:
        Refusal: if it is another one.
    """
    if token_hash is None:
        return
    if not hmac.compare_digest(hashlib.sha256(given.encode()).hexdigest(), token_hash):
        raise Refusal(
            401, "this service asks for its token: send Authorization: Bearer TOKEN", {"WWW-Authenticate": "Bearer"}
        )
