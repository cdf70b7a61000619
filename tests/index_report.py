"""What `raydiff index` says of a folder."""

from __future__ import annotations

import io
from pathlib import Path

from rich.console import Console

from raydiff.images.index import index, print_report
from raydiff.images.levels import Levels


def look(folder: Path, levels: Levels | None = None) -> str:
    """Its report, as text; the image table goes beside the folder."""
    to = Console(file=io.StringIO(), width=80, soft_wrap=True, highlight=False)
    print_report(index(str(folder), str(folder.parent / "images.parquet"), levels=levels), to)
    return to.file.getvalue()
