"""`--settings FILE.yaml` and `--print-config`: a command's options from a file, and into one."""

from __future__ import annotations

import difflib
import functools
import json
from collections.abc import Callable, Iterator, Mapping
from datetime import date
from typing import Annotated, Any

import typer

from raydiff.cli.extra_options import with_options
from raydiff.errors import SettingsError

OWN = ("settings", "print-config")  # never in a file


def configurable(command: Callable[..., None]) -> Callable[..., None]:
    """The command, with --settings and --print-config. What the command line gives counts before what the file does."""

    @functools.wraps(command)
    def configured(ctx: typer.Context, *, settings_file: str | None, print_config: bool, **named: Any) -> None:
        if print_config:
            typer.echo(as_yaml(ctx), nl=False)
            return
        command(**named)

    settings = typer.Option(
        "--settings",
        metavar="FILE.yaml",
        is_eager=True,
        callback=_take,
        help="Options from a YAML file, by their names.",
    )
    shown = typer.Option("--print-config", help="Print all options as a file for --settings, and do nothing.")
    return with_options(
        command,
        configured,
        ctx=(typer.Context, None),
        settings_file=(Annotated[str | None, settings], None),
        print_config=(Annotated[bool, shown], False),
    )


def as_yaml(ctx: typer.Context) -> str:
    """All options of a command line as they apply, as a settings file; those that are not given are null."""
    import yaml

    values = {name: ctx.params[option.name] for name, option in _options(ctx).items()}
    values = {
        name: (list(value) or None) if isinstance(value, list | tuple) else value for name, value in values.items()
    }
    return yaml.safe_dump(values, sort_keys=False, allow_unicode=True)


def _take(ctx: typer.Context, uri: str | None) -> str | None:
    """Have what the file says be the defaults of the command's options."""
    if uri and not ctx.resilient_parsing:
        ctx.default_map = {**(ctx.default_map or {}), **defaults(ctx, uri)}
    return uri


def defaults(ctx: typer.Context, uri: str) -> dict[str, Any]:
    """A settings file's values by the names of a command's parameters, each as the command line would give it.

    Raises:
        StorageError: if the file cannot be read.
        SettingsError: if it is no YAML mapping, or a name or the form of a value is none of the command's.
    """
    import yaml

    from raydiff import storage

    try:
        values = yaml.safe_load(storage.read_bytes(uri))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise SettingsError(f"{uri} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict):
        raise SettingsError(f"{uri} holds no settings; write one a line, as in preset: small")
    options = _options(ctx)
    found: dict[str, Any] = {}
    for key, value in values.items():
        name = str(key).replace("_", "-")
        if name not in options:
            near = difflib.get_close_matches(name, options, n=3)
            hint = f"did you mean {' or '.join(map(repr, near))}?" if near else f"it has {', '.join(options)}"
            raise SettingsError(f"{uri}: {ctx.info_name} has no option {str(key)!r}; {hint}")
        option = options[name]
        if option.name in found:
            raise SettingsError(f"{uri} says {name!r} twice; leave one out")
        if value is not None:
            found[option.name] = _given(value, option, f"{uri}: {name}")
    return found


def _options(ctx: typer.Context) -> dict[str, Any]:
    """A command's options that may stand in a file, by their names on the command line without dashes."""
    named = {option.opts[0].lstrip("-"): option for option in ctx.command.params if option.expose_value}
    return {name: option for name, option in named.items() if name not in OWN}


def _given(value: Any, option: Any, where: str) -> Any:
    """A value as the command line would give it, before it is typed.

    A mapping becomes NAME=VALUE, with dots where it is nested: several of them for an option that may be given several
    times, with commas between for others. So does a list, item by item.
    """
    flag = getattr(option, "is_flag", False)
    if flag or isinstance(value, bool):
        if not (flag and isinstance(value, bool)):
            kind = "true or false" if flag else f"a value for {option.opts[0]}, unless it is put in quotes"
            raise SettingsError(f"{where}: {value!r} is not {kind}")
        return value
    several = list(_items(value)) if isinstance(value, Mapping) else value if isinstance(value, list) else [value]
    texts = [_text(each) for each in several]
    return texts if option.multiple else ",".join(texts)


def _items(values: Mapping[Any, Any], prefix: str = "") -> Iterator[str]:
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _items(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}={_text(value)}"


def _text(value: Any) -> str:
    return str(value) if isinstance(value, str | date) else json.dumps(value, default=str)  # 2026-05-01 is a day
