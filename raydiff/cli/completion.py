"""What a shell offers behind an option, where that is no choice that typer knows: `raydiff --install-completion`."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence

import typer

from raydiff.errors import RaydiffError


def one_of(names: Sequence[str]) -> Callable[[], list[str]]:
    """Offers fixed names."""

    def offered() -> list[str]:
        return list(names)

    return offered


def models(ctx: typer.Context, incomplete: str) -> list[str]:
    """The models of the run in --out, also behind a comma; none of a run in object storage: a shell should not wait."""
    from raydiff import storage
    from raydiff.run_folder import RunFolder

    out = ctx.params.get("out")
    with contextlib.suppress(RaydiffError):
        if out and storage.is_local(out):
            before, comma, _ = incomplete.rpartition(",")
            return [f"{before}{comma}{name}" for name in RunFolder(out).models() if name not in before.split(",")]
    return []


def recipes() -> list[str]:
    """The recipes of the papers."""
    from raydiff import recipes

    return recipes.names()


def layouts() -> list[str]:
    """The layouts of folders."""
    from raydiff.images.layouts import known

    return known.names()
