"""Whether a model hub can give a file, asked once and with a deadline: its own library tries for minutes."""

from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Callable

from huggingface_hub import constants, get_hf_file_metadata, hf_hub_url, try_to_load_from_cache
from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError

from raydiff.deadline import answers_within

ANSWER_SECONDS = 5.0  # for a connection, and again for an answer
DEADLINE_SECONDS = 15.0  # for both, with a name server that may be silent


# Its HTTP client's, whichever that is, and OSError.
FAILURES = tuple(kind for kind in HfHubHTTPError.__bases__ if issubclass(kind, Exception))


class HubError(Exception):
    """A hub cannot give what is asked of it. Whoever asks knows what for, and makes a sentence of it."""


def check(repo: str, files: tuple[str, ...], revision: str | None = None) -> None:
    """Whether one of these files of a repository can be had, from the hub's cache on this machine or from the hub.

    HF_ENDPOINT, HF_HUB_OFFLINE and the other settings of huggingface_hub hold. A hub that answers without having any
    of the files is left to its own library, which knows more names.

    Raises:
        HubError: if none is in the cache, and the hub may not be asked, does not answer or refuses.
    """
    try:
        cached = [try_to_load_from_cache(repo, file, revision=revision) for file in files]
        url = hf_hub_url(repo, files[0], revision=revision)
    except ValueError as error:
        raise HubError(f"no name of a repository: {_reason(error)}") from None
    if any(isinstance(path, str) for path in cached):
        return
    if constants.HF_HUB_OFFLINE:
        raise HubError(f"{repo} is not in this machine's cache, and HF_HUB_OFFLINE forbids asking the hub")

    def ask() -> None:
        try:
            get_hf_file_metadata(url, timeout=ANSWER_SECONDS)
        except EntryNotFoundError:
            pass
        except FAILURES as error:
            raise HubError(f"{constants.ENDPOINT}: {_reason(error)}") from None

    _within(DEADLINE_SECONDS, ask, constants.ENDPOINT)


def check_url(url: str, seconds: float = DEADLINE_SECONDS) -> None:
    """Whether a web server gives a file, and that within so many seconds.

    Raises:
        HubError: if it does not answer or refuses.
    """

    def ask() -> None:
        try:
            with urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=ANSWER_SECONDS):
                pass
        except (OSError, ValueError) as error:
            inner = getattr(error, "reason", None)  # of what never came to an answer, for which urllib has words around
            raise HubError(f"{url}: {_reason(inner if isinstance(inner, OSError) else error)}") from None

    _within(seconds, ask, url)


def _within(seconds: float, ask: Callable[[], None], where: str) -> None:
    if not answers_within(seconds, ask):
        raise HubError(f"{where}: no answer within {seconds:g} s")


def _reason(error: BaseException) -> str:
    """The first line of what happened, without the request's number and advice."""
    lines = str(error).strip().splitlines()
    return (lines[0] if lines else type(error).__name__).split(" (Request ID")[0].rstrip(". ")
