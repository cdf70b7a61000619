"""Perlin noise against its definition, point by point; the masks made of it."""

import math

import numpy as np
import pytest
import torch

from raydiff.synthesis.perlin import fractal_noise, perlin_mask, perlin_noise


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def by_definition(size, cells, angles):
    """Perlin 2002: the corners' gradients times the way to them, blended by 6t^5 - 15t^4 + 10t^3."""

    def fade(t):
        return 6 * t**5 - 15 * t**4 + 10 * t**3

    found = np.zeros((size, size))
    for row in range(size):
        for column in range(size):
            y, x = row * cells[0] / size, column * cells[1] / size
            top, left = math.floor(y), math.floor(x)
            total = 0.0
            for corner_y in (top, top + 1):
                for corner_x in (left, left + 1):
                    angle = angles[corner_y, corner_x]
                    dot = math.cos(angle) * (y - corner_y) + math.sin(angle) * (x - corner_x)
                    total += fade(1 - abs(y - corner_y)) * fade(1 - abs(x - corner_x)) * dot
            found[row, column] = math.sqrt(2) * total
    return found


@pytest.mark.parametrize("cells", [(1, 1), (4, 2), (8, 16), (3, 5)])
def test_noise_is_perlins(cells):
    angles = 2 * math.pi * torch.rand(cells[0] + 1, cells[1] + 1, generator=generator())
    expected = by_definition(16, cells, angles.double().numpy())
    np.testing.assert_allclose(perlin_noise(16, cells, generator()), expected, atol=1e-5)


def test_masks_lie_on_the_foreground_and_differ():
    foreground = torch.zeros(64, 64, dtype=torch.bool)
    foreground[20:40, 10:50] = True
    shared = generator()
    masks = [perlin_mask(foreground, shared, 0.5) for _ in range(20)]
    assert all(mask.any() for mask in masks)
    assert not any((mask & ~foreground).any() for mask in masks)
    assert len({mask.numpy().tobytes() for mask in masks}) == 20


def test_the_same_generator_draws_the_same_mask():
    everywhere = torch.ones(48, 48, dtype=torch.bool)
    assert torch.equal(perlin_mask(everywhere, generator(3), 0.5), perlin_mask(everywhere, generator(3), 0.5))


def test_without_foreground_there_is_no_anomaly():
    assert not perlin_mask(torch.zeros(32, 32, dtype=torch.bool), generator(), 0.5).any()


def test_fractal_noise_spans_0_to_1():
    noise = fractal_noise(40, generator())
    assert (noise.min(), noise.max()) == (0, 1)
