"""The gallery of a run's report: which images it picks, and what is shown of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from made_run import Make, bare_run, maker, text_of

from raydiff.report import gallery, runs
from raydiff.report.pictures import outline
from raydiff.report.report import write_report


@pytest.fixture
def make(tmp_path: Path) -> Make:
    return maker(tmp_path)


def test_gallery_picks_the_worst_and_the_nearest() -> None:
    score = np.array([1.0, 2.0, 3.0, 9.0, 4.5, 1.5, 8.0, np.nan, 5.2])
    label = np.array([0, 0, 0, 0, 1, 1, 1, 1, -1], dtype=np.int8)
    run = bare_run("a", score=score, label=label, threshold=np.full(9, 5.0))
    picked = {title: rows for title, _, rows in gallery.pick(run, gallery.distances(run), 2)}
    assert picked == {
        "Worst misses": [5, 4],
        "Worst false alarms": [3, 2],
        "Highest unlabelled": [8],
        "Borderline": [1, 6],  # 2.0 and 8.0 are as near as the nearest that no other group shows
    }


def test_distances_make_categories_of_unlike_scale_comparable() -> None:
    score = np.array([1.0, 2.0, 3.0, 6.0, 100.0, 200.0, 300.0, 600.0])
    run = bare_run(
        "a",
        score=score,
        category=np.repeat([0, 1], 4),
        label=np.array([0, 0, 0, 1] * 2, dtype=np.int8),
        threshold=np.repeat([4.0, 400.0], 4),
    )
    expected = [-3.0, -2.0, -1.0, 2.0]  # the normal scores' quartiles lie 1 (100) apart
    np.testing.assert_allclose(gallery.distances(run), expected * 2)


def test_missing_and_broken_pictures_are_told_not_fatal(make: Make, tmp_path: Path) -> None:
    entry = make("lafite")

    def tiles() -> list[gallery.Tile]:
        return [tile for group in gallery.groups(runs.load(entry)) for tile in group.tiles]

    assert len(tiles()) == 4 * gallery.PER_GROUP
    assert all(tile.image and tile.heat and not tile.problem for tile in tiles())
    for path in (tmp_path / "data").rglob("*_mask.png"):
        path.write_bytes(b"no image")
    misses = [tile for tile in tiles() if tile.defect == "stain"]
    assert all(tile.image and tile.heat and tile.problem for tile in misses)  # the heat map is there all the same
    for path in (tmp_path / "lafite" / "maps").rglob("*.tiff"):
        path.write_bytes(b"no map")
    assert all(tile.image and not tile.heat and "anomaly map" in str(tile.problem) for tile in tiles())
    for path in (tmp_path / "data").rglob("*.png"):
        path.unlink()
    assert all(not tile.image and not tile.heat and "is not there" in str(tile.problem) for tile in tiles())
    assert "is not there" in text_of(write_report(f"{tmp_path}/out", [entry]))


def test_heat_maps_that_were_written_as_pictures_are_shown(make: Make) -> None:
    found = gallery.groups(runs.load(make("lafite", maps="png")))
    assert all(tile.heat and tile.heat != tile.image and not tile.problem for group in found for tile in group.tiles)


def test_outline_surrounds_the_defect_even_a_tiny_one() -> None:
    image = np.full((40, 60, 3), 100, dtype=np.uint8)
    mask = np.zeros((400, 600), dtype=bool)
    mask[205, 305] = True
    drawn = outline(image, mask)
    assert (drawn[20, 30] == 100).all()
    assert (drawn == 255).all(axis=2).sum() >= 8
    changed = np.argwhere((drawn != 100).any(axis=2))
    np.testing.assert_array_equal(np.abs(changed - [20, 30]).max(axis=0), [3, 3])
