"""What choices without labels go by, against scikit-learn and raydiff's own metrics at full size."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from raydiff.metrics import aupro
from raydiff.selection.criterion import SIDE, Found, found_by_category, maps_in_cells, masks_in_cells


def labelled(count: int, side: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Labels, scores, maps and masks; maps are noise with something where the anomaly is."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 2 == 1
    masks = np.zeros((count, side, side), bool)
    for row in np.flatnonzero(labels):
        y, x = rng.integers(0, side - 12, 2)
        masks[row, y : y + 12, x : x + 8] = True
    maps = (rng.standard_normal((count, side, side)) + 1.5 * masks).astype(np.float32)
    return labels, rng.standard_normal(count) + labels, maps, masks


def test_both_metrics_of_every_category():
    labels, scores, maps, masks = labelled(40, 64, 0)
    categories = np.array(["bolt", "bolt", "cloth", "cloth"] * 10)
    found = found_by_category(categories, labels, scores, maps, masks)
    for name in ("bolt", "cloth"):
        own = categories == name
        assert found[name].auroc == pytest.approx(roc_auc_score(labels[own], scores[own]))
        assert found[name].aupro == pytest.approx(aupro(zip(maps[own], masks[own], strict=True)))
        assert found[name].score == pytest.approx((found[name].auroc + found[name].aupro) / 2)
    mean = Found.mean(found)
    assert mean.auroc == pytest.approx((found["bolt"].auroc + found["cloth"].auroc) / 2)
    assert mean.score == pytest.approx((found["bolt"].score + found["cloth"].score) / 2)


def test_an_anomaly_without_a_mask_counts_for_its_score_alone():
    labels, scores, maps, masks = labelled(12, 64, 1)
    categories, known = np.repeat("bolt", 12), np.arange(12) != 3
    masks[3] = False
    (found,) = found_by_category(categories, labels, scores, maps, masks).values()
    assert found.auroc == pytest.approx(roc_auc_score(labels, scores))
    assert found.aupro == pytest.approx(aupro(zip(maps[known], masks[known], strict=True)))


def test_without_any_mask_the_images_alone_count():
    labels, scores, maps, _ = labelled(12, 64, 1)
    found = found_by_category(np.repeat("bolt", 12), labels, scores, maps, np.zeros_like(maps, bool))
    assert found["bolt"].aupro is None
    assert found["bolt"].score == found["bolt"].auroc
    both = found | {"cloth": Found(0.5, 0.25)}
    assert Found.mean(both).aupro == 0.25
    assert Found.mean({}) is None


def test_categories_with_images_of_one_kind_are_left_out():
    labels, scores, maps, masks = labelled(12, 64, 2)
    categories = np.where(labels, "bad", "good")
    categories[:2] = "both"
    assert list(found_by_category(categories, labels, scores, maps, masks)) == ["both"]


def test_large_maps_are_held_in_cells_and_small_ones_as_they_are():
    maps = np.random.default_rng(0).standard_normal((2, 2 * SIDE, 2 * SIDE)).astype(np.float32)
    cells = maps_in_cells(maps, 2 * SIDE)
    np.testing.assert_allclose(cells, maps.reshape(2, SIDE, 2, SIDE, 2).mean((2, 4)), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(maps_in_cells(maps[:, :50, :50], 50), maps[:, :50, :50])
    masks = np.zeros((1, 2 * SIDE, 2 * SIDE), bool)
    masks[0, 11, 20:40] = True  # a scratch a pixel wide stays a scratch
    np.testing.assert_array_equal(masks_in_cells(masks, 2 * SIDE)[0], masks[0].reshape(SIDE, 2, SIDE, 2).any((1, 3)))
