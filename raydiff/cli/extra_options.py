"""Options that a function's own signature does not have: how a decorator gives them to a command."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any


def with_options(inner: Callable[..., Any], wrapper: Callable[..., Any], **options: Any) -> Callable[..., Any]:
    """`wrapper`, with the signature of the command `inner` and these options behind it.

    Args:
        options: annotations by name, each with its default behind it: `(Annotated[...], default)`.
    """
    signature = inspect.signature(inner, eval_str=True)
    more = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=annotation, default=default)
        for name, (annotation, default) in options.items()
    ]
    found = signature.replace(parameters=[*signature.parameters.values(), *more], return_annotation=None)
    vars(wrapper).update(__signature__=found)
    wrapper.__annotations__ = {name: each.annotation for name, each in found.parameters.items()}
    return wrapper
