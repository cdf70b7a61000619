"""Scored runs as the steps leave them, made of tables and drawn images; and what a report says to its reader."""

from __future__ import annotations

import html
import io
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from raydiff import storage
from raydiff.evaluation.evaluate import Evaluation
from raydiff.model.calibration import Calibration
from raydiff.report import runs
from raydiff.report.report import ReportEntry
from raydiff.scoring import table as score_table
from raydiff.scoring.maps import write_map

SIDE = 72
CATEGORIES = ("cup", "gear")
RANKING_METRICS = (
    "image_auroc",
    "image_ap",
    "image_f1_max",
    "pixel_auroc",
    "pixel_ap",
    "pixel_f1_max",
    "aupro",
)

Make = Callable[..., ReportEntry]


def png(pixels: np.ndarray) -> bytes:
    sink = io.BytesIO()
    Image.fromarray(pixels).save(sink, format="PNG")
    return sink.getvalue()


def maker(folder: Path) -> Make:
    """Makes one scored run on disk: images, masks, maps, score table, evaluation, tuning, model.json."""
    rng = np.random.default_rng(3)
    yy, xx = np.mgrid[:SIDE, :SIDE]
    samples = []
    for category in CATEGORIES:
        for number in range(24):
            label = [0, 1, None][0 if number < 12 else 1 if number < 20 else 2]
            blob = (yy - 20 - number) ** 2 + (xx - 50 + number) ** 2 < 40
            pixels = (150 + 40 * np.sin(xx / (5 if category == "cup" else 9)))[..., None] + rng.normal(
                0, 6, (SIDE, SIDE, 3)
            )
            pixels[blob] -= 90 if label == 1 else 0
            stem = folder / "data" / category / f"{number:03d}"
            storage.write_bytes(f"{stem}.png", png(pixels.clip(0, 255).astype(np.uint8)))
            if label == 1:
                storage.write_bytes(f"{stem}_mask.png", png(blob.astype(np.uint8) * 255))
            samples.append((category, str(stem), label, blob))

    def run(
        name: str,
        method: str = "lafite",
        auroc: tuple[float, float] = (0.96, 0.90),
        pseudo: float = 0.93,
        maps: str = "tiff",
        normals: int = 137,
        edit: Callable[[list[dict[str, Any]]], None] | None = None,
    ) -> ReportEntry:
        home = folder / re.sub(r"\W", "_", name)
        noise = np.random.default_rng(len(name))
        rows = []
        for category, stem, label, blob in samples:
            score = float(noise.normal(3.0 if label == 1 else 1.0, 0.7))
            map_uri = f"{home}/maps/{category}/{Path(stem).name}.{maps}"
            heat = noise.normal(1.0, 0.2, (SIDE, SIDE)) + score * blob * (label == 1)
            if maps == "tiff":
                write_map(map_uri, heat.astype(np.float32))
            elif maps == "png":
                storage.write_bytes(map_uri, png((heat * 60).clip(0, 255).astype(np.uint8)))
            rows.append(
                {
                    "uri": f"{stem}.png",
                    "dataset": "made",
                    "category": category,
                    "split": "test",
                    "label": label,
                    "defect": {0: "good", 1: "stain", None: None}[label],
                    "mask_uri": f"{stem}_mask.png" if label == 1 else None,
                    "height": SIDE,
                    "width": SIDE,
                    "content_hash": "0" * 64,
                    "score": score,
                    "p_value": 1 / (1 + 50 * max(score, 0)),
                    "threshold": 2.2,
                    "is_anomalous": score > 2.2,
                    "map_uri": map_uri if maps != "none" else None,
                    "method": method,
                    "model_id": "abcdef0123456789",
                    "error": None,
                }
            )
        if edit:
            edit(rows)
        for part in range(2):
            table = pa.Table.from_pylist(rows[part::2][::-1], schema=score_table.SCHEMA)
            score_table.write(score_table.part_uri(f"{home}/scores", f"{part}"), table)
        storage.write_json(f"{home}/evaluation.json", made_evaluation(method, auroc))
        storage.write_json(f"{home}/tune.json", made_tuning(method, pseudo))
        storage.write_json(f"{home}/model/model.json", made_model(method, normals))
        return ReportEntry(
            name=name,
            scores_uri=f"{home}/scores",
            evaluation_uri=f"{home}/evaluation.json",
            model_uri=f"{home}/model",
            tuning_uri=f"{home}/tune.json",
        )

    return run


def made_evaluation(method: str, auroc: tuple[float, float]) -> dict[str, Any]:
    def numbers(value: float) -> dict[str, Any]:
        return dict.fromkeys(RANKING_METRICS, value) | {"false_alarm_rate": 0.083, "recall": 0.75}

    categories = {
        category: numbers(value)
        | {"images": 20, "anomalous": 8, "maps": 20, "defects": {"stain": {"images": 8, "image_auroc": value}}}
        for category, value in zip(CATEGORIES, auroc, strict=True)
    }
    mean, worst = numbers(sum(auroc) / 2), numbers(min(auroc))
    found = {
        "method": method,
        "model_id": "abcdef0123456789",
        "scores_uri": "scores",
        "size": None,
        "pixel_metrics": "exact",
        "images": 40,
        "errors": 0,
        "categories": categories,
        "mean": mean,
        "worst": {name: {"category": "gear", "value": value} for name, value in worst.items()},
    }
    return Evaluation.model_validate(found).model_dump(mode="json")


def made_tuning(method: str, pseudo: float) -> dict[str, Any]:
    def stage(key: str, trials: list[tuple[Any, float, float]], chosen: Any, fixed: dict[str, Any]) -> dict[str, Any]:
        made = [
            {"settings": {key: value}, "fixed": fixed, "pseudo_score": auroc, "test_score": test, "seconds": 4.0}
            for value, auroc, test in trials
        ]
        made[0] |= {"share": 0.25, "test_score": None} if len(made) > 3 else {}
        return {"name": key, "trials": made, "chosen": {key: chosen}}

    steps = [(100, -0.2, 0.71), (300, -0.06, 0.83), (500, -0.01, 0.9), (700, -0.04, 0.91)]
    stages = [
        stage("corruption_steps", [([n], pseudo + x, t) for n, x, t in steps], [500], {"feature_editing": False}),
        stage("neighbours", [(k, pseudo - 0.01 * (k != 4), 0.9) for k in (1, 4, 8)], 4, {}),
    ]
    return {
        "method": method,
        "metric": "image_auroc",
        "model_id": "abcdef0123456789",
        "pseudo_images": {category: [30, 41] for category in CATEGORIES},
        "saw_made_anomalies": False,
        "pseudo_score": pseudo,
        "stages": stages,
        "rank_correlation": {"corruption_steps": 0.8, "neighbours": None},
        "chosen": {"corruption_steps": [500], "neighbours": 4},
    }


def made_calibration(normals: dict[str, int], shared: tuple[str, ...] = ()) -> Calibration:
    scores = {category: [0.5 + 1.7 * i / count for i in range(count)] for category, count in normals.items()}
    return Calibration.fit(scores, 0.01, shared)


def made_model(method: str, normals: int) -> dict[str, Any]:
    return {
        "method": method,
        "settings": {"train": {"grid": 16, "learning_rate": 3e-4}, "score": {"corruption_steps": [500]}},
        "calibration": made_calibration(dict.fromkeys(CATEGORIES, normals)).model_dump(mode="json"),
        "card": {"seed": 7, "versions": {"torch": "2.15.0"}, "training_minutes": 12.5, "licence": "apache-2.0"},
        "id": "abcdef0123456789",
    }


def bare_run(name: str, method: str = "lafite", auroc: tuple[float, float] = (0.9, 0.9), **columns: Any) -> runs.Run:
    count = len(columns.get("score", [0.0]))
    nothing = np.full(count, np.nan)
    values: dict[str, Any] = {
        "held_out": False,
        "model_uri": None,
        "table": None,
        "categories": list(CATEGORIES),
        "category": np.zeros(count, dtype=np.intp),
        "label": np.zeros(count, dtype=np.int8),
        "score": nothing,
        "threshold": nothing,
        "alarm": np.zeros(count, dtype=bool),
        "details": {},
        "evaluation": made_evaluation(method, auroc),
        "tuning": None,
        "model": None,
        "calibration": None,
    }
    return runs.Run(name=name, method=method, model_id="x", scores_uri="s", **(values | columns))


def held_out(make: Make, name: str, method: str = "lafite") -> ReportEntry:
    """A run that has no images to test on: the normals that calibrated it, scored before there was a threshold."""

    def edit(rows: list[dict[str, Any]]) -> None:
        rows[:] = [
            row | {"split": "train", "p_value": None, "threshold": None, "is_anomalous": None, "mask_uri": None}
            for row in rows
            if row["label"] == 0
        ]

    entry = make(name, method, maps="none", edit=edit)
    return entry.model_copy(update={"held_out": True, "evaluation_uri": None})


def with_card(entry: ReportEntry, **card: Any) -> ReportEntry:
    assert entry.model_uri
    model = storage.read_json(f"{entry.model_uri}/model.json")
    storage.write_json(f"{entry.model_uri}/model.json", model | {"card": model["card"] | card})
    return entry


def text_of(uri: str) -> str:
    """The report as its reader sees it: no tags, entities resolved, single spaces."""
    page = storage.read_bytes(uri).decode()
    body = page[page.index("<body") :]
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", body)).split())
