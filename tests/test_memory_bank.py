"""The coreset and the search against brute force."""

from itertools import combinations, pairwise

import pytest
import torch
from sklearn.neighbors import NearestNeighbors

from raydiff.nn import memory_bank
from raydiff.nn.memory_bank import cover_radius, greedy_coreset, nearest_neighbours


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
    points = vectors(100, 500)
    draws = []
    for noise in (1, 2):
        torch.manual_seed(noise)
        draws.append(greedy_coreset(points, 20, torch.Generator().manual_seed(5)))
    assert torch.equal(*draws)


def plain(points, size, first):
    """The loop as it is written down: all distances after each step, the first of the farthest."""
    nearest, taken = (points - points[first]).square().sum(1), [first]
    nearest[first] = -1
    while len(taken) < size:
        taken.append(int((nearest == nearest.max()).nonzero()[0, 0]))
        nearest = torch.minimum(nearest, (points - points[taken[-1]]).square().sum(1))
        nearest[taken[-1]] = -1
    return taken


@pytest.mark.parametrize("candidates", [1, 7, 64, 8192])
@pytest.mark.parametrize(
    ("count", "dimensions", "span", "size"),
    [(300, 4, 9, 120), (300, 1, 4, 300), (150, 200, 3, 60), (90, 3, 1, 90), (60, 3, 2, 1), (1, 2, 2, 1)],
)
def test_lazily_taken_is_plainly_taken(count, dimensions, span, size, candidates, monkeypatch):
    monkeypatch.setattr(memory_bank, "CANDIDATES", candidates)
    monkeypatch.setattr(memory_bank, "CENTRES", 16)
    monkeypatch.setattr(memory_bank, "BLIND", 5)
    # whole numbers: nothing is rounded, many are tied, and many are copies (all of them where the span is 1)
    points = torch.randint(span, (count, dimensions), generator=torch.Generator().manual_seed(2)).float()
    taken = greedy_coreset(points, size, torch.Generator().manual_seed(0)).tolist()
    assert taken == plain(points, size, taken[0])


def test_a_cluster_and_what_lies_far_from_it(monkeypatch):
    monkeypatch.setattr(memory_bank, "CANDIDATES", 50)
    points = torch.cat([vectors(500, 8) / 100, 100 * vectors(5, 8, seed=1)])
    taken = greedy_coreset(points, 30, torch.Generator().manual_seed(0))
    assert set(range(500, 505)) <= set(taken[:6].tolist())
    assert cover_radius(points[taken]) < 0.1


@pytest.mark.parametrize("candidates", [20, 8192])
def test_each_vector_is_within_the_cover_radius(candidates, monkeypatch):
    monkeypatch.setattr(memory_bank, "CANDIDATES", candidates)
    points = vectors(400, 20)
    for size in (2, 50, 399):
        taken = greedy_coreset(points, size, torch.Generator().manual_seed(1))
        farthest = float(torch.cdist(points.double(), points[taken].double()).amin(1).max())
        assert 0 < farthest <= cover_radius(points[taken]) * (1 + 1e-5)


@pytest.mark.parametrize("seed", range(4))
def test_the_cover_is_at_most_twice_the_best(seed):
    points = vectors(12, 2, seed=seed)
    distances = torch.cdist(points, points)
    best = min(float(distances[:, list(chosen)].amin(1).max()) for chosen in combinations(range(12), 4))
    taken = greedy_coreset(points, 4, torch.Generator().manual_seed(seed))
    assert float(distances[:, taken].amin(1).max()) <= 2 * best


def test_progress_rises_to_the_size():
    told = []
    greedy_coreset(vectors(900, 3), 700, torch.Generator().manual_seed(0), told.append)
    assert told == sorted(set(told))
    assert told[-1] == 700
    assert len(told) > 1


def test_vectors_that_are_not_finite_are_refused():
    with pytest.raises(ValueError, match="finite"):
        greedy_coreset(torch.tensor([[0.0], [torch.nan], [1.0]]), 2, torch.Generator())


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


@pytest.mark.parametrize("chunk", [1, 7, 50, 51, 1000])
def test_the_nearest_is_the_same_in_chunks_of_any_size(monkeypatch, chunk):
    monkeypatch.setattr(memory_bank, "BANK_CHUNK", chunk)
    queries, bank = vectors(40, 6, seed=1), vectors(51, 6, seed=2)
    reference = NearestNeighbors(n_neighbors=1).fit(bank)
    distances, indices = reference.kneighbors(queries)
    found = nearest_neighbours(queries, bank, 1)
    assert found[1].tolist() == indices.tolist()
    torch.testing.assert_close(found[0], torch.from_numpy(distances).float())
