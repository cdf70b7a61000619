"""Holding out whole groups of images, such as all that show one part, and about as many images as are wanted."""

from __future__ import annotations

from collections.abc import Sequence


def nearest(sizes: Sequence[int], wanted: int, least: int = 1) -> list[int]:
    """Which groups to hold out, that their images are about as many as `wanted`; never all of them.

    In their order all are taken that fit into what is wanted yet, and then the smallest that is left, if that comes
    nearer. So the number is off by half of the smallest group that is left at most, unless `least` groups ask for more.

    Args:
        sizes: images of each group, in an order drawn by chance.
        wanted: images, fewer than there are.
        least: groups to be held out at any rate, as long as one is left.
    """
    found, held = [], 0
    for at, size in enumerate(sizes):
        if held + size <= wanted:
            found.append(at)
            held += size
    taken = set(found)
    left = sorted((size, at) for at, size in enumerate(sizes) if at not in taken)
    while wanted and len(left) > 1 and (len(found) < least or held + left[0][0] - wanted < wanted - held):
        size, at = left.pop(0)
        found.append(at)
        held += size
    return found


def halves(sizes: Sequence[int]) -> tuple[list[int], list[int]]:
    """Groups shared out between two sides, the first of which has as many images as the other, or somewhat more."""
    sides: tuple[list[int], list[int]] = ([], [])
    held = [0, 0]
    for at in sorted(range(len(sizes)), key=lambda at: -sizes[at]):
        side = int(held[1] < held[0])
        sides[side].append(at)
        held[side] += sizes[at]
    return sides if held[0] >= held[1] else (sides[1], sides[0])
