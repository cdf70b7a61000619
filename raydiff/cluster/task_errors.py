"""The error of ours inside what Ray makes of it: a task's, an actor's, Ray Data's, Ray Train's or Ray Tune's.

Ray hands some errors on as they are, wraps others in its own, and keeps of a third kind only the traceback's text. A
user should read the one sentence in each case.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator

from ray.exceptions import RayError

from raydiff import errors
from raydiff.cluster.memory_errors import out_of_memory
from raydiff.errors import RaydiffError

# As a traceback ends, where only its text is left.
_ANOTHER = "During handling of the above exception, another exception occurred:"
_AS_TEXT = re.compile(r"^\W*raydiff\.errors\.(\w+): (.+)$", re.MULTILINE)


def ours(error: BaseException) -> RaydiffError | None:
    """The error of ours that is `error`, or caused it, or is named in its text; None if there is none.

    One of ours is made where memory ran out: that is nobody's defect.
    """
    waiting: list[BaseException] = [error]
    seen: dict[int, BaseException] = {}
    while waiting:
        one = waiting.pop(0)
        if id(one) in seen:
            continue
        seen[id(one)] = one
        # Ray's own version of an error is of its kind, too, but has a traceback for its text.
        if isinstance(one, RaydiffError) and not isinstance(one, RayError):
            return one
        of_workers = getattr(one, "worker_failures", None)
        below = [*of_workers.values()] if isinstance(of_workers, dict) else []
        below += [getattr(one, "cause", None), one.__cause__]
        waiting += [each for each in below if isinstance(each, BaseException)]
    if found := told_in(str(error)):
        return found
    return next((found for one in seen.values() if (found := out_of_memory(one))), None)


def told_in(text: str) -> RaydiffError | None:
    """The last error of ours that a traceback's text names, None if it names none.

    One that was being handled when another, which is none of ours, was raised, did not end the task.
    """
    for name, sentence in reversed(_AS_TEXT.findall(text.rpartition(_ANOTHER)[2])):
        kind = getattr(errors, name, None)
        if isinstance(kind, type) and issubclass(kind, RaydiffError):
            return kind(sentence)
    return None


@contextlib.contextmanager
def as_ours() -> Iterator[None]:
    """Raise the error of ours alone, where one inside Ray's ends the block."""
    try:
        yield
    except Exception as error:
        found = ours(error)
        if found is None or found is error:
            raise
        raise found from None
