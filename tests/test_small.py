"""Images as pages show them, small: a row's own levels, and the same rules in the reports and the viewer."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from made_archive import calibration, score_rows, write_archive
from PIL import Image

from raydiff.errors import RaydiffError
from raydiff.images.levels import Levels
from raydiff.images.small import small
from raydiff.images.table import BIT_DEPTH
from raydiff.report import gallery, runs
from raydiff.report.archive import write_archive_report
from raydiff.report.report import ReportEntry
from raydiff.review.serving import opened
from raydiff.scoring import table as score_table

STORED = np.linspace(0, 4095, 40 * 60).reshape(40, 60).astype(np.uint16)  # what a camera of 12 bits gives
BRIGHT = np.rint(STORED * (255 / 4095)).astype(int)


@pytest.fixture
def deep(tmp_path: Path) -> str:
    """A 16-bit file with the values of a 12-bit camera."""
    Image.fromarray(STORED).save(tmp_path / "deep.png")
    return str(tmp_path / "deep.png")


def grey(picture: bytes | np.ndarray | Image.Image) -> np.ndarray:
    opened_picture = Image.open(io.BytesIO(picture)) if isinstance(picture, bytes) else picture
    return np.asarray(opened_picture)[..., 0].astype(int)


def rows_of(uri: str, **columns: Any) -> pa.Table:
    """Rows of a score table that all are of one image, with a column of their own each."""
    rows = score_rows(40, calibration(("bolt",)))
    rows = rows.set_column(rows.column_names.index("uri"), "uri", pa.array([uri] * len(rows)))
    for name, value in columns.items():
        rows = rows.append_column(name, pa.array([value] * len(rows)))
    return rows


@pytest.mark.parametrize(
    ("row", "levels", "expected"),
    [
        ({BIT_DEPTH: 12}, None, BRIGHT),
        ({BIT_DEPTH: 12}, Levels(bit_depth=14), BRIGHT),
        ({BIT_DEPTH: None, "category": "bolt"}, Levels.of_options(["bolt=12"], None), BRIGHT),
        ({}, None, np.rint(STORED / 257)),
    ],
)
def test_the_levels_are_the_rows_or_its_categorys_or_the_files(deep, row, levels, expected):
    found = small({"uri": deep, **row}, 256, levels)
    assert (found.height, found.width) == (40, 60)
    assert np.abs(grey(found.picture) - expected).max() <= 1


def test_a_picture_fits_and_a_small_one_stays(tmp_path):
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (300, 1200, 3), np.uint8).repeat(2, 0).repeat(2, 1)  # 600 x 2,400
    for kind in ("png", "jpg"):
        Image.fromarray(pixels).save(tmp_path / f"a.{kind}")
        found = small({"uri": str(tmp_path / f"a.{kind}")}, 300)
        assert (found.picture.size, found.height, found.width) == ((300, 75), 600, 2400)
        means = pixels.reshape(75, 8, 300, 8, 3).mean((1, 3))
        assert np.abs(np.asarray(found.picture) - means).mean() < (1 if kind == "png" else 6)
    assert small({"uri": str(tmp_path / "a.png")}, 5000).picture.size == (2400, 600)


@pytest.mark.parametrize("row", [{"uri": None}, {"uri": "/nowhere/a.png"}, {BIT_DEPTH: 11}])
def test_what_cannot_be_shown_says_why(deep, row):
    with pytest.raises(RaydiffError):
        small({"uri": deep, **row}, 256)


def test_the_viewer_shows_a_rows_own_depth(deep, tmp_path):
    viewer = opened(write_archive(tmp_path / "scores", rows_of(deep, bit_depth=12), calibration(("bolt",))))
    found = viewer.pictures.of(0, "small")
    viewer.table.files.close()
    assert found.image
    assert np.abs(grey(base64.b64decode(found.image.split(",")[1])) - BRIGHT).max() <= 6


def test_the_report_of_an_archive_shows_a_rows_own_depth(deep, tmp_path):
    uri = write_archive(tmp_path / "scores", rows_of(deep, bit_depth=12), calibration(("bolt",)))
    page = Path(write_archive_report(uri)).read_text()
    shown = page.split("data:image/jpeg;base64,")[1].partition('"')[0]
    assert np.abs(grey(base64.b64decode(shown)) - BRIGHT).max() <= 6


def test_the_report_of_a_run_shows_a_rows_own_depth(deep, tmp_path):
    bright, dark = rows_of(deep, bit_depth=12), rows_of(deep)
    for number, rows in enumerate((dark, bright)):  # a file without the column has no depths
        score_table.write(score_table.part_uri(str(tmp_path), f"{number:06d}"), rows)
    run = runs.load(ReportEntry(name="a", scores_uri=str(tmp_path)))
    for row, expected in ((0, np.rint(STORED / 257)), (len(dark), BRIGHT)):
        found = gallery.shown(run, row, None)
        assert found.image
        assert np.abs(grey(found.image) - expected).max() <= 6
