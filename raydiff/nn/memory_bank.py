"""The memory bank: which vectors to keep (greedy coreset) and which of them are near (exact search).

PatchCore's k-centre greedy selection, as LafitE section 3.3 uses it. Cost of the selection is O(n k d) for k of n
vectors of d dimensions, so callers bound n; the search is a chunked matrix product, exact and without an index.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

PROJECTED = 128  # dimensions for the selection's distances, as in PatchCore
QUERY_CHUNK = 4096


def greedy_coreset(
    vectors: Tensor,
    size: int,
    generator: torch.Generator,
    progress: Callable[[int], None] = lambda done: None,
) -> Tensor:
    """Choose `size` of the vectors so that each step takes the one farthest from all taken before.

    Args:
        vectors: (n, d).
        size: how many to keep, at most n.
        generator: a CPU generator, for the projection and the first vector.
        progress: called now and then with the number taken so far.

    Returns:
        (size,) indices in the order taken. Without projection (d <= 128) the distance from each taken vector to
        those before it never grows.
    """
    if not 1 <= size <= len(vectors):
        raise ValueError(f"a coreset of {size} out of {len(vectors)} vectors was asked for")
    points = vectors.float()
    if points.shape[1] > PROJECTED:
        mix = torch.randn(points.shape[1], PROJECTED, generator=generator) / PROJECTED**0.5
        points = points @ mix.to(points.device)
    norms = points.square().sum(1)
    taken = torch.empty(size, dtype=torch.long, device=points.device)
    taken[0] = torch.randint(len(points), (1,), generator=generator).to(points.device)
    nearest = torch.full((len(points),), torch.inf, device=points.device)
    for step in range(size):
        index = taken[step]
        distance = norms + norms[index] - 2 * (points @ points[index])
        nearest = torch.minimum(nearest, distance)
        nearest[index] = -torch.inf  # rounding must not let a vector be taken twice
        if step + 1 < size:
            taken[step + 1] = nearest.argmax()
        if step % 256 == 255 or step + 1 == size:
            progress(step + 1)
    return taken


def nearest_neighbours(queries: Tensor, bank: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k nearest bank vectors of each query by Euclidean distance.

    Args:
        queries: (q, d).
        bank: (m, d) with m >= k.

    Returns:
        distances (q, k), ascending, and indices (q, k) into the bank.
    """
    norms = bank.square().sum(1)
    distances, indices = [], []
    for chunk in queries.split(QUERY_CHUNK):
        partial = torch.addmm(norms, chunk, bank.T, alpha=-2)  # the query's own norm does not change the order
        index = partial.argmin(1, keepdim=True) if k == 1 else partial.topk(k, dim=1, largest=False).indices
        # distances anew from the differences: the expanded form cancels badly for near vectors
        exact = (chunk[:, None] - bank[index]).square().sum(2).sqrt()
        order = exact.argsort(dim=1, stable=True)
        distances.append(exact.gather(1, order))
        indices.append(index.gather(1, order))
    return torch.cat(distances), torch.cat(indices)
