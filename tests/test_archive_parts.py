"""An archive in which several images show one part, on a real Ray: `--part-from`, a table's column, growth, packing."""

from __future__ import annotations

import csv
import io
import runpy
import shutil
from collections import defaultdict
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import typer
from conftest import calibrated_model, made_images, with_defect
from PIL import Image
from rich.console import Console
from typer.testing import CliRunner

import raydiff
from raydiff import storage
from raydiff.errors import DataError, SettingsError
from raydiff.images.listing import Listing
from raydiff.images.pack import pack
from raydiff.images.pages import Pages
from raydiff.images.parts import PartPattern
from raydiff.planning.archive import plan_archive
from raydiff.scoring import archive_run, summary, table
from raydiff.scoring.archive_run import score_archive

ROOT = Path(__file__).parents[1]
PATTERN = PartPattern(r"(\d+)_\d\.png$")
VIEWS = 2  # which the tiny model's calibration of 20 images can decide on at its rate of .1; not on three


def draw(root: Path, category: str, parts: range, views: range, seed: int, defects: tuple[int, ...] = ()) -> None:
    """Views `<category>/<part>_<view>.png`; the last view of the parts `defects` shows a defect."""
    for part in parts:
        images = made_images(len(views), 36, seed=seed + part)
        if part in defects:
            images[-1:] = with_defect(images[-1:])
        for view, image in zip(views, images, strict=True):
            place = root / category / f"{part:02d}_{view}.png"
            place.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(place)


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    return calibrated_model(tmp_path_factory.mktemp("model"), "bolt", "cloth")


@pytest.fixture(scope="module")
def archive(tmp_path_factory) -> Path:
    """Two categories whose parts are called alike, a file that cannot be read and one of no known part."""
    root = tmp_path_factory.mktemp("archive") / "line4"
    draw(root, "bolt", range(12), range(VIEWS), 100, defects=(2, 5))
    draw(root, "cloth", range(8), range(VIEWS), 300, defects=(3,))
    (root / "cloth/07_0.png").write_bytes(b"junk")
    shutil.copy(root / "bolt/00_0.png", root / "bolt/extra.png")
    return root


@pytest.fixture(scope="module")
def scored(one_deployment, model, archive, tmp_path_factory):
    out = tmp_path_factory.mktemp("scores") / "out"
    done, found = score_archive(model, str(archive), str(out), part_from=PATTERN)
    return out, done, found


def parts(out: Path | str) -> dict[tuple[str, str | None], dict[str, Any]]:
    return {(row["category"], row["part"]): row for row in pq.read_table(storage.join(str(out), "parts")).to_pylist()}


def check(out: Path | str, model: str) -> None:
    """Whether the table of parts is what the score table's rows say."""
    calibration = raydiff.load(model, "cpu").calibration
    assert calibration is not None
    views = defaultdict(list)
    for row in table.read(str(out)).to_pylist():
        views[row["category"], row["part"]].append(row)
    found = parts(out)
    assert found.keys() == views.keys()
    for key, rows in views.items():
        scored = [row for row in rows if row["score"] is not None]
        worst = max(scored, key=lambda row: row["score"])
        assert (found[key]["views"], found[key]["views_not_scored"]) == (len(rows), len(rows) - len(scored))
        for name in ("score", "p_value", "threshold", "day", "model_id"):
            assert found[key][name] == worst[name]
        assert found[key]["corrected_p_value"] == min(1, len(rows) * worst["p_value"])
        alarm = found[key]["corrected_p_value"] <= calibration.rate
        can = len(rows) / (calibration.of(key[0]).normals + 1) <= calibration.rate
        assert found[key]["is_anomalous"] == (True if alarm else None if len(scored) < len(rows) or not can else False)


@pytest.mark.ray
def test_a_part_is_its_worst_view(scored, model, archive):
    out, done, found = scored
    check(out, model)
    rows = parts(out)
    assert {category: sum(key[0] == category for key in rows) for category in ("bolt", "cloth")} == {
        "bolt": 13,
        "cloth": 8,
    }
    assert all(rows["bolt", f"{part:02d}"]["is_anomalous"] for part in (2, 5))
    assert rows["bolt", "02"]["uri"] == str(archive / "bolt/02_1.png")
    assert rows["bolt", None]["uri"] == str(archive / "bolt/extra.png")
    assert rows["bolt", None]["views"] == 1
    junk = rows["cloth", "07"]
    assert junk["views_not_scored"] == 1
    assert junk["is_anomalous"] or "1 of 2 views could not be scored" in junk["error"]
    assert done.images == found.images == 41
    assert found.parts.parts == 21
    assert found.parts.of_one_image == 1
    assert found.parts.alarms == sum(row["is_anomalous"] is True for row in rows.values())
    assert found.parts.undecidable == []
    assert storage.read_json(str(out / "summary.json"))["parts"]["parts"] == 21
    # The score table keeps a row an image, and its alarms are those of images.
    assert len(table.read(str(out))) == 41


@pytest.mark.ray
def test_a_finished_archive_is_left_alone_and_what_is_missing_is_made_again(scored, model, archive, monkeypatch):
    out, _, found = scored
    monkeypatch.setattr(archive_run, "deployed", None)  # nothing is deployed
    files = {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()}
    assert score_archive(model, str(archive), str(out), part_from=PATTERN) == (None, found)
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()} == files
    before = parts(out)
    shutil.rmtree(out / "parts")
    assert score_archive(model, str(archive), str(out), part_from=PATTERN) == (None, found)
    assert parts(out) == before
    # A summary of before there were tables of parts.
    told = storage.read_json(str(out / "summary.json"))
    del told["parts"]
    storage.write_json(str(out / "summary.json"), told)
    assert score_archive(model, str(archive), str(out), part_from=PATTERN) == (None, found)


@pytest.mark.ray
@pytest.mark.parametrize("other", [None, PartPattern(r"(\d+)_")])
def test_other_parts_in_the_same_results_are_refused(scored, model, archive, other):
    with pytest.raises(DataError, match=r"holds scores of another run \(other images\)"):
        score_archive(model, str(archive), str(scored[0]), part_from=other)


@pytest.mark.ray
def test_a_table_that_names_the_parts_gives_the_same(scored, model, archive, tmp_path):
    with open(tmp_path / "line4.csv", "w", newline="") as file:
        lines = csv.writer(file)
        lines.writerow(["uri", "category", "dataset", "part", "serial"])
        for path in sorted(archive.rglob("*.png")):
            part = PATTERN.part(path.name) or ""
            lines.writerow([path, path.parent.name, "line4", part, f"s{part}"])
    out = tmp_path / "out"
    _, found = score_archive(model, str(tmp_path / "line4.csv"), str(out))
    assert parts(out) == parts(scored[0])
    assert found.parts == scored[2].parts


@pytest.mark.ray
def test_a_packed_archive_gives_the_same(scored, model, archive, tmp_path):
    pack(str(archive), str(tmp_path / "packed"))
    with pytest.raises(DataError, match="names a part in no image's path"):
        score_archive(model, str(tmp_path / "packed"), str(tmp_path / "out"), part_from=PartPattern("line4"))
    _, found = score_archive(model, str(tmp_path / "packed"), str(tmp_path / "out"), part_from=PATTERN)
    assert parts(tmp_path / "out") == parts(scored[0])
    assert found.parts == scored[2].parts


@pytest.mark.ray
def test_new_views_of_old_parts_and_new_parts_are_taken_in(one_deployment, model, tmp_path, monkeypatch):
    root, out = tmp_path / "line5", str(tmp_path / "out")
    draw(root, "bolt", range(6), range(VIEWS), 500)
    _, first = score_archive(model, str(root), out, part_from=PATTERN)
    of_before = storage.read_json(storage.join(out, "summary.json"))
    before = parts(out)
    draw(root, "bolt", range(1), range(VIEWS, VIEWS + 1), 600)  # a third view of part 00
    draw(root, "bolt", range(6, 8), range(VIEWS), 700, defects=(7,))
    _, second = score_archive(model, str(root), out, part_from=PATTERN)
    check(out, model)
    now = parts(out)
    assert (first.parts.parts, second.parts.parts) == (6, 8)
    assert {key: row for key, row in now.items() if key[1] not in ("00", "06", "07")} == {
        key: row for key, row in before.items() if key[1] != "00"
    }
    assert now["bolt", "00"]["views"] == 3
    assert now["bolt", "00"]["is_anomalous"] is None
    assert "3 views are too many for 20 calibration images" in now["bolt", "00"]["error"]
    (told,) = second.parts.undecidable
    assert (told.category, told.parts, told.views, told.normals, told.needed) == ("bolt", 1, 3, 20, 29)
    log = io.StringIO()
    monkeypatch.setattr(summary, "console", Console(file=log, soft_wrap=True, highlight=False))
    summary.print_summary(second)
    assert "parts: 8, " in log.getvalue()
    assert "3 views take 29 of these" in log.getvalue()

    # Killed between its last score and its summary: what stands there is of before the archive grew.
    storage.write_json(storage.join(out, "summary.json"), of_before)
    monkeypatch.setattr(archive_run, "deployed", None)
    assert score_archive(model, str(root), out, part_from=PATTERN) == (None, second)
    assert parts(out) == now


# Without Ray


def test_a_listing_names_parts_by_paths_below_the_folder_or_the_tables(archive, tmp_path):
    rows = [row for page in Listing(str(archive), part_from=PartPattern(r"(\d+)_|line4")) for row in page.to_pylist()]
    assert {(Path(row["uri"]).name, row["part"]) for row in rows if "bolt/0" in row["uri"]} == {
        (f"{part:02d}_{view}.png", f"{part:02d}") for part in range(10) for view in range(VIEWS)
    }
    assert [row["part"] for row in rows if "extra" in row["uri"]] == [None]  # line4 is not below the folder
    (tmp_path / "day").mkdir()
    (tmp_path / "day/list.csv").write_text("uri\nx/12_0.png\n/elsewhere/day/13_0.png\n")
    (page,) = Listing(str(tmp_path / "day/list.csv"), part_from=PartPattern(r"day|(\d+)_"))
    assert page["part"].to_pylist() == ["12", None]
    (tmp_path / "day/named.csv").write_text("uri,part\nx/12_0.png,12\n")
    with pytest.raises(DataError, match="the table has a column 'part'; leave --part-from out, or the column"):
        list(Listing(str(tmp_path / "day/named.csv"), part_from=PATTERN))


def test_pages_of_a_file_may_be_views_of_a_part(tmp_path):
    pages = [Image.fromarray(image) for image in made_images(3, 8)]
    pages[0].save(tmp_path / "one.tif", save_all=True, append_images=pages[1:])
    pages[0].save(tmp_path / "two.tif")
    rows = [
        row
        for page in Listing(str(tmp_path), pages=Pages(None), part_from=PartPattern("^[^#]+"))
        for row in page.to_pylist()
    ]
    assert [(Path(row["uri"]).name, row["part"]) for row in rows] == [
        ("one.tif#1", "one.tif"),
        ("one.tif#2", "one.tif"),
        ("one.tif#3", "one.tif"),
        ("two.tif", "two.tif"),
    ]


@pytest.mark.parametrize("do", [score_archive, plan_archive])
def test_a_pattern_that_fits_no_path_is_refused_before_anything_is_noted(model, archive, tmp_path, do):
    out = tmp_path / "out"
    with pytest.raises(DataError, match=r"--part-from 'serial' names a part in no image's path; mend it to fit paths"):
        do(model, str(archive), str(out), part_from=PartPattern("serial"))
    assert not list(out.rglob("*.*")) if out.exists() else True


def test_the_job_takes_the_option(monkeypatch, tmp_path):
    asked = []
    main = runpy.run_path(str(ROOT / "jobs/score_archive.py"))["main"]
    monkeypatch.setattr(archive_run, "score_archive", lambda *given, **how: asked.append(how) or (None, None))
    monkeypatch.setattr(summary, "print_summary", lambda found: None)
    monkeypatch.setattr("raydiff.report.archive.write_archive_report", lambda scores: f"{scores}/report.html")
    app = typer.Typer()
    app.command()(main)
    given = ["--model", "m", "--data", "d", "--out", str(tmp_path)]
    done = CliRunner().invoke(app, [*given, "--part-from", r"_(\d+)_"], catch_exceptions=False)
    assert f"report: {tmp_path}/report.html" in done.output
    CliRunner().invoke(app, [*given, "--engine", "openvino"], catch_exceptions=False)
    assert asked[0]["part_from"].part("a_12_b") == "12"
    assert asked[1]["part_from"] is None
    assert [how["engine"] for how in asked] == ["torch", "openvino"]
    with pytest.raises(SettingsError, match="is not a regular expression"):
        CliRunner().invoke(app, [*given, "--part-from", "("], catch_exceptions=False)
