"""All cells of a benchmark on a cluster, and what is written of them: Parquet, Markdown and a page."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
import ray

from raydiff import cluster, storage
from raydiff.benchmark.cell import Result, measure
from raydiff.benchmark.spec import Spec
from raydiff.benchmark.tables import Table
from raydiff.evaluation.evaluate import METRICS
from raydiff.progress import console, phase
from raydiff.report.page import write_page

_SECONDS = ("train_seconds", "tune_seconds", "score_seconds")
SCHEMA = pa.schema(
    [
        ("data", pa.string()),
        ("contender", pa.string()),
        ("method", pa.string()),  # empty: a trivial statistic
        ("model_id", pa.string()),
        ("seed", pa.int64()),
        ("category", pa.string()),
        *((name, pa.int64()) for name in ("images", "anomalous", "maps")),
        *((name, pa.float64()) for name in (*METRICS, *_SECONDS)),  # seconds: of the model, whatever its categories
        ("protocol", pa.string()),  # its digest
        ("protocol_fields", pa.string()),  # as JSON
        ("pseudo", pa.string()),  # of the tuning, as JSON
    ]
)


class Written(NamedTuple):
    """Where the results are."""

    results: str
    markdown: str
    page: str


def run(spec: Spec, out: str, at_once: int = 1) -> list[Result]:
    """The results of all contenders on all data sets with all seeds; what `out` does not hold of them is measured.

    Each cell, a data set with a seed, is a Ray task that runs the steps of a run as any job does; `at_once` of them are
    at work. Whatever was measured before by the same raydiff with the same settings is taken as it is.

    Raises:
        RaydiffError: the first that a cell ends with, once those under way have ended; their results are kept.
    """
    cells = [(data, seed) for data in spec.data for seed in spec.seeds]
    task: Any = ray.remote(num_cpus=0)(measure)
    waiting = list(cells)
    under_way: dict[Any, tuple[str, int]] = {}
    found: dict[tuple[str, int], list[Result]] = {}
    failed: list[BaseException] = []
    with phase("benchmark", len(cells), "cells") as shown:
        while waiting or under_way:
            while waiting and len(under_way) < at_once:
                cell = waiting.pop(0)
                under_way[task.remote(spec, *cell, out, at_once)] = cell
            (done,), _ = ray.wait(list(under_way), num_returns=1)
            cell = under_way.pop(done)
            try:
                found[cell] = cluster.result(done)
            except Exception as error:  # the others come to their end
                failed.append(error)
                waiting.clear()
                continue
            shown.advance(note=f"{cell[0]}, seed {cell[1]}")
    if failed:
        raise failed[0]
    return [result for cell in cells for result in found[cell]]


def write(results: Sequence[Result], shown: Sequence[Table], title: str, out: str, name: str) -> Written:
    """Write results as Parquet, and tables of them as Markdown and as a page, all called `name`; print the tables."""
    parquet, markdown, page = (storage.join(out, f"{name}.{end}") for end in ("parquet", "md", "html"))
    sink = pa.BufferOutputStream()
    rows = [
        {name: json.dumps(value) if isinstance(value, dict) else value for name, value in result.items()}
        for result in results
    ]
    pq.write_table(pa.Table.from_pylist(rows, SCHEMA), sink)
    storage.write_bytes(parquet, sink.getvalue().to_pybytes())
    storage.write_bytes(markdown, ("\n\n".join(table.markdown() for table in shown) + "\n").encode())
    write_page(page, "benchmark.html", title=title, tables=shown)
    for table in shown:
        console.print(table.rich())
    return Written(parquet, markdown, page)
