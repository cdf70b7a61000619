"""Images that come some rows at a time: cut into tiles, scored and mapped as the whole of them, to the bit."""

import itertools
import tracemalloc

import numpy as np
import pytest
import torch
from conftest import fitted, made_images, tiny_score

from raydiff import methods
from raydiff.model import scorer
from raydiff.model.scorer import InRows, score_images
from raydiff.nn.positions import PositionStatistics, in_cells
from raydiff.views import Layout, View

VIEW = View(tile=32, overlap=8)
SHAPES = [(70, 90), (64, 96), (33, 200), (150, 40)]


def picture(height, width, seed=0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)


def bands(image: np.ndarray, rows: int) -> list[np.ndarray]:
    return [image[top : top + rows] for top in range(0, len(image), rows)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("rows", [1, 7, 40, 500])
def test_tiles_are_the_whole_images(shape, rows):
    layout, image = Layout(*shape, 32, 8), picture(*shape)
    np.testing.assert_array_equal(np.stack(list(layout.tiles_of(bands(image, rows)))), layout.tiles(image))


@pytest.fixture(scope="module", params=methods.names())
def method(request):
    found, _ = fitted(request.param, made_images(12), categories=["a", "b"] * 6, view=VIEW.model_dump())
    return found


@pytest.mark.parametrize("categories", [None, ["a"], [None]])
def test_a_score_and_a_map_are_the_whole_images(method, categories, monkeypatch):
    score = tiny_score(method.name)
    plain = score_images(method, made_images(8), score)
    maps = torch.from_numpy(plain.maps)
    positions = PositionStatistics.of({"a": in_cells(maps[:4]), "b": in_cells(2 * maps[4:])})
    image = picture(70, 90)
    whole = score_images(method, [image], score, positions, categories)
    for rows in (9, 32):
        layout = VIEW.layout(image.shape, 32)
        large = InRows(method, lambda rows=rows: bands(image, rows), layout, score, positions, categories)
        np.testing.assert_array_equal(np.concatenate(list(large.map_rows())), whole.maps[0])
        found = large.scored()
        assert (found.scores, found.guessed, found.details) == (whole.scores, whole.guessed, whole.details)
    monkeypatch.setattr("raydiff.views.view.TILES", 3)  # so that an array of so many tiles is taken so, too
    again = score_images(method, [image, made_images(1)[0]], score, positions, categories and categories * 2)
    np.testing.assert_array_equal(again.maps[0], whole.maps[0])
    assert again.scores[0] == whole.scores[0]


def test_no_more_is_held_of_a_higher_image(monkeypatch):
    """Pixels, tiles and maps: what NumPy holds at most, of images of 8 and 80 rows of tiles."""
    found, _ = fitted("nearest_patch", made_images(8), view=VIEW.model_dump())
    maps = np.ones((scorer.CHUNK["cpu"], 32, 32), np.float32)

    def scored(method, examples, *others):
        count = len(examples)
        return scorer.Scored(np.ones(count), maps[:count], {}, [None] * count), False

    monkeypatch.setattr(scorer, "_score_chunk", scored)  # what the method takes for a chunk is the same for each
    monkeypatch.setattr(scorer, "examples_of", lambda method, tiles: tiles)
    peaks = []
    for height in (200, 2000):
        large = InRows(
            found,
            lambda height=height: itertools.repeat(np.zeros((10, 400, 3), np.uint8), height // 10),
            VIEW.layout((height, 400), 32),
            found.ScoreSettings(),
        )
        tracemalloc.start()
        total = sum(len(rows) for rows in large.map_rows())
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert total == height
        large.scored()
    assert peaks[1] < 1.5 * peaks[0]  # a few numbers a tile; the image has 2.2 MB more, and its map 2.9 MB
