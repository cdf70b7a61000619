"""The table of parts against Python's own dictionaries and fractions, and what it holds in memory."""

from __future__ import annotations

import datetime
from collections import defaultdict
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raydiff import steps, storage
from raydiff.errors import DataError
from raydiff.images.listing import Listing
from raydiff.images.parts import PartPattern
from raydiff.model.calibration import Calibration
from raydiff.run_folder import RunFolder
from raydiff.scoring import bulk, parts_table, table
from raydiff.scoring import by_part as grouping
from raydiff.scoring.bulk import Summary
from raydiff.scoring.parts_table import has_parts, write_parts
from raydiff.steps import scoring

RATE = "0.1"
SCHEMA = table.SCHEMA.append(pa.field("part", pa.string()))
MAY = datetime.date(2026, 5, 1)


def normals(seed: int = 0) -> dict[str, list[float]]:
    """Few scores, many of them equal: of bolts enough for parts of four views, of nuts for such of one."""
    rng = np.random.default_rng(seed)
    return {"bolt": rng.integers(0, 50, 59).astype(float).tolist(), "nut": rng.integers(0, 50, 12).tolist()}


def calibration() -> Calibration:
    return Calibration.fit(normals(), float(RATE))


def rows_of(count: int, seed: int, known: Calibration | None) -> list[dict[str, Any]]:
    """Rows of a score table: many equal scores, some errors, images of no known part, and guessed categories."""
    rng = np.random.default_rng(seed)
    rows = []
    for number in range(count):
        row: dict[str, Any] = {
            "uri": f"/archive/{number:05d}.png",
            "category": str(rng.choice(["bolt", "nut", "bolt:1"])),  # the last one is not known, and was guessed
            "part": None if rng.random() < 0.1 else str(rng.integers(0, count // 6)),
            "day": MAY + datetime.timedelta(int(rng.integers(0, 9))),
            "method": "m",
            "model_id": "id",
        }
        if row["category"] == "bolt:1":
            row["category_guessed"] = str(rng.choice(["bolt", "nut"]))
        if rng.random() < 0.1:
            row["error"] = f"the file is empty ({number})"
        else:
            row["score"] = float(rng.integers(0, 56))
            if known:
                of = known.of(row.get("category_guessed") or row["category"])
                row |= {"p_value": of.p_value(row["score"]), "threshold": of.threshold}
        rows.append(row)
    return rows


def write(folder: Path, rows: list[dict[str, Any]], seed: int = 0) -> str:
    """A score table of these rows in files of a few rows each, so that views of a part lie in many."""
    order = np.random.default_rng(seed).permutation(len(rows))
    for start in range(0, len(rows), 7):
        some = pa.Table.from_pylist([rows[place] for place in order[start : start + 7]], schema=SCHEMA)
        table.write(table.part_uri(str(folder), f"0001-{start // 7:06d}-{len(some)}"), some)
    return str(folder)


def by_hand(rows: list[dict[str, Any]]) -> dict[Any, dict[str, Any]]:
    """What the table of parts must say, by (category, part), or by uri where no part is known."""
    frame = pd.DataFrame(rows)
    alone = frame["part"].isna()
    keys = list(zip(frame["category"], frame["part"].where(~alone, frame["uri"]), alone, strict=True))
    groups = defaultdict(list)
    for key, row in zip(keys, rows, strict=True):
        groups[key].append(row)
    found = {}
    known = {name: sorted(scores) for name, scores in normals().items()}

    def chance(row: dict[str, Any]) -> Fraction:
        scores = known[row.get("category_guessed") or row["category"]]
        return Fraction(1 + sum(score >= row["score"] for score in scores), len(scores) + 1)

    for key, views in groups.items():
        scored = [row for row in views if "score" in row]
        told: dict[str, Any] = {"views": len(views), "views_not_scored": len(views) - len(scored)}
        if not scored:
            worst = min(views, key=lambda row: row["uri"])
            found[key] = told | {"uri": worst["uri"], "p_value": None, "is_anomalous": None}
            continue
        worst = min(scored, key=lambda row: (chance(row), -row["score"], row["uri"]))
        corrected = min(Fraction(1), len(views) * chance(worst))
        lowest = Fraction(1, len(known[worst.get("category_guessed") or worst["category"]]) + 1)
        alarm = corrected <= max(Fraction(RATE), lowest)
        can = len(views) * lowest <= max(Fraction(RATE), lowest)
        found[key] = told | {
            "uri": worst["uri"],
            "day": worst["day"],
            "score": worst["score"],
            "p_value": float(chance(worst)),
            "corrected_p_value": float(corrected),
            "is_anomalous": True if alarm else None if len(scored) < len(views) or not can else False,
        }
    return found


def read(out: str) -> dict[Any, dict[str, Any]]:
    found = pq.read_table(storage.join(out, "parts"))
    assert found.schema.equals(parts_table.SCHEMA)
    rows = {(row["category"], row["part"] or row["uri"], row["part"] is None): row for row in found.to_pylist()}
    assert len(rows) == len(found)
    return rows


def test_how_many_views_can_be_decided_is_foretold():
    told = parts_table.foretold(calibration())  # of 59 and 12 normals
    assert "at 10.00% false alarms a part" in told
    assert "of more views than: bolt 6, nut 1; each view takes 10 calibration images" in told


def test_a_runs_test_images_have_a_table_of_parts_beside_their_scores(tmp_path, monkeypatch, capsys):
    rows, run = rows_of(60, 3, calibration()), RunFolder(str(tmp_path))
    model = {"id": "abc", "calibration": calibration().model_dump(mode="json")}

    def scored(handle: Any, uri: str, images: str, scores: str, maps: str) -> Summary:
        write(Path(scores), rows)
        return Summary(len(rows), len(rows), 0, 0, 1.0, None)

    monkeypatch.setattr(RunFolder, "existing", RunFolder)
    monkeypatch.setattr(scoring, "has_test_images", lambda out: True)
    monkeypatch.setattr(scoring, "describe", lambda uri: model)
    monkeypatch.setattr(bulk, "score_table", scored)
    steps.score(None, str(tmp_path), "lafite")
    found, expected = read(run.scores("lafite", "abc")), by_hand(rows)
    assert {key: row["is_anomalous"] for key, row in found.items()} == {
        key: row["is_anomalous"] for key, row in expected.items()
    }
    assert f"parts: {len(expected)}" in capsys.readouterr().out


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(("at_once", "a_bucket"), [(10_000, 10_000), (40, 30), (1, 8)])
def test_a_part_is_its_worst_view_with_a_corrected_p_value(tmp_path, monkeypatch, seed, at_once, a_bucket):
    monkeypatch.setattr(grouping, "ROWS_AT_ONCE", at_once)
    monkeypatch.setattr(grouping, "ROWS_A_BUCKET", a_bucket)
    rows = rows_of(240, seed, calibration())
    out = write(tmp_path, rows, seed)
    assert has_parts(out)
    summary = write_parts(out, calibration(), len(rows))
    expected, found = by_hand(rows), read(out)
    assert found.keys() == expected.keys()
    for key, wanted in expected.items():
        for name, value in wanted.items():
            given = found[key][name]
            assert given == (pytest.approx(value, rel=1e-12) if isinstance(value, float) else value), (key, name)
        silent = wanted["is_anomalous"] is not None
        assert (found[key]["error"] is None) == silent, key
    verdicts = [row["is_anomalous"] for row in expected.values()]
    assert {True, False, None} == set(verdicts)
    assert (summary.parts, summary.alarms, summary.no_verdict) == (
        len(verdicts),
        verdicts.count(True),
        verdicts.count(None),
    )
    assert summary.of_one_image == sum(alone for *_, alone in expected)
    assert sum(row["views"] for row in found.values()) == len(rows)


def test_written_again_it_is_the_same_and_a_failure_leaves_the_former(tmp_path, monkeypatch):
    rows = rows_of(120, 0, calibration())
    out = write(tmp_path, rows)
    write_parts(out, calibration(), len(rows))
    place = Path(parts_table.table_uri(out))
    before = place.read_bytes()
    write_parts(out, calibration(), len(rows))
    assert place.read_bytes() == before

    def dies(self, found):
        raise KeyboardInterrupt

    monkeypatch.setattr(parts_table._Tally, "decided", dies)
    with pytest.raises(KeyboardInterrupt):
        write_parts(out, calibration(), len(rows))
    assert place.read_bytes() == before
    assert [path.name for path in place.parent.iterdir()] == [place.name]


def test_without_a_calibration_there_are_worst_views_and_no_verdicts(tmp_path):
    rows = rows_of(120, 3, None)
    summary = write_parts(write(tmp_path, rows), None, len(rows))
    views = defaultdict(list)
    for row in rows:
        views[row["category"], row["part"] or row["uri"], row["part"] is None].append(row)
    found = read(str(tmp_path))
    assert found.keys() == views.keys()
    for key, row in found.items():
        scores = [view["score"] for view in views[key] if "score" in view]
        assert row["score"] == (max(scores) if scores else None)
        assert row["p_value"] is row["corrected_p_value"] is row["is_anomalous"] is None
        assert (row["error"] is None) == (len(scores) == len(views[key]))
    assert (summary.alarms, summary.no_verdict, summary.rate) == (0, len(found), None)


def seen(tmp_path: Path, *views: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The row of one part of bolts with such views, and what is said of all parts."""
    of = calibration().of("bolt")
    rows = []
    for number, view in enumerate(views):
        row = {"uri": f"/{number}.png", "category": "bolt", "part": "7"} | view
        rows.append(row | ({"p_value": of.p_value(row["score"])} if "score" in row else {}))
    summary = write_parts(write(tmp_path, rows), calibration(), len(rows))
    ((_, row),) = read(str(tmp_path)).items()
    return row, summary.sentences()


def test_a_view_that_could_not_be_scored_leaves_a_part_without_a_verdict_unless_another_alarms(tmp_path):
    bad = {"error": "the file is empty"}
    row, _ = seen(tmp_path / "calm", {"score": 1.0}, bad, {"score": 2.0})
    assert (row["is_anomalous"], row["views"], row["views_not_scored"]) == (None, 3, 1)
    assert row["error"].startswith("1 of 3 views could not be scored and none of the others raises an alarm")
    row, _ = seen(tmp_path / "loud", {"score": 1.0}, bad, {"score": 99.0})
    assert (row["is_anomalous"], row["error"], row["uri"]) == (True, None, "/2.png")
    assert row["corrected_p_value"] == pytest.approx(3 / 60)
    row, _ = seen(tmp_path / "none", bad, bad)
    assert (row["is_anomalous"], row["score"]) == (None, None)
    assert row["error"] == "none of 2 views could be scored: the file is empty"
    row, _ = seen(tmp_path / "one", bad)
    assert row["error"] == "the file is empty"


def test_more_views_than_the_calibration_can_decide_on_are_named(tmp_path):
    row, said = seen(tmp_path / "six", *[{"score": 99.0}] * 6)
    assert (row["is_anomalous"], row["corrected_p_value"], row["error"]) == (True, pytest.approx(0.1), None)
    assert said == ["parts: 1, 1 alarms, 0 without a verdict"]
    row, said = seen(tmp_path / "seven", *[{"score": 99.0}] * 7)
    assert (row["is_anomalous"], row["corrected_p_value"]) == (None, pytest.approx(7 / 60))
    assert row["error"] == (
        "7 views are too many for 59 calibration images: no score could raise an alarm at 10.00% false alarms a part; "
        "calibrate on 69"
    )
    assert said == [
        "parts: 1, 0 alarms, 1 without a verdict",
        (
            "parts: bolt: 1 have so many views that no score can raise an alarm at 10.00% false alarms a part with 59 "
            "calibration images, so they have no verdict; their up to 7 views take 69 of these, or a higher "
            "--false-alarm-rate"
        ),
    ]


def test_names_of_categories_and_parts_are_kept_apart(tmp_path):
    pairs = [("a", "b:c"), ("a:b", "c"), ("a", "b"), ("1", "a:b"), ("ä", "b"), ("a", ""), ("a", None)]
    rows = [
        {"uri": f"/{number}{view}.png", "category": category, "part": part, "score": 1.0}
        for number, (category, part) in enumerate(pairs)
        for view in range(2)
    ]
    write_parts(write(tmp_path, rows), None, len(rows))
    found = pq.read_table(tmp_path / "parts").to_pylist()
    named = {(row["category"], row["part"]): row["views"] for row in found if row["part"] is not None}
    assert named == dict.fromkeys([pair for pair in pairs if pair[1] is not None], 2)
    assert [row["views"] for row in found if row["part"] is None] == [1, 1]


@pytest.mark.parametrize("parts", [1, 3000])
def test_no_more_rows_are_held_than_a_stretch_or_a_bucket(monkeypatch, parts):
    monkeypatch.setattr(grouping, "ROWS_AT_ONCE", 100)
    monkeypatch.setattr(grouping, "ROWS_A_BUCKET", 300)
    held = []
    worst = grouping._worst
    monkeypatch.setattr(grouping, "_worst", lambda rows: held.append(len(rows)) or worst(rows))
    rng = np.random.default_rng(0)
    schema = pa.schema([SCHEMA.field(name) for name in ("uri", "category", "part", "p_value", "score")])
    every = [
        {"uri": f"/{number}", "category": "nut", "part": str(rng.integers(parts)), "p_value": None, "score": 1.0}
        for number in range(6000)
    ]
    batches = (pa.Table.from_pylist(every[start : start + 10], schema) for start in range(0, 6000, 10))
    found = pa.concat_tables(grouping.by_part(batches, 6000))
    assert sum(found["views"].to_pylist()) == 6000
    assert len(found) == len({row["part"] for row in every})
    assert max(held[:60]) == 100  # stretches
    assert max(held[60:]) <= (60 if parts == 1 else 450)  # one row of each stretch; a hash spreads about evenly


def test_no_score_table_is_an_error(tmp_path):
    with pytest.raises(DataError, match="holds no score_table"):
        write_parts(str(tmp_path), None, 0)


def test_a_score_table_that_knows_no_parts(tmp_path):
    table.write(table.part_uri(str(tmp_path), "0001-000000-1"), pa.Table.from_pylist([{"uri": "/1"}], table.SCHEMA))
    assert not has_parts(str(tmp_path))


@pytest.mark.s3
def test_in_a_bucket(s3_bucket):
    rows = rows_of(60, 0, calibration())
    out = f"{s3_bucket}/scores"
    for start, count in ((0, 40), (40, 20)):  # the archive grows
        some = pa.Table.from_pylist(rows[start : start + count], schema=SCHEMA)
        table.write(table.part_uri(out, f"{1 + start:04d}-000000-{count}"), some)
        write_parts(out, calibration(), start + count)
        with storage.parquet(parts_table.table_uri(out)) as file:
            found = file.read().to_pylist()
        expected = by_hand(rows[: start + count])
        assert len(found) == len(expected)
        for row in found:
            wanted = expected[row["category"], row["part"] or row["uri"], row["part"] is None]
            assert (row["uri"], row["is_anomalous"]) == (wanted["uri"], wanted["is_anomalous"])
    assert len(storage.list_files(f"{out}/parts")) == 1
    for name in ("bolt/07_1.png", "bolt/extra.png"):
        storage.write_bytes(f"{s3_bucket}/line4/{name}", b"")
    (page,) = Listing(f"{s3_bucket}/line4", part_from=PartPattern(r"line4|(\d+)_"))
    assert dict(zip(page["uri"].to_pylist(), page["part"].to_pylist(), strict=True)) == {
        f"{s3_bucket}/line4/bolt/07_1.png": "07",
        f"{s3_bucket}/line4/bolt/extra.png": None,
    }
