"""How fast `raydiff review` is, and what it takes: a made score table of any size, asked as the page asks.

python jobs/benchmark_review.py --rows 1000000 --out /tmp/review-million
"""

import json
import os
import re
import subprocess
import sys
import time
import urllib.error
import urllib.request
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Annotated

import numpy as np
import pyarrow as pa
import typer

from raydiff import cli, storage
from raydiff.images.shards import ROWS_PER_SHARD, shard_name
from raydiff.progress import console, phase
from raydiff.scoring import table
from raydiff.scoring.columns import read_columns
from raydiff.scoring.summary import summarise
from raydiff.verdicts import table as verdicts_table

CATEGORIES = ("bolt", "capsule", "gear", "fabric", "housing")
BAD = ("the JPEG file is truncated: it ends before its last pixel", "the file is empty")
THRESHOLD = 3.0


def main(
    out: Annotated[str, typer.Option(help="A local folder for the table; one that is there already is measured.")],
    rows: Annotated[int, typer.Option(min=1, help="Of the made table.")] = 1_000_000,
    verdicts: Annotated[int, typer.Option(min=0, help="Files of ten verdicts each beside the made table.")] = 1000,
    port: Annotated[int, typer.Option(help="Where the viewer listens meanwhile.")] = 8901,
) -> None:
    """Make a score table, start the viewer on it and time what its page asks for."""
    if not table.part_names(out):
        make(out, rows)
        judge(out, verdicts)
    measure(out, port)


def make(out: str, rows: int) -> None:
    """Write a score table in files as an archive's run writes them, sorted by URI."""
    rng = np.random.default_rng(0)
    with phase("table", rows) as shown:
        for number, start in enumerate(range(0, rows, ROWS_PER_SHARD)):
            count = min(ROWS_PER_SHARD, rows - start)
            place = table.part_uri(out, shard_name(1, number, count))
            table.write(place, made(np.arange(start, start + count), rng))
            shown.advance(count)
    storage.write_json(storage.join(out, "manifest.json"), {"complete": True, "shards": {}})
    storage.write_json(storage.join(out, "run.json"), {"model_id": "0" * 16, "maps": "none"})
    storage.write_json(storage.join(out, "summary.json"), summarise(out, None).model_dump(mode="json"))


def judge(out: str, files: int) -> None:
    """Write verdicts of images here and there, as inspectors who go through ten images at a time."""
    rng = np.random.default_rng(2)
    uris = [uri for part in read_columns(table.parts(out), ["uri"]) for uri in part["uri"].to_pylist()]
    for _ in range(files):
        some = [uris[place] for place in rng.integers(len(uris), size=10)]
        said = [verdicts_table.VERDICTS[kind] for kind in rng.integers(3, size=10)]
        rows = [verdicts_table.Verdict(*each, "anna", datetime.now(UTC)) for each in zip(some, said, strict=True)]
        verdicts_table.append(out, verdicts_table.of(rows))


def made(numbers: np.ndarray, rng: np.random.Generator) -> pa.Table:
    """Rows with these numbers."""
    count = len(numbers)
    days = numbers // 20_000
    which = rng.integers(len(CATEGORIES), size=count)
    score = np.where(rng.random(count) < 0.01, rng.normal(4, 1, count), rng.normal(1, 0.5, count))
    bad = rng.random(count) < 0.002
    names = [
        f"/archive/line4/2026-{day // 28 + 1:02d}-{day % 28 + 1:02d}/{number:09d}-{CATEGORIES[kind]}.jpg"
        for number, day, kind in zip(numbers.tolist(), days.tolist(), which.tolist(), strict=True)
    ]
    columns = {
        "uri": pa.array(names),
        "dataset": pa.repeat("archive", count),
        "category": pa.array(np.array(CATEGORIES)[which]),
        "split": pa.repeat("test", count),
        "day": pa.array([date(2026, 1, 1) + timedelta(days=day) for day in days.tolist()]),
        "height": pa.array(np.full(count, 2000, np.int32), mask=bad),
        "width": pa.array(np.full(count, 3000, np.int32), mask=bad),
        "content_hash": pa.array([rng.bytes(32).hex() for _ in range(count)]),
        "score": pa.array(score, mask=bad),
        "p_value": pa.array(np.ceil(1000 * np.exp(-np.maximum(score, 0))) / 1001, mask=bad),
        "threshold": pa.array(np.full(count, THRESHOLD), mask=bad),
        "is_anomalous": pa.array(score > THRESHOLD, mask=bad),
        "method": pa.repeat("nearest_patch", count),
        "model_id": pa.repeat("0" * 16, count),
        "error": pa.array(
            [BAD[number % 2] if wrong else None for number, wrong in enumerate(bad.tolist())], pa.string()
        ),
    }
    rows = [columns.get(field.name, pa.nulls(count, field.type)) for field in table.SCHEMA]
    return pa.table(rows, names=table.SCHEMA.names).cast(table.SCHEMA)


def measure(out: str, port: int) -> None:
    """Start the viewer and ask for what its page asks for."""
    program = [sys.executable, "-c", "from raydiff.cli import main; main()"]
    command = [*program, "review", "--out", out, "--port", str(port)]
    begun = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        try:
            watch = Watch(process.pid, port, begun)
            watch.ask("from the command until it listens", "/healthz")
            total = watch.ask("table described", "/v1/table")["rows"]
            watch.ask("first page, highest score first", "/v1/rows")
            watch.tell("from the command until the first page", time.perf_counter() - begun, watch.processor())
            for name, query in QUERIES.items():
                watch.ask(name, f"/v1/rows?{query}")
            watch.pages(np.random.default_rng(1).integers(0, max(1, total - 60), 40).tolist())
        finally:
            process.terminate()


class Watch:
    """Asks a viewer, and tells what each answer took: seconds, of them the processor's, and memory."""

    def __init__(self, process: int, port: int, begun: float) -> None:
        self._folder, self._port, self._last = Path(f"/proc/{process}"), port, begun
        self._used = 0.0

    def ask(self, name: str, path: str) -> dict[str, int]:
        """Ask, and print how long that took since the answer before."""
        found = self.answer(path)
        left = f", {found['total']:,} rows" if "total" in found else ""
        now, used = time.perf_counter(), self.processor()
        self.tell(f"{name}{left}", now - self._last, used - self._used)
        self._last, self._used = now, used
        return found

    def pages(self, places: list[int]) -> None:
        """Ask for pages here and there."""
        taken = []
        for place in places:
            start = time.perf_counter()
            self.answer(f"/v1/rows?offset={place}")
            taken.append(time.perf_counter() - start)
        mean = (self.processor() - self._used) / len(places)
        self.tell(f"a page anywhere, median of {len(places)}", float(np.median(taken)), mean)
        self.tell("  the slowest of them", max(taken), mean)

    def answer(self, path: str) -> dict[str, int]:
        """The answer, waited for until the viewer listens."""
        deadline = time.perf_counter() + 60
        while True:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{self._port}{path}") as answer:
                    found: dict[str, int] = json.load(answer)
                    return found
            except (ConnectionError, urllib.error.URLError):
                if time.perf_counter() > deadline:
                    raise
                time.sleep(0.02)

    def processor(self) -> float:
        """Seconds of the processor that the viewer has used."""
        fields = (self._folder / "stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def tell(self, name: str, seconds: float, processor: float) -> None:
        """Print a line."""
        status = (self._folder / "status").read_text()
        now, most = (int(found[1]) / 1024 for key in MEMORY if (found := re.search(rf"{key}:\s+(\d+)", status)))
        times = f"{seconds:7.2f} s, processor {processor:6.2f} s"
        console.print(f"{name:<58} {times}   {now:5.0f} MB, {most:5.0f} MB at most", markup=False)


MEMORY = ("VmRSS", "VmHWM")
QUERIES = {
    "next page": "offset=60",
    "category and alarms": "category=gear&verdict=alarm",
    "score range": "min_score=2&max_score=3",
    "days": "first_day=2026-01-10&last_day=2026-01-12",
    "kind of error": "reason=the%20file%20is%20empty",
    "p-value range, lowest first": "max_p=0.01&sort=p_value&descending=false",
    "text in the path": "text=00012",
    "text among one category's alarms": "text=0001&category=gear&verdict=alarm",
    "all by p-value": "sort=p_value&descending=false",
    "all by day": "sort=time",
    "all by path": "sort=uri&descending=false",
    "lowest score first": "descending=false",
    "judged defective, the first filter by verdict": "judged=defect",
    "not judged": "judged=none",
}

if __name__ == "__main__":
    cli.run(main)
