"""The figures of a run's report: curves against scikit-learn, promises against a closed form, maps side by side."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_run import CATEGORIES, Make, held_out, maker, text_of, with_card
from scipy.stats import beta
from sklearn import metrics as reference

from raydiff import storage
from raydiff.report import figures, runs, training
from raydiff.report.report import write_report
from raydiff.scoring import table as score_table


@pytest.fixture
def make(tmp_path: Path) -> Make:
    return maker(tmp_path)


def test_roc_agrees_with_scikit_learn_ties_included() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 400).astype(np.int8)
    scores = np.round(labels + rng.normal(0, 1, 400), 1)
    curve = figures.roc_curve("a", scores, labels, scores > 1)
    assert curve is not None
    false, caught, _ = reference.roc_curve(labels, scores, drop_intermediate=False)
    np.testing.assert_allclose(curve.false_alarm_rate, false)
    np.testing.assert_allclose(curve.recall, caught)
    assert curve.area == pytest.approx(reference.roc_auc_score(labels, scores))
    assert curve.alarm == (float((scores > 1)[labels == 0].mean()), float((scores > 1)[labels == 1].mean()))
    assert figures.roc_curve("a", scores, np.zeros(400, dtype=np.int8), None) is None


@pytest.mark.parametrize(
    "settings",
    [
        [{"corruption_steps": [250]}],
        [{"corruption_steps": [250]}, {"corruption_steps": [500]}],
        [{"corruption_steps": [250, 500]}, {"corruption_steps": [250]}],
        [{"k": 1, "steps": 5}, {"k": 2, "steps": 5}, {"k": 2, "steps": 1}],
        [{"k": k, "weights": "equal" if k % 2 else "near"} for k in range(1, 30)],
        [{"feature_editing": True}, {"feature_editing": False}],
    ],
)
def test_any_kind_of_tuned_setting_can_be_plotted(settings: list[dict[str, Any]]) -> None:
    trials = [{"settings": each, "pseudo_score": 0.9 - 0.01 * i, "test_score": None} for i, each in enumerate(settings)]
    trials.append({"settings": settings[0], "pseudo_score": None, "test_score": None})
    stage = {"name": "any", "trials": trials, "chosen": settings[-1]}
    assert figures.chosen_trial(stage, trials) == len(settings) - 1
    assert figures.tuning_plot(stage).startswith(b"\x89PNG")


def test_loss_curves_are_drawn_for_what_takes_gradient_steps(make: Make, tmp_path: Path) -> None:
    curve = [[10 * n, 2.0 / n] for n in range(1, 101)]
    entries = [
        with_card(make("lafite"), loss_curve=curve),
        with_card(make("nn", "nearest_patch"), loss_curve=[]),
        with_card(make("broken"), loss_curve=[[1, 0.5], [2, float("nan")], [3, 0.25]]),
    ]
    found = training.loss_curves([runs.load(entry) for entry in entries])
    assert [(each["name"], each["steps"], each["first"], each["last"]) for each in found] == [
        ("lafite", 1000, 2.0, 0.02),
        ("broken", 3, 0.5, 0.25),
    ]
    points = re.findall(r"([ML]) ([\d.]+) ([\d.]+)", max(re.findall(r'd="(M[^"]*)"', found[0]["plot"]), key=len))
    assert len(points) == 100
    heights = np.array([float(y) for _, _, y in points])
    expected = -np.log([loss for _, loss in curve])  # downwards, on a logarithmic axis
    np.testing.assert_allclose(
        (heights - heights[0]) / (heights[-1] - heights[0]),
        (expected - expected[0]) / (expected[-1] - expected[0]),
        atol=0.01,
    )
    uri = write_report(f"{tmp_path}/out", entries)
    text = text_of(uri)
    assert "lafite : from 2 to 0.02 in 1,000 steps." in text
    assert "loss_curve [" not in text
    assert len(storage.read_bytes(uri).decode()) < 4_000_000


def test_observed_false_alarms_stand_beside_the_promised_with_their_interval(make: Make, tmp_path: Path) -> None:
    def alarm(rows: list[dict[str, Any]]) -> None:
        normal = [row for row in rows if row["category"] == "gear" and row["label"] == 0]
        for place, row in enumerate(normal):
            row["is_anomalous"] = place < 5

    entry = make("lafite", edit=alarm)
    found = training.false_alarms([runs.load(entry)])
    assert found
    by_category = {row["category"]: row for row in found["rows"]}
    rows = score_table.read(entry.scores_uri).to_pandas().query("label == 0")
    for name in ("cup", "gear", None):
        mine = rows if name is None else rows[rows.category == name]
        row = by_category[name]
        alarms, images = int(mine.is_anomalous.astype(bool).sum()), len(mine)
        assert (row["alarms"], row["images"], row["rate"], row["promised"]) == (alarms, images, 0.01, True)
        low = beta.ppf(0.025, alarms, images - alarms + 1) if alarms else 0.0
        assert (row["low"], row["high"]) == pytest.approx((low, beta.ppf(0.975, alarms + 1, images - alarms)))
        assert row["verdict"] == ("more" if low > 0.01 else "agrees")
    assert by_category["gear"]["verdict"] == "more"
    text = text_of(write_report(f"{tmp_path}/out", [entry]))
    assert "lafite gear 1 % 42 % 5 of 12 15 % to 72 % more than asked for" in text
    assert training.false_alarms([runs.load(held_out(make, "held"))]) is None


def test_the_maps_of_all_methods_are_shown_of_the_same_images(make: Make, tmp_path: Path) -> None:
    def half(rows: list[dict[str, Any]]) -> None:
        for row in rows[::2]:
            row["map_uri"] = None

    entries = [make("lafite"), make("none", maps="none"), make("nn", "nearest_patch", edit=half), make("p", maps="png")]
    loaded = [runs.load(entry) for entry in entries]
    found = training.compared(loaded)
    assert found
    assert [number for number, _ in found["runs"]] == [0, 2, 3]
    tables = [run.table.to_pandas().set_index("uri") for _, run in found["runs"]]
    assert len(found["rows"]) == training.COMPARED
    for row in found["rows"]:
        assert row["image"]
        assert len({cell["heat"] for cell in row["cells"]}) == 3
        for cell, rows in zip(row["cells"], tables, strict=True):
            assert rows.map_uri[row["uri"]] is not None
            assert cell["score"] == rows.score[row["uri"]]
            assert cell["alarm"] == rows.is_anomalous[row["uri"]]
    kinds = Counter((row["category"], row["label"]) for row in found["rows"])
    assert {kind for kind, _ in kinds} == set(CATEGORIES)
    assert {label for _, label in kinds} == {"stain", "normal"}
    assert [row["uri"] for row in training.compared(loaded)["rows"]] == [row["uri"] for row in found["rows"]]
    assert training.compared(loaded[:2]) is None
    page = storage.read_bytes(write_report(f"{tmp_path}/out", entries)).decode()
    table = page[page.index('<table class="compared">') :]
    assert table[: table.index("</table>")].count("<img ") == training.COMPARED * 4
