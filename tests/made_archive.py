"""A scored archive as jobs/score_archive.py leaves it, made of tables and drawn images, without Ray or a model.

    python tests/made_archive.py FOLDER ROWS

makes a large one: 20 categories, 120 days, three views a part.
"""

from __future__ import annotations

import datetime
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from conftest import made_images, with_defect
from PIL import Image

from raydiff import storage
from raydiff.images.table import PART
from raydiff.model.calibration import Calibration
from raydiff.model.description import DESCRIPTION, FORMAT, model_id
from raydiff.scoring import parts_table, table
from raydiff.scoring.maps import write_map
from raydiff.scoring.summary import summarise
from raydiff.scoring.table import SUMMARY

RATE = 0.01
FIRST_DAY = datetime.date(2026, 3, 2)
ROWS_PER_PART = 8192
SIDE = 48


def calibration(categories: tuple[str, ...], normals: int = 400, seed: int = 1) -> Calibration:
    """Of normal scores of which each category has its own place and scale."""
    rng = np.random.default_rng(seed)
    scores = {name: (10 * place + (1 + place) * rng.normal(size=normals)) for place, name in enumerate(categories)}
    return Calibration.fit({name: found.tolist() for name, found in scores.items()}, RATE)


def description(calibrated: Calibration | None, **settings: Any) -> dict[str, Any]:
    """A model's description with the id that its contents have."""
    told: dict[str, Any] = {
        "format": FORMAT,
        "method": "nearest_patch",
        "settings": {"train": {"image_size": 32, **settings}, "score": {"neighbours": 4}},
        "positions": None,
        "calibration": calibrated.model_dump(mode="json") if calibrated else None,
        "weights_sha256": "0" * 64,
    }
    return told | {"id": model_id(told), "card": {"seed": 7, "trained": "2026-02-27T10:00:00+00:00"}}


def score_rows(
    rows: int,
    calibrated: Calibration,
    days: int = 28,
    drift_from: int | None = None,
    seed: int = 0,
) -> pa.Table:
    """Rows of a score table: 1 % defects, .3 % errors of three kinds; `drift_from` a day the first category drifts."""
    rng = np.random.default_rng(seed)
    names = list(calibrated.categories)
    place = rng.integers(0, len(names), rows)
    day = np.sort(rng.integers(0, days, rows))
    z = rng.normal(size=rows) + np.where(rng.random(rows) < 0.01, rng.uniform(3, 9, rows), 0)
    if drift_from is not None:
        z += np.where((day >= drift_from) & (place == 0), 0.9, 0)
    score = 10 * place + (1 + place) * z
    threshold = np.array([calibrated.of(name).threshold for name in names])[place]
    p_value = np.empty(rows)
    for number, name in enumerate(names):
        normals = np.array(calibrated.categories[name].scores)
        mine = place == number
        p_value[mine] = (1 + len(normals) - np.searchsorted(normals, score[mine])) / (1 + len(normals))
    bad = rng.random(rows) < 0.003
    reasons = ["the file is empty", "the PNG file is damaged or of a variety not known here (bad {i})", "no image: {i}"]
    dates = [FIRST_DAY + datetime.timedelta(int(number)) for number in range(days)]
    columns = {
        "uri": [f"/archive/{names[p]}/{dates[d]}/{i:07d}.png" for i, (p, d) in enumerate(zip(place, day, strict=True))],
        "category": [names[p] for p in place],
        "split": ["test"] * rows,
        "day": [dates[d] for d in day],
        "content_hash": [f"{i:016x}{0:048x}" for i in rng.permutation(rows)],
        "score": pa.array(score, mask=bad),
        "p_value": pa.array(p_value, mask=bad),
        "threshold": pa.array(threshold, mask=bad),
        "is_anomalous": pa.array(score > threshold, mask=bad),
        "method": ["nearest_patch"] * rows,
        "error": [reasons[i % 3].format(i=i) if bad[i] else None for i in range(rows)],
    }
    return pa.table(
        [
            pa.array(columns[field.name], field.type) if field.name in columns else pa.nulls(rows, field.type)
            for field in table.SCHEMA
        ],
        schema=table.SCHEMA,
    )


def write_archive(
    folder: Path | str, rows: pa.Table, calibrated: Calibration | None, maps: str = "none", **settings: Any
) -> str:
    """The folder of a scored archive with these rows; a column `part` makes a table of parts. Its URI."""
    uri = str(folder)
    for number, start in enumerate(range(0, len(rows), ROWS_PER_PART)):
        table.write(table.part_uri(uri, f"{number:06d}"), rows.slice(start, ROWS_PER_PART))
    model = description(calibrated, **settings)
    run = {"model_id": model["id"], "images": "/archive", "maps": maps, "max_pixels": 500_000_000, "rows_per_part": 64}
    storage.write_json(storage.join(uri, table.RUN), run | {"begun": "2026-04-01T08:30:00+00:00"})
    storage.write_json(storage.join(uri, DESCRIPTION), model)
    storage.write_json(storage.join(uri, table.MANIFEST), {"complete": True, "shards": {}})
    summary = summarise(uri, calibrated)
    if PART in rows.column_names:
        parts = parts_table.write_parts(uri, calibrated, len(rows))
        summary = summary.model_copy(update={"parts": parts})
    storage.write_json(storage.join(uri, SUMMARY), summary.model_dump(mode="json"))
    return uri


def with_images(folder: Path, rows: pa.Table, maps: bool = True) -> pa.Table:
    """The rows with drawn images (and maps) in `folder` in the place of theirs: defects where they raise an alarm."""
    uris, map_uris = [], []
    images = made_images(len(rows), SIDE, seed=5)
    alarms = rows["is_anomalous"].to_pylist()
    heat = np.full((SIDE, SIDE), 0.5, np.float32)
    heat[SIDE // 4 : SIDE // 2, SIDE // 4 : SIDE // 2] = 60.0
    (folder / "images").mkdir(parents=True)
    for number, (image, alarm) in enumerate(zip(images, alarms, strict=True)):
        uris.append(str(folder / f"images/{number:04d}.png"))
        Image.fromarray(with_defect(image[None])[0] if alarm else image).save(uris[-1])
        map_uris.append(str(folder / f"maps/{number:04d}.tiff") if maps and alarm is not None else None)
        if map_uris[-1]:
            write_map(map_uris[-1], heat if alarm else np.zeros_like(heat))
    for name, values in (("uri", uris), ("map_uri", map_uris)):
        rows = rows.set_column(rows.column_names.index(name), name, pa.array(values, pa.string()))
    return rows


def write_large(folder: str, rows: int, at_once: int = 100_000) -> None:
    """A large archive without images, its first category drifting from the 90th day on."""
    calibrated = calibration(tuple(f"product {number:02d}" for number in range(20)), normals=2000)
    pieces = [
        score_rows(min(at_once, rows - start), calibrated, days=120, drift_from=90, seed=start)
        for start in range(0, rows, at_once)
    ]
    found = pa.concat_tables(pieces)
    told = {
        "uri": [f"s3://plant/line4/{number:09d}.png" for number in range(rows)],
        "content_hash": [f"{number:016x}{0:048x}" for number in range(rows)],
    }
    for name, values in told.items():
        found = found.set_column(found.column_names.index(name), name, pa.array(values))
    views = found["category"].to_pandas()
    parts = pa.array([f"serial {number // 3}" for number in views.groupby(views).cumcount()])
    write_archive(folder, found.append_column(PART, parts), calibrated)


if __name__ == "__main__":
    write_large(sys.argv[1], int(sys.argv[2]))
