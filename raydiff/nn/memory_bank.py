"""The memory bank: which vectors to keep (greedy coreset) and which of them are near (exact search).

PatchCore's k-centre greedy selection, as LafitE section 3.3 uses it, with distances brought up to date only where they
can decide the next step. The search is a chunked matrix product, exact and without an index.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

PROJECTED = 384  # dimensions beyond which the selection's distances are those of a random projection, as in PatchCore
CANDIDATES = 8192  # vectors brought up to date at once: the farthest, by what is known of them
CENTRES = 256  # taken vectors that they are compared with in one matrix product
BLIND = 32  # vectors taken before it is looked at whether they were still the farthest
QUERY_CHUNK = 4096
BANK_CHUNK = 8192  # vectors whose distances are looked at while they still lie in the cache


def greedy_coreset(
    vectors: Tensor,
    size: int,
    generator: torch.Generator,
    progress: Callable[[int], None] = lambda done: None,
) -> Tensor:
    """Choose `size` of the vectors so that each step takes the one farthest from all taken before.

    Lazily: a vector's distance to those taken so far is only known to be at most what it was when last looked at, and
    whatever cannot be the farthest by that is left alone. The choice is that of the plain loop, up to rounding.

    Args:
        vectors: (n, d), finite.
        size: how many to keep, at most n.
        generator: a CPU generator, for the projection and the first vector.
        progress: called now and then with the number taken so far.

    Returns:
        (size,) indices in the order taken. Without projection (d <= 384) the distance from each taken vector to
        those before it never grows, and `cover_radius` of the taken vectors holds for all.

    Raises:
        ValueError: if there are fewer vectors than that, or one of them is not finite.
    """
    if not 1 <= size <= len(vectors):
        raise ValueError(f"a coreset of {size} out of {len(vectors)} vectors was asked for")
    points = vectors.float()
    if points.shape[1] > PROJECTED:
        mix = torch.randn(points.shape[1], PROJECTED, generator=generator) / PROJECTED**0.5
        points = points @ mix.to(points.device)
    cover = _Cover(points, size, int(torch.randint(len(points), (1,), generator=generator)))
    told = 0
    while cover.count < size:
        cover.extend()
        if cover.count >= told + CENTRES:
            told = cover.count
            progress(told)
    if told < size:
        progress(size)
    return cover.taken


def cover_radius(kept: Tensor) -> float:
    """The distance within which each vector has one of its greedy coreset, which is at most twice the least possible.

    No vector is farther from the others than the last one taken was, so the coreset alone tells.

    Args:
        kept: (k, d) vectors of a coreset in the order taken; at least 2.
    """
    return float((kept[:-1] - kept[-1]).float().square().sum(1).amin().sqrt())


def extension(vectors: Tensor, bank: Tensor, radius: float, most: int) -> Tensor:
    """Choose of further vectors those that a bank lacks: the farthest first, until all lie within a radius of what
    there is then.

    Args:
        vectors: (n, d), finite.
        bank: (m, d) with m >= 1.
        radius: below 0 all of them are chosen, up to `most`.
        most: how many to choose at most; if these do not suffice, the vectors left out are the nearest ones.

    Returns:
        indices in the order taken.
    """
    taken: list[int] = []
    if not len(vectors):
        return torch.tensor(taken, dtype=torch.long, device=vectors.device)
    nearest = nearest_neighbours(vectors, bank, 1)[0][:, 0].square()
    norms = vectors.square().sum(1)
    while len(taken) < min(most, len(vectors)):
        place = int(nearest.argmax())
        if radius >= 0 and nearest[place] <= radius**2:
            break
        taken.append(place)
        distance = torch.addmv(norms, vectors, vectors[place], alpha=-2) + norms[place]
        nearest = torch.minimum(nearest, distance)
        nearest[place] = -torch.inf  # rounding must not let a vector be taken twice
    return torch.tensor(taken, dtype=torch.long, device=vectors.device)


class _Cover:
    """A coreset as it grows, and what is known of the distances to it.

    Attributes:
        count: number taken.
        taken: (size,) indices; the first `count` are set.
    """

    def __init__(self, points: Tensor, size: int, first: int) -> None:
        self._points = points  # (n, d)
        self._norms = points.square().sum(1)  # (n,)
        if not bool(self._norms.isfinite().all()):
            raise ValueError("a coreset needs finite vectors, but some hold NaN or infinity")
        self._nearest = torch.full_like(self._norms, torch.inf)  # (n,) squared distance to the first `_seen` taken
        self._seen = torch.zeros(len(points), dtype=torch.int32, device=points.device)
        self._centres = points.new_empty(size, points.shape[1])
        self._centre_norms = points.new_empty(size)
        self.taken = torch.empty(size, dtype=torch.long, device=points.device)
        self.count = 0
        self._take(torch.tensor([first], device=points.device))

    def extend(self) -> None:
        """Take vectors as long as they are among the candidates and as far as the nearest of these was."""
        candidates = min(CANDIDATES, len(self._points) - self.count)
        floor = self._nearest.topk(candidates, sorted=False).values.amin()
        rows = (self._nearest >= floor).nonzero()[:, 0]  # all that tie are among them, so the first of them is taken
        while self.count < len(self.taken):
            rows = self._brought_up(rows, floor)
            most = min(BLIND, len(rows), len(self.taken) - self.count)
            places, distances = self._farthest(rows, most)
            kept = int((distances >= floor).sum())
            self._take(rows[places[:kept]])
            if not kept or kept < most:
                return

    def _take(self, indices: Tensor) -> None:
        new = slice(self.count, self.count + len(indices))
        self.taken[new], self._centres[new] = indices, self._points[indices]
        self._centre_norms[new] = self._norms[indices]
        self._nearest[indices] = -torch.inf  # rounding must not let a vector be taken twice
        self.count = new.stop

    def _brought_up(self, rows: Tensor, floor: Tensor) -> Tensor:
        """Those of the rows that are at least so far from all taken; the others are left as soon as they are not."""
        first = int(self._seen[rows].min()) // CENTRES * CENTRES if len(rows) else self.count
        for start in range(first, self.count, CENTRES):
            stop = min(start + CENTRES, self.count)
            rows = rows[self._nearest[rows] >= floor]
            for late in rows[self._seen[rows] < stop].split(CANDIDATES):
                partial = torch.addmm(
                    self._centre_norms[start:stop], self._points[late], self._centres[start:stop].T, alpha=-2
                )
                distance = partial.amin(1) + self._norms[late]
                self._nearest[late] = torch.minimum(self._nearest[late], distance)
                self._seen[late] = stop
        return rows[self._nearest[rows] >= floor]

    def _farthest(self, rows: Tensor, most: int) -> tuple[Tensor, Tensor]:
        """So many steps of the plain loop among the rows: their places there and their distances when taken."""
        points, norms, nearest = self._points[rows], self._norms[rows], self._nearest[rows]
        places = torch.empty(most, dtype=torch.long, device=points.device)
        distances = points.new_empty(most)
        for step in range(most):
            place = nearest.argmax()
            places[step], distances[step] = place, nearest[place]
            distance = torch.addmv(norms, points, points[place], alpha=-2) + norms[place]
            nearest = torch.minimum(nearest, distance)
            nearest[place] = -torch.inf
        return places, distances


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
        if k == 1:
            index = _nearest(chunk, bank, norms)[:, None]
        else:
            index = _shifted(chunk, bank, norms).topk(k, dim=1, largest=False).indices
        # distances anew from the differences: the expanded form cancels badly for near vectors
        exact = (chunk[:, None] - bank[index]).square().sum(2).sqrt()
        order = exact.argsort(dim=1, stable=True)
        distances.append(exact.gather(1, order))
        indices.append(index.gather(1, order))
    return torch.cat(distances), torch.cat(indices)


def _nearest(queries: Tensor, bank: Tensor, norms: Tensor) -> Tensor:
    """(q,) index of each query's nearest bank vector, the least so far kept over the bank's chunks."""
    best, index = _shifted(queries, bank[:BANK_CHUNK], norms[:BANK_CHUNK]).min(1)
    for start in range(BANK_CHUNK, len(bank), BANK_CHUNK):
        rows = slice(start, start + BANK_CHUNK)
        distances, places = _shifted(queries, bank[rows], norms[rows]).min(1)
        nearer = distances < best
        best, index = torch.where(nearer, distances, best), torch.where(nearer, places + start, index)
    return index


def _shifted(queries: Tensor, bank: Tensor, norms: Tensor) -> Tensor:
    """(q, m) squared distances less the query's own norm, which does not change their order."""
    return torch.addmm(norms, queries, bank.T, alpha=-2)
