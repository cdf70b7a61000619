"""Blur, upsampling and pooling against scipy and loops."""

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from raydiff.nn.maps import anomaly_map, gaussian_blur, image_score


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


def test_the_image_score_is_the_largest_window_mean():
    maps = torch.rand(3, 9, 11, generator=torch.Generator().manual_seed(0))
    wanted = [max(float(one[y : y + 4, x : x + 4].mean()) for y in range(6) for x in range(8)) for one in maps]
    assert image_score(maps, 4).tolist() == pytest.approx(wanted, abs=1e-6)


def test_a_window_larger_than_the_map_is_the_whole_map():
    maps = torch.rand(2, 6, 6, generator=torch.Generator().manual_seed(0))
    assert image_score(maps, 16).tolist() == pytest.approx(maps.mean(dim=(1, 2)).tolist())
