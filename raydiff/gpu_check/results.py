"""What the check finds: JSON lines, appended as they come, and a Markdown table made of them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

LINES = "results.jsonl"
TABLE = "results.md"
DONE, FAILED, CUT_OFF, LEFT_OUT = "done", "failed", "cut off", "left out"


class Row(NamedTuple):
    """One thing that was looked at.

    Attributes:
        what: its name, unique within the part.
        values: plain values by name; units stand in the names.
        passed: whether it is as it must be or reaches its goal; None where nothing is asked of it.
    """

    what: str
    values: Mapping[str, Any]
    passed: bool | None = None


def add(out: Path, part: str, row: Row) -> None:
    """Append a row of a part."""
    _append(out, {"part": part, "what": row.what, **row.values, "passed": row.passed})


def add_end(out: Path, part: str, ended: str, seconds: float, error: str = "") -> None:
    """Append how a part ended: one of the four words above, and why if it is not the first."""
    _append(out, {"part": part, "ended": ended, "seconds": round(seconds, 1), "error": error})


def read(out: Path) -> list[dict[str, Any]]:
    """All lines, in order; a last one that was cut short is left out."""
    try:
        lines = (out / LINES).read_text().split("\n")[:-1]
    except FileNotFoundError:
        return []
    return [json.loads(line) for line in lines]


def _append(out: Path, line: Mapping[str, Any]) -> None:
    with (out / LINES).open("a") as file:
        file.write(json.dumps(line) + "\n")
    part = out / f"{TABLE}.part"
    part.write_text(as_markdown(read(out)))
    part.replace(out / TABLE)


def as_markdown(lines: Sequence[Mapping[str, Any]]) -> str:
    """A table of the parts, then one for each part's rows."""
    ends = {line["part"]: line for line in lines if "ended" in line}
    names = list(dict.fromkeys(line["part"] for line in lines))
    found = ["# GPU check", "", "| part | ended | seconds | not as it must be | error |", "|---|---|---|---|---|"]
    for name in names:
        end = ends.get(name, {"ended": "running", "seconds": "", "error": ""})
        wrong = [line["what"] for line in lines if line["part"] == name and line.get("passed") is False]
        found.append(_row([name, end["ended"], end["seconds"], ", ".join(wrong), end["error"]]))
    for name in names:
        rows = [line for line in lines if line["part"] == name and "ended" not in line]
        if rows:
            columns = [key for key in dict.fromkeys(key for row in rows for key in row) if key != "part"]
            columns = [key for key in columns if any(row.get(key) is not None for row in rows)]
            found += ["", f"## {name}", "", _row(key.replace("_", " ") for key in columns), "|" + "---|" * len(columns)]
            found += [_row(row.get(key) for key in columns) for row in rows]
    return "\n".join(found) + "\n"


def _row(values: Any) -> str:
    return "| " + " | ".join(_cell(value) for value in values) + " |"


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "**no**"
    text = f"{value:.4g}" if isinstance(value, float) and abs(value) < 1000 else str(value)
    if isinstance(value, float) and abs(value) >= 1000:
        text = f"{value:.0f}"
    return " ".join(text.replace("|", "/").split())
