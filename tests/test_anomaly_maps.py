"""Blur, upsampling and pooling against scipy and loops."""

from functools import partial

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from raydiff.nn.maps import LargestPixels, LargestWindow, anomaly_map, gaussian_blur


@pytest.mark.parametrize("sigma", [0.8, 4.0])
def test_the_blur_is_scipys(sigma):
    maps = torch.rand(2, 1, 40, 48, generator=torch.Generator().manual_seed(0))
    found = gaussian_blur(maps, sigma)[:, 0].numpy()
    wanted = np.stack([gaussian_filter(one[0].numpy(), sigma) for one in maps])
    np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_no_blur_leaves_the_map():
    maps = torch.rand(1, 1, 5, 5)
    assert gaussian_blur(maps, 0) is maps


def test_a_constant_error_stays_constant():
    found = anomaly_map(torch.full((2, 7, 7), 3.0), 28, 4.0)
    assert found.shape == (2, 28, 28)
    torch.testing.assert_close(found, torch.full((2, 28, 28), 3.0))


def read_off(reader, maps: torch.Tensor, *cuts: int) -> torch.Tensor:
    """The scores of maps whose rows come in parts."""
    for rows in torch.tensor_split(maps, cuts, dim=1):
        reader.add(rows)
    return reader.scores()


def test_the_image_score_is_the_largest_window_mean():
    maps = torch.rand(3, 9, 11, generator=torch.Generator().manual_seed(0))
    wanted = [max(float(one[y : y + 4, x : x + 4].mean()) for y in range(6) for x in range(8)) for one in maps]
    assert read_off(LargestWindow(4, 9, 11), maps).tolist() == pytest.approx(wanted, abs=1e-6)


def test_a_window_larger_than_the_map_is_the_whole_map():
    maps = torch.rand(2, 6, 6, generator=torch.Generator().manual_seed(0))
    assert read_off(LargestWindow(16, 6, 6), maps).tolist() == pytest.approx(maps.mean(dim=(1, 2)).tolist())


@pytest.mark.parametrize("cuts", [(1,), (5, 6, 20), (3, 4, 29), tuple(range(1, 30))])
@pytest.mark.parametrize("size", [1, 4, 7, 500])
def test_a_score_does_not_depend_on_where_a_map_is_cut(size, cuts):
    maps = torch.rand(3, 30, 21, generator=torch.Generator().manual_seed(0))
    for kind in (partial(LargestWindow, size, 30, 21), partial(LargestPixels, size)):
        assert read_off(kind(), maps, *cuts).tolist() == read_off(kind(), maps).tolist()
    largest = maps.flatten(1).sort(descending=True).values[:, :size].mean(1)
    torch.testing.assert_close(read_off(LargestPixels(size), maps, *cuts), largest)
