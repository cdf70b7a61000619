"""The reports, of a run and of a scored archive, in a real browser."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import browser
import numpy as np
import pytest
from made_archive import calibration, score_rows, with_images, write_archive
from made_run import Make, held_out, maker, with_card
from PIL import Image

from raydiff import storage
from raydiff.report.archive import write_archive_report
from raydiff.report.report import write_report


@pytest.fixture
def make(tmp_path: Path) -> Make:
    return maker(tmp_path)


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[browser.Tab]:
    with browser.opened(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.mark.browser
@pytest.mark.parametrize("kind", ["tested", "held out", "archive"])
def test_a_browser_shows_every_picture(make: Make, tmp_path: Path, kind: str, tab: browser.Tab) -> None:
    if kind == "archive":
        calibrated = calibration(("bolt", "cloth"))
        rows = with_images(tmp_path, score_rows(60, calibrated, days=5))
        uri = write_archive_report(write_archive(tmp_path / "scores", rows, calibrated, maps="tiff"))
    elif kind == "tested":
        second = make("nearest_patch", "nearest_patch", (0.91, 0.88))
        uri = write_report(f"{tmp_path}/out", [with_card(make("lafite"), loss_curve=[[1, 1.0], [2, 0.5]]), second])
    else:
        uri = write_report(f"{tmp_path}/out", [held_out(make, "lafite")])
    page = storage.read_bytes(uri).decode()
    tab.errors.clear()
    for width, scheme in ((390, "dark"), (1200, "light")):
        tab.size(width, 900, phone=width < 600)
        tab.scheme(scheme)
        tab.open(f"file://{uri}")
        tab.wait(f"location.href.endsWith({uri[-20:]!r}) && document.readyState === 'complete'")
        shown = tab.ask("[...document.images].map(picture => picture.naturalWidth)")
        assert len(shown) == page.count("<img ")
        assert all(shown)
        assert tab.ask("document.documentElement.scrollWidth") <= width  # nothing is wider than the window
        drawn = tab.ask("[...document.querySelectorAll('figure svg')].map(svg => svg.getBBox().width)")
        assert len(drawn) == page.count("<svg")
        assert all(width > 100 for width in drawn)
        assert tab.barriers() == []
    assert tab.errors == []
    picture = tmp_path / "report.png"
    tab.photograph(picture)
    pixels = np.asarray(Image.open(picture).convert("RGB"))
    assert pixels.shape == (900, 1200, 3)
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 100  # plots and text, not an empty page
