"""What a filesystem's exceptions mean: one sentence each, and whether trying again later may help."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator

import fsspec
from fsspec.implementations.local import LocalFileSystem

from raydiff.errors import RaydiffError, StorageError, StorageUnavailable

# What a network mount reports while its server is away.
_PASSING_LOCALLY = {errno.EIO, errno.ESTALE, errno.EAGAIN, errno.ETIMEDOUT}
# Answers of S3 that are filed among the client's mistakes (4xx), but mean a body lost on its way or a busy object.
_PASSING_CODES = {"RequestTimeout", "IncompleteBody", "OperationAborted"}
# Faults of this side, by name because most of their packages are optional.
_LASTING = {
    *("ValueError", "TypeError", "NotImplementedError", "MemoryError"),
    *("FileExistsError", "IsADirectoryError", "NotADirectoryError"),
    *("ParamValidationError", "NoCredentialsError", "PartialCredentialsError", "ProfileNotFound"),
}
# What to do about what libraries say in their own words, by the name of the exception.
_ADVICE = {
    "NoCredentialsError": "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, where this runs",
    "PartialCredentialsError": "set both AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, where this runs",
    "ProfileNotFound": "set AWS_PROFILE to one of those in ~/.aws",
    "EndpointConnectionError": "is the endpoint (AWS_ENDPOINT_URL) right, up and reachable from here?",
    "ConnectTimeoutError": "is the endpoint (AWS_ENDPOINT_URL) right, up and reachable from here?",
}
_ADVICE_BY_NUMBER = {
    errno.ENOSPC: "free some there, or name a place on another disk",
    errno.EDQUOT: "free some there, or name a place outside that quota",
    errno.EROFS: "name a place that can be written to",
}
_LASTING_NUMBERS = {errno.EINVAL, errno.ENAMETOOLONG, errno.ENOSPC, errno.EDQUOT, errno.EROFS}


@contextlib.contextmanager
def explained(uri: str, fs: fsspec.AbstractFileSystem) -> Iterator[None]:
    """Turn the many exceptions of `uri`'s filesystem into one sentence, and tell those that pass from others.

    Raises:
        StorageUnavailable: for what may pass.
        StorageError: for the rest.
    """
    try:
        yield
    except RaydiffError:
        raise
    except FileNotFoundError:
        raise StorageError(f"{uri} is not there; check the bucket, the folder and the name") from None
    except PermissionError as error:
        # S3 tells a wrong key from a wrong clock by a code, which s3fs leaves in the cause alone.
        reason = _answer(error)[1] or error.strerror or error
        raise StorageError(f"{uri}: access refused ({reason}); check the credentials and their rights") from None
    except Exception as error:  # every kind of store has errors of its own
        reason = " ".join(str(error).split()) or type(error).__name__
        kind = StorageUnavailable if _passes(error, isinstance(fs, LocalFileSystem)) else StorageError
        raise kind(f"{uri}: {reason}{_advice(error)}") from error


def _advice(error: Exception) -> str:
    """What to do about an error, as the end of a sentence; empty where nothing is known."""
    known = [_ADVICE_BY_NUMBER.get(getattr(error, "errno", None) or 0, "")]
    known += [_ADVICE.get(kind.__name__, "") for kind in type(error).__mro__]
    return next((f"; {said}" for said in known if said), "")


def _passes(error: Exception, local: bool) -> bool:
    """Whether the same call may succeed later.

    Of a local disk's errors the few of `_PASSING_LOCALLY` do. Elsewhere all do but what the store has decided (an
    answer of the 4xx kind) and what is wrong on this side (a bad name or argument, no credentials, a full disk):
    there are too many ways for stores and networks to fail to name them all.
    """
    if local:
        return isinstance(error, OSError) and error.errno in _PASSING_LOCALLY
    status, code = _answer(error)
    if status:
        return status in (408, 429) or (status >= 500 and status != 501) or code in _PASSING_CODES
    kinds = {kind.__name__ for kind in type(error).__mro__}
    return not kinds & _LASTING and getattr(error, "errno", None) not in _LASTING_NUMBERS


def knows_no_conditions(error: Exception) -> bool:
    """Whether a store has refused a write because it is a conditional one, which not all S3-like stores know."""
    return isinstance(error, NotImplementedError) or _answer(error)[0] == 501


def _answer(error: Exception) -> tuple[int, str]:
    """The HTTP status and S3's error code that a store answered with; 0 and "" if it gave no answer."""
    response = getattr(error.__cause__, "response", None)  # s3fs leaves both in the cause
    if isinstance(response, dict):
        status = response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        return status, response.get("Error", {}).get("Code", "")
    status = getattr(error, "status", 0)  # aiohttp's, for http:// and others
    return (status if isinstance(status, int) else 0), ""
