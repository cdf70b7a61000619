"""The coreset and the search against brute force."""

from itertools import pairwise

import pytest
import torch
from sklearn.neighbors import NearestNeighbors

from raydiff.nn import memory_bank
from raydiff.nn.memory_bank import greedy_coreset, nearest_neighbours


def vectors(count, dimensions, seed=0):
    return torch.randn(count, dimensions, generator=torch.Generator().manual_seed(seed))


def brute_force(points, size, first):
    taken = [first]
    while len(taken) < size:
        nearest = torch.cdist(points, points[taken]).amin(1)
        taken.append(int(nearest.argmax()))
    return taken


def test_the_coreset_is_the_k_centre_greedy_one():
    points = vectors(200, 6).double().float()
    taken = greedy_coreset(points, 40, torch.Generator().manual_seed(3)).tolist()
    assert taken == brute_force(points, 40, taken[0])


def test_each_step_covers_more():
    points = vectors(300, 10)
    taken = greedy_coreset(points, 60, torch.Generator().manual_seed(0))
    radii = [float(torch.cdist(points[taken[n : n + 1]], points[taken[:n]]).min()) for n in range(1, 60)]
    assert all(later <= earlier + 1e-4 for earlier, later in pairwise(radii))


def test_no_vector_is_taken_twice_even_among_copies():
    points = torch.ones(50, 4)
    taken = greedy_coreset(points, 50, torch.Generator().manual_seed(0))
    assert sorted(taken.tolist()) == list(range(50))


def test_a_projected_coreset_covers_about_as_well():
    points = vectors(400, 500)
    exact = brute_force(points, 40, 0)
    taken = greedy_coreset(points, 40, torch.Generator().manual_seed(0))
    radius = [float(torch.cdist(points, points[chosen]).amin(1).max()) for chosen in (exact, taken.tolist())]
    assert radius[1] < 1.1 * radius[0]


def test_the_coreset_depends_on_its_generator_alone():
    points = vectors(100, 200)
    draws = []
    for noise in (1, 2):
        torch.manual_seed(noise)
        draws.append(greedy_coreset(points, 20, torch.Generator().manual_seed(5)))
    assert torch.equal(*draws)


@pytest.mark.parametrize("size", [0, 11])
def test_an_impossible_size_is_refused(size):
    with pytest.raises(ValueError, match="out of 10 vectors"):
        greedy_coreset(vectors(10, 3), size, torch.Generator())


@pytest.mark.parametrize("k", [1, 5])
def test_the_search_finds_what_scikit_learn_finds(k, monkeypatch):
    monkeypatch.setattr(memory_bank, "QUERY_CHUNK", 7)
    bank, queries = vectors(80, 12), vectors(33, 12, seed=1)
    distances, indices = nearest_neighbours(queries, bank, k)
    wanted_distances, wanted = NearestNeighbors(n_neighbors=k).fit(bank.numpy()).kneighbors(queries.numpy())
    assert indices.numpy().tolist() == wanted.tolist()
    torch.testing.assert_close(distances.double(), torch.from_numpy(wanted_distances).double(), rtol=1e-4, atol=1e-5)


def test_a_bank_vector_is_at_distance_zero_from_itself():
    bank = vectors(40, 12) * 1000
    distances, indices = nearest_neighbours(bank, bank, 1)
    assert indices[:, 0].tolist() == list(range(40))
    assert float(distances.max()) == 0
