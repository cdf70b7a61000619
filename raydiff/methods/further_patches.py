"""What a memory bank lacks of further normal images: patches that none of its vectors is near to.

A bank that was chosen by greedy coreset has a vector within its cover radius of each patch that it was chosen from
(`nn.memory_bank`). Of further images it takes the patches that lie farther out, the farthest first, until none does: so
it covers them, too, and grows by what is new to it, not by how many images there are. (Half of that radius made it grow
five times as fast, on magnetic tiles, and parted defects no better from normal images.)
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from raydiff.methods.base import FurtherExamples, Learnt, Report
from raydiff.nn.memory_bank import extension, nearest_neighbours

if TYPE_CHECKING:
    from raydiff.methods.features import FeatureMethod

POOL, POOLED = 20_000, 300_000
CHUNK = 1024  # vectors that are compared with all others at a time
GROWTH = 1.0  # a category's bank may grow by so many times the most vectors that training gives it


class _Pool(NamedTuple):
    """Patches of one category that are far from its bank."""

    vectors: Tensor  # (n, C)
    images: Tensor  # (n,) numbers of the images that they are of


class _Drawn:
    """A pool as it is gathered: all patches, or of more than so many those with the lowest of random numbers."""

    def __init__(self, most: int, generator: torch.Generator) -> None:
        self._most, self._generator = most, generator
        self._held: list[tuple[Tensor, Tensor, Tensor]] = []
        self._count = 0

    def add(self, vectors: Tensor, image: int) -> None:
        """Take in patches (n, C) of an image."""
        numbers = torch.rand(len(vectors), generator=self._generator)
        self._held.append((vectors, torch.full((len(vectors),), image), numbers))
        self._count += len(vectors)
        if self._count > 2 * self._most:
            self.pool()

    def pool(self) -> _Pool:
        """What was drawn of all that were taken in so far."""
        vectors, images, numbers = (torch.cat(each) for each in zip(*self._held, strict=True))
        if len(numbers) > self._most:
            kept = numbers.argsort()[: self._most].sort().values
            vectors, images, numbers = vectors[kept.to(vectors.device)], images[kept], numbers[kept]
        self._held, self._count = [(vectors, images, numbers)], len(numbers)
        return _Pool(vectors, images)


def learn_patches(method: FeatureMethod, examples: FurtherExamples, seed: int, report: Report) -> Learnt:
    """Put into the method's bank what it lacks of the examples; a patch goes to the category that its image shows.

    At most POOL far patches of a category are held, and POOLED of all; of more some are drawn. The radius is that of
    the bank as training chose it, whatever it has learnt since; where that was a single vector, all that differs is
    far. With several backbones a patch is far where it is so for one of them, and each chooses for itself, all as many.
    """
    generator = torch.Generator().manual_seed(seed)
    uris = sorted(set(examples.images))
    own, bank, places = method.bank_rows(), method.memory_bank, method.bank_categories
    reach: list[list[float]] = method.cover_radii.tolist()
    pools = _pools(method, examples, uris, reach, generator, report)
    alone = torch.zeros(len(uris))
    kept, added, full = [], 0, False
    for place, rows in enumerate(own):
        pool = pools.get(place)
        chosen = bank[:0]
        if pool is not None:
            alone.scatter_reduce_(0, pool.images, _apart(method, pool, bank[rows], reach[place]), "amax")
            room = max(0, int((1 + GROWTH) * method.settings.bank_size) - (rows.stop - rows.start))
            chosen, wanted = _chosen(method, pool.vectors, bank[rows], reach[place], room)
            added, full = added + len(chosen), full or wanted > room
        kept.append(torch.cat([bank[rows], chosen]))
        report("memory bank", place + 1, len(own))
    method.memory_bank = torch.cat(kept)
    sizes = torch.tensor([len(each) for each in kept])
    method.bank_categories = torch.arange(len(own), dtype=torch.int32).repeat_interleave(sizes).to(places.device)
    return Learnt(added, full, dict(zip(uris, alone.tolist(), strict=True)))


def _pools(
    method: FeatureMethod,
    examples: FurtherExamples,
    uris: list[str],
    reach: list[list[float]],
    generator: torch.Generator,
    report: Report,
) -> dict[int, _Pool]:
    """The far patches of each category that has some."""
    numbers = {uri: number for number, uri in enumerate(uris)}
    own = method.bank_rows()
    most = min(method.settings.coreset_pool, POOL, POOLED // len(own))
    drawn: dict[int, _Drawn] = {}
    done = 0
    for batch in examples.batches():
        for place, vectors in _patches(method, batch):
            bank = method.memory_bank[own[place]]
            far = torch.zeros(len(vectors), dtype=torch.bool, device=vectors.device)
            for part, theirs, within in _parts(method, vectors, bank, reach[place]):
                far |= nearest_neighbours(part, theirs, 1)[0][:, 0] > within
            if far.any():
                drawn.setdefault(place, _Drawn(most, generator)).add(vectors[far], numbers[examples.images[done]])
            done += 1
        report("patches that are new", done, len(examples))
    return {place: each.pool() for place, each in drawn.items()}


def _patches(method: FeatureMethod, batch: Tensor) -> Iterator[tuple[int, Tensor]]:
    """Each example's category and its patches (n, C) that are looked at."""
    shown = method.shown(batch)
    features, inside = method.standardised(batch, shown), method.inside(batch)
    for row, place in enumerate(shown.tolist()):
        yield place, features[row].flatten(1).T[inside[row].flatten()].contiguous()


def _chosen(method: FeatureMethod, vectors: Tensor, bank: Tensor, reach: list[float], room: int) -> tuple[Tensor, int]:
    """Rows (k, C) for a category's bank, k <= room, and how many it would take to cover the vectors."""
    parts = list(_parts(method, vectors, bank, reach))
    taken = [extension(part, theirs, within, room + 1) for part, theirs, within in parts]
    wanted = max(map(len, taken))
    count = min(wanted, room)
    rows = []
    for (part, theirs, _), lacking in zip(parts, taken, strict=True):
        all_as_many = lacking if len(lacking) >= count else extension(part, theirs, -1.0, count)
        rows.append(part[all_as_many[:count]])
    return torch.cat(rows, 1), wanted


def _apart(method: FeatureMethod, pool: _Pool, bank: Tensor, reach: list[float]) -> Tensor:
    """(n,) how far each of the pool's patches lies from the bank and from other images' patches, in cover radii."""
    found = torch.zeros(len(pool.images))
    for part, theirs, within in _parts(method, pool.vectors, bank, reach):
        nearest = torch.minimum(nearest_neighbours(part, theirs, 1)[0][:, 0], _to_other_images(part, pool.images)).cpu()
        found = torch.maximum(found, nearest / within if within else torch.full_like(nearest, torch.inf))
    return found


def _to_other_images(vectors: Tensor, images: Tensor) -> Tensor:
    """(n,) distance of each vector (n, d) to the nearest one of another image; infinite where there is none."""
    norms, images = vectors.square().sum(1), images.to(vectors.device)
    found = []
    for rows in torch.arange(len(vectors), device=vectors.device).split(CHUNK):
        squares = torch.addmm(norms, vectors[rows], vectors.T, alpha=-2)
        squares[images[rows][:, None] == images] = torch.inf
        least, index = squares.min(1)
        distance = (vectors[rows] - vectors[index]).square().sum(1).sqrt()  # the expanded form cancels badly
        found.append(torch.where(least.isinf(), torch.inf, distance))
    return torch.cat(found)


def _parts(
    method: FeatureMethod, vectors: Tensor, bank: Tensor, reach: list[float]
) -> Iterator[tuple[Tensor, Tensor, float]]:
    """Each backbone's part of vectors and of a bank, and how far from it a vector counts as near."""
    yield from zip(vectors.split(method.parts, 1), bank.split(method.parts, 1), reach, strict=True)
