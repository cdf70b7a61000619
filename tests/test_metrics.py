"""Metrics against scikit-learn and against brute force written here."""

from __future__ import annotations

import io
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
from scipy import ndimage
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score

from raydiff import metrics
from raydiff.errors import DataError
from raydiff.metrics import BinnedPixelMetrics, OneClassError

Images = list[tuple[np.ndarray, np.ndarray]]


def scores_with_ties(seed: int, distinct: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = rng.random(400) < 0.3
    scores = rng.normal(size=400) + labels
    return np.round(scores * distinct / 6), labels


def draw(seed: int, images: int = 6, side: int = 48, digits: int | None = None) -> Images:
    """Smooth noise, on every second image with some bright boxes; sizes differ."""
    rng = np.random.default_rng(seed)
    drawn = []
    for index in range(images):
        height, width = side + 3 * index, side + index
        mask = np.zeros((height, width), dtype=bool)
        for _ in range(rng.integers(1, 4) if index % 2 else 0):
            top, left = rng.integers(0, side - 12, size=2)
            mask[top : top + rng.integers(2, 12), left : left + rng.integers(2, 12)] = True
        noise = ndimage.gaussian_filter(rng.normal(size=mask.shape), 1.5)
        anomaly_map = noise / noise.std() + 2 * ndimage.gaussian_filter(mask.astype(float), 1.5)
        if digits is not None:
            anomaly_map = np.round(anomaly_map, digits)
        drawn.append((anomaly_map.astype(np.float32), mask))
    return drawn


def flat(images: Images) -> tuple[np.ndarray, np.ndarray]:
    scores = np.concatenate([anomaly_map.ravel() for anomaly_map, _ in images])
    return scores, np.concatenate([mask.ravel() for _, mask in images])


def flood(mask: np.ndarray) -> list[np.ndarray]:
    """The regions of a mask, 8-connected, pixel by pixel."""
    left = {(int(row), int(column)) for row, column in np.argwhere(mask)}
    regions = []
    while left:
        edge = [left.pop()]
        region = np.zeros_like(mask)
        while edge:
            row, column = edge.pop()
            region[row, column] = True
            for neighbour in [(row + i, column + j) for i in (-1, 0, 1) for j in (-1, 0, 1)]:
                if neighbour in left:
                    left.remove(neighbour)
                    edge.append(neighbour)
        regions.append(region)
    return regions


def brute_aupro(images: Images, limit: float) -> float:
    """AUPRO from its definition: a loop over all thresholds and regions, then the area piece by piece."""
    regions = [(anomaly_map, region) for anomaly_map, mask in images for region in flood(mask)]
    scores, inside = flat(images)
    points = [(0.0, 0.0)]
    for threshold in np.unique(scores)[::-1]:
        overlap = np.mean([(anomaly_map[region] >= threshold).mean() for anomaly_map, region in regions])
        points.append((float((scores[~inside] >= threshold).mean()), float(overlap)))
    area = 0.0
    for (x0, y0), (x1, y1) in pairwise(points):
        if x0 < limit < x1:
            x1, y1 = limit, y0 + (y1 - y0) * (limit - x0) / (x1 - x0)
        if x1 <= limit:
            area += (x1 - x0) * (y0 + y1) / 2
    return area / limit


def best_f1(scores: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    precision, recall, thresholds = precision_recall_curve(labels, scores)
    f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
    best = np.flatnonzero(np.isclose(f1, f1.max(), rtol=1e-12))[-1]
    return float(f1.max()), float(thresholds[best])


@pytest.mark.parametrize("distinct", [2, 7, 40, 10**6])
@pytest.mark.parametrize("seed", [0, 1])
def test_score_metrics_are_scikit_learns(seed: int, distinct: int) -> None:
    scores, labels = scores_with_ties(seed, distinct)
    f1, threshold = best_f1(scores, labels)
    assert metrics.auroc(scores, labels) == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)
    assert metrics.average_precision(scores, labels) == pytest.approx(
        average_precision_score(labels, scores), abs=1e-12
    )
    assert metrics.f1_max(scores, labels) == pytest.approx(f1, abs=1e-12)
    assert metrics.f1_max_threshold(scores, labels) == threshold


def test_score_metrics_of_known_cases() -> None:
    scores, labels = np.array([1, 2, 2, 3]), np.array([0, 0, 1, 1])
    assert metrics.auroc(scores, labels) == 3.5 / 4
    assert metrics.average_precision(scores, labels) == pytest.approx(1 / 2 + 1 / 2 * 2 / 3)
    assert metrics.f1_max(scores, labels) == pytest.approx(0.8)
    assert metrics.f1_max_threshold(scores, labels) == 2
    assert metrics.auroc(np.zeros(4), labels) == 0.5
    assert metrics.auroc(-scores, labels) == 0.5 / 4


def test_score_metrics_leave_their_input_alone_and_keep_float64_apart() -> None:
    scores, labels = np.array([1.0 + 1e-12, 1.0, 0.5, 2.0]), np.array([1, 0, 0, 0])
    before = scores.copy()
    assert metrics.auroc(scores, labels) == pytest.approx(2 / 3)
    np.testing.assert_array_equal(scores, before)


@pytest.mark.parametrize("metric", [metrics.auroc, metrics.average_precision, metrics.f1_max, metrics.f1_max_threshold])
def test_score_metrics_refuse_what_cannot_be_ranked(metric: Callable[..., float]) -> None:
    with pytest.raises(DataError, match="NaN"):
        metric(np.array([1.0, np.nan]), np.array([0, 1]))
    with pytest.raises(DataError, match="one label each"):
        metric(np.array([1.0, 2.0]), np.array([0, 1, 1]))
    with pytest.raises(OneClassError, match="0 normal and 2 anomalous"):
        metric(np.array([1.0, 2.0]), np.array([1, 1]))
    with pytest.raises(OneClassError, match="2 normal and 0 anomalous"):
        metric(np.array([1.0, 2.0]), np.array([0, 0]))


@pytest.mark.parametrize("limit", [0.05, 0.3, 1.0])
@pytest.mark.parametrize("digits", [0, 1, None])
def test_aupro_is_brute_force(digits: int | None, limit: float) -> None:
    images = draw(3, images=4, side=20, digits=digits)
    assert metrics.aupro(images, limit) == pytest.approx(brute_aupro(images, limit), abs=1e-12)


def test_aupro_of_known_cases() -> None:
    mask = np.zeros((10, 10), dtype=bool)
    mask[2, 2] = mask[3, 3] = True  # touch at a corner: one region
    mask[6:9, 6:9] = True
    assert metrics.aupro([(mask, mask)]) == pytest.approx(1)
    assert metrics.aupro([(np.zeros((10, 10)), mask)]) == pytest.approx(0.15)
    assert metrics.aupro([(-mask.astype(float), mask)]) == 0
    # Half of the small region and nothing of the large one before all normals: 1/4 of the overlap.
    found = np.where(mask, -1.0, 0.0)
    found[3, 3] = 1
    assert metrics.aupro([(found, mask)]) == pytest.approx(1 / 4)


@pytest.mark.parametrize("digits", [1, None])
def test_pixel_metrics_are_the_single_ones(digits: int | None) -> None:
    images = draw(5, digits=digits)
    scores, inside = flat(images)
    measured = metrics.pixel_metrics(iter(images))
    assert measured.auroc == pytest.approx(roc_auc_score(inside, scores), abs=1e-12)
    assert measured.average_precision == pytest.approx(average_precision_score(inside, scores), abs=1e-12)
    assert measured.f1_max == pytest.approx(best_f1(scores, inside)[0], abs=1e-12)
    assert measured.aupro == metrics.aupro(images)


def test_pixel_metrics_do_not_depend_on_the_scale_of_the_maps() -> None:
    images = draw(7)
    bent = [(np.exp(6 * anomaly_map.astype(np.float64)).astype(np.float32), mask) for anomaly_map, mask in images]
    scores = flat(images)[0]
    assert np.unique(flat(bent)[0]).size > 0.99 * np.unique(scores).size  # the transform merged almost nothing
    np.testing.assert_allclose(metrics.pixel_metrics(bent), metrics.pixel_metrics(images), atol=1e-6)


def test_pixel_metrics_refuse_unfit_maps() -> None:
    zeros, empty = np.zeros((4, 5)), np.zeros((4, 5), dtype=bool)
    with pytest.raises(DataError, match=r"\(4, 5\) does not fit a mask of shape \(5, 4\)"):
        metrics.aupro([(zeros, empty.T)])
    with pytest.raises(DataError, match="NaN"):
        metrics.pixel_metrics([(np.full((4, 5), np.nan), ~empty)])
    with pytest.raises(OneClassError, match="20 normal and 0 anomalous"):
        metrics.aupro([(zeros, empty)])
    with pytest.raises(OneClassError, match="0 normal and 20 anomalous"):
        metrics.aupro([(zeros, ~empty)])
    with pytest.raises(OneClassError, match="0 normal and 0 anomalous"):
        metrics.aupro([])


def binned(images: Images, look: int) -> BinnedPixelMetrics:
    state = BinnedPixelMetrics.from_normal_pixels(
        np.concatenate([anomaly_map[~mask] for anomaly_map, mask in images[:look]])
    )
    for anomaly_map, mask in images:
        state.update(anomaly_map, mask)
    return state


WARPS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "as they are": lambda values: values,
    "far from zero": lambda values: values + 1000,
    "all below zero": lambda values: values - 1000,
    "tiny": lambda values: values * 1e-20,
    "heavy tail": lambda values: np.exp(8 * values),
    "many ties": lambda values: np.round(values, 1),
    "mostly zero": lambda values: np.maximum(values, 0),
}


@pytest.mark.parametrize("warp", WARPS)
@pytest.mark.parametrize("look", [2, 8])
def test_binned_is_near_exact_on_any_scale(warp: str, look: int) -> None:
    images = [
        (WARPS[warp](anomaly_map.astype(np.float64)).astype(np.float32), mask)
        for anomaly_map, mask in draw(11, images=12, side=120)
    ]
    exact, measured = metrics.pixel_metrics(images), binned(images, look).compute()
    assert measured.auroc == pytest.approx(exact.auroc, abs=1e-4)
    assert measured.aupro == pytest.approx(exact.aupro, abs=1e-4)
    assert measured.average_precision == pytest.approx(exact.average_precision, abs=3e-3)
    assert measured.f1_max == pytest.approx(exact.f1_max, abs=1e-3)


def test_binned_ranks_defects_above_all_normals_that_it_looked_at() -> None:
    mask = np.zeros((50, 50), dtype=bool)
    mask[:10] = True
    anomaly_map = np.random.default_rng(0).random((50, 50), dtype=np.float32) + 10 * mask
    state = BinnedPixelMetrics.from_normal_pixels(np.linspace(0, 1, 1000))
    state.update(anomaly_map, mask)
    state.update(np.full((50, 50), 5, dtype=np.float32), np.zeros((50, 50), dtype=bool))  # beyond the first look
    np.testing.assert_allclose(state.compute(), (1, 1, 1, 1))


def test_a_bin_begins_with_its_lower_edge() -> None:
    state = BinnedPixelMetrics.from_normal_pixels(np.arange(9))
    for place in (0, 4, state.edges.size - 1):
        state.update(np.full((1, 3), state.edges[place]), np.zeros((1, 3), dtype=bool))
        assert state.normal[place + 1] == 3


def test_binned_takes_infinite_scores() -> None:
    mask = np.array([[True, False], [False, False]])
    state = BinnedPixelMetrics.from_normal_pixels(np.array([0.0, 1.0, np.inf]))
    state.update(np.array([[np.inf, -np.inf], [0, 1]]), mask)
    np.testing.assert_allclose(state.compute(), (1, 1, 1, 1))


def test_merged_is_the_same_as_updated_in_one() -> None:
    images = draw(13, images=8)
    whole = binned(images, 2)
    empty = BinnedPixelMetrics(whole.edges)
    workers = [BinnedPixelMetrics(**vars(empty)) for _ in range(3)]
    for index, (anomaly_map, mask) in enumerate(images):
        workers[index % 3].update(anomaly_map, mask)
    for worker in workers:
        empty.merge(worker)
    np.testing.assert_array_equal(empty.normal, whole.normal)
    np.testing.assert_array_equal(empty.anomalous, whole.anomalous)
    assert empty.regions == whole.regions
    np.testing.assert_allclose(empty.compute(), whole.compute(), atol=1e-12)
    assert workers[0].normal.sum() < whole.normal.sum()  # copies count on their own


def test_binned_state_survives_a_file() -> None:
    state = binned(draw(17), 2)
    file = io.BytesIO()
    np.savez(file, **vars(state))
    assert len(file.getvalue()) < 400_000
    file.seek(0)
    with np.load(file) as arrays:
        assert BinnedPixelMetrics(**arrays).compute() == state.compute()


def test_binned_refuses_what_cannot_be_counted() -> None:
    state = BinnedPixelMetrics.from_normal_pixels(np.arange(9))
    with pytest.raises(DataError, match="different bin edges"):
        state.merge(BinnedPixelMetrics.from_normal_pixels(np.arange(8)))
    with pytest.raises(DataError, match="no normal pixel"):
        BinnedPixelMetrics.from_normal_pixels(np.array([np.nan]))
    with pytest.raises(DataError, match="NaN"):
        state.update(np.full((2, 2), np.nan), np.eye(2, dtype=bool))
    with pytest.raises(OneClassError):
        state.compute()
