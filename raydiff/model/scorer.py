"""The one scoring path: evaluation, tuning, Serve, bulk scoring and `Model.score` all end here.

Images are computed in chunks of a fixed size, the last one filled up, so that every kernel sees the same shapes and an
image's score does not depend on how many others came with it.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import accumulate, islice
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from raydiff.methods.base import Method, Rows, ScoreSettings
from raydiff.model.scored import Scored, concatenated
from raydiff.nn.batches import filled
from raydiff.nn.positions import PositionStatistics
from raydiff.views import Arrays, Layout, each_tile
from raydiff.views.roi import alike, inside_of

# Large enough to keep the device busy, small enough that a single image does not wait for much filling.
CHUNK = {"cpu": 8, "cuda": 32}


def score_images(
    method: Method,
    images: Arrays,
    score: ScoreSettings,
    positions: PositionStatistics | None = None,
    categories: Sequence[str | None] | None = None,
) -> Scored:
    """Score uint8 images as the method's view has them (see `View.seen`); the rest as of `score_examples`.

    Some tiles are in memory at a time; one image's, where it is looked at in part.
    """
    parts = []
    view, size = method.settings.view, method.settings.image_size
    for group in view.groups(images, size):
        shown = None if categories is None else categories[group]
        layouts = [view.layout(image.shape, size) for image in images[group]]
        if len(layouts) == 1 and view.is_large(layouts[0]) and images[group.start].shape[2] == 3:
            (image,) = images[group]
            large = InRows(method, partial(iter, [image]), layouts[0], score, positions, shown)
            whole = np.concatenate(list(large.map_rows()))
            parts.append(large.scored()._replace(maps=whole[None]))
        else:
            parts.append(score_inputs(method, inputs_of(method, images[group]), score, positions, shown))
    return concatenated(parts)


class InRows:
    """An image that comes some rows at a time, scored as `score_images` scores it whole, to the bit.

    A chunk of tiles is in memory at a time, and of the image and of its map the rows that two tiles reach over.
    """

    def __init__(
        self,
        method: Method,
        seen: Callable[[], Iterable[np.ndarray]],
        layout: Layout,
        score: ScoreSettings,
        positions: PositionStatistics | None = None,
        categories: Sequence[str | None] | None = None,
    ) -> None:
        """Nothing is read yet; `positions` and `categories`, of the one image, as of `score_examples`.

        Args:
            seen: the image as the view has it, in bands (h, W, 3) of its rows from its top on, each time anew: where
                its category is to be guessed, all of it is looked at before.
            layout: of an image that is at least as high and as wide as a tile, and looked at everywhere.
        """
        self._method, self._seen, self._layout = method, seen, layout
        self._score, self._positions, self._categories = score, positions, categories
        self._guess: str | None = None
        self._tiles: list[Scored] = []
        self._own = False
        self._read: np.ndarray | None = None

    def map_rows(self) -> Iterator[np.ndarray]:
        """The image's map, float32, in bands of rows (h, W)."""
        reader = self._method.reader(self._score, self._layout.height, self._layout.width)
        for rows in self._layout.joined_rows(self._tile_maps()):
            reader.add(torch.from_numpy(rows[None]).to(self._method.device))
            yield rows
        self._read = reader.scores().double().cpu().numpy()

    def scored(self) -> Scored:
        """What the image's score is, without its map, once all of `map_rows` were taken."""
        assert self._read is not None, "its map was not taken whole"
        tiles = concatenated(self._tiles)
        told = {name: values.mean(keepdims=True) for name, values in tiles.details.items()}
        value = tiles.scores.max(keepdims=True) if self._own else self._read
        return Scored(value, np.empty((1, 0, 0), np.float32), told, [self._guess])

    def _tile_maps(self) -> Iterator[np.ndarray]:
        (given,) = self._categories or [None]
        known = self._method.categories
        if self._categories is not None and known and given not in known:
            names = Counter(
                name for tiles in self._chunks() for name in _likely(self._method, examples_of(self._method, tiles))
            )
            self._guess = names.most_common(1)[0][0]
        for tiles in self._chunks():
            shown = [self._guess or given] * len(tiles)
            keys = [image_key(tile) for tile in tiles]
            found, own = _score_chunk(
                self._method, examples_of(self._method, tiles), keys, self._score, self._positions, shown, None
            )
            self._tiles.append(found.without_maps())
            self._own |= own
            yield from found.maps

    def _chunks(self) -> Iterator[np.ndarray]:
        tiles = self._layout.tiles_of(self._seen())
        while some := list(islice(tiles, CHUNK[self._method.device.type])):
            yield np.stack(some)


class Inputs(NamedTuple):
    """What the method reads of N images."""

    examples: Tensor  # of their tiles, those of an image one after the other
    keys: list[str]  # of each tile
    layouts: list[Layout]  # of each image
    inside: np.ndarray | None = None  # (T, S, S) of bool, where each tile is looked at; None: everywhere

    @property
    def image_keys(self) -> list[str]:
        """One of each image, whose tiles' keys it is made of."""
        return ["".join(self.keys[rows]) for rows in _rows(self.layouts)]

    def part(self, images: Iterable[int]) -> Inputs:
        """Those of some images."""
        own = _rows(self.layouts)
        tiles = [tile for image in images for tile in range(own[image].start, own[image].stop)]
        layouts = [self.layouts[image] for image in images]
        inside = None if self.inside is None else self.inside[tiles]
        return Inputs(self.examples[tiles], [self.keys[tile] for tile in tiles], layouts, inside)


def inputs_of(method: Method, images: Arrays) -> Inputs:
    """Of uint8 images as the method's view has them (see `View.seen`)."""
    tiles, layouts = tiles_of(method, images)
    return Inputs(examples_of(method, tiles), [image_key(tile) for tile in tiles], layouts, inside_of(tiles))


def tiles_of(method: Method, images: Arrays) -> tuple[np.ndarray, list[Layout]]:
    """The tiles (T, S, S, 3 or 4) of uint8 images as the method's view has them, and each image's layout.

    They have a fourth channel where one of the images is looked at in part, or is smaller than its tile.
    """
    for image in images:
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] not in (3, 4):
            raise ValueError(f"uint8 (H, W, 3 or 4) images expected, {image.dtype} {image.shape} given")
    layouts = [method.settings.view.layout(image.shape, method.settings.image_size) for image in images]
    tiles = [tile for layout, image in zip(layouts, images, strict=True) for tile in layout.tiles(image)]
    return np.stack(list(alike(tiles))), layouts


def examples_of(method: Method, images: np.ndarray, rows: Rows | None = None) -> Tensor:
    """The method's examples of uint8 (N, S, S, 3 or 4) images, on the CPU; to be trained on, if `rows` are given."""
    chunk = CHUNK[method.device.type]
    parts = []
    for start in range(0, len(images), chunk):
        batch = torch.from_numpy(images[start : start + chunk].copy())
        theirs = None if rows is None else [*rows[start : start + chunk], *[rows[start]] * (chunk - len(batch))]
        parts.append(method.example(filled(batch, chunk), theirs)[: len(batch)].cpu())
    return torch.cat(parts)


def score_inputs(
    method: Method,
    inputs: Inputs,
    score: ScoreSettings,
    positions: PositionStatistics | None = None,
    categories: Sequence[str | None] | None = None,
) -> Scored:
    """As `score_examples`, of images whose examples are there."""
    return score_examples(
        method, inputs.examples, inputs.keys, score, positions, categories, inputs.layouts, inputs.inside
    )


def score_examples(
    method: Method,
    examples: Tensor,
    keys: Sequence[str],
    score: ScoreSettings,
    positions: PositionStatistics | None = None,
    categories: Sequence[str | None] | None = None,
    layouts: Sequence[Layout] | None = None,
    inside: np.ndarray | None = None,
) -> Scored:
    """Score examples with the given keys (see `image_key`).

    An image of several tiles is scored by its whole map, as others by theirs; where a method has a score of its own, by
    its highest tile's. What else the method tells of it is the mean over its tiles.

    Args:
        positions: what normal maps hold at each position of a tile; without them the maps are the method's own.
        categories: of each image, where they are known; others the method guesses, if it can. None guesses nothing.
        layouts: of each image, whose tiles' examples follow each other; None: each example is an image.
        inside: (T, S, S) of bool, where each tile is looked at; maps are zero elsewhere, and no score is read there.
    """
    size = method.settings.image_size
    layouts = layouts or [Layout(size, size, size, 0)] * len(examples)
    guessed: list[str | None] = [None] * len(layouts)
    shown = guessed
    if categories is not None:
        guessed = _guesses(method, examples, categories, layouts)
        shown = [guess or name for guess, name in zip(guessed, categories, strict=True)]
    of_tiles = each_tile(shown, layouts)
    found = [
        _score_chunk(
            method, batch, keys[rows], score, positions, of_tiles[rows], None if inside is None else inside[rows]
        )
        for rows, batch in _chunks(method, examples)
    ]
    tiles = concatenated([each for each, _ in found])
    if all(layout.is_one_tile for layout in layouts):
        return tiles._replace(guessed=guessed)
    have_own = any(own for _, own in found)
    images = []
    for layout, rows in zip(layouts, _rows(layouts), strict=True):
        if layout.is_one_tile:
            images.append(tiles.rows(rows))
            continue
        whole = layout.joined(tiles.maps[rows])
        value = tiles.scores[rows].max(keepdims=True)
        if not have_own:
            there = torch.from_numpy(whole[None]).to(method.device)
            if inside is not None:
                looked_at = layout.joined(inside[rows].astype(np.float32)) > 0
                there = _inside_alone(there, torch.from_numpy(looked_at[None]).to(method.device))
            value = method.scores(there, score).double().cpu().numpy()
        told = {name: values[rows].mean(keepdims=True) for name, values in tiles.details.items()}
        images.append(Scored(value, whole[None], told, [None]))
    return concatenated(images)._replace(guessed=guessed)


def _score_chunk(
    method: Method,
    examples: Tensor,
    keys: Sequence[str],
    score: ScoreSettings,
    positions: PositionStatistics | None,
    categories: Sequence[str | None],
    inside: np.ndarray | None,
) -> tuple[Scored, bool]:
    """Some tiles' scores, and whether these are the method's own and not read off the maps."""
    chunk, count = CHUNK[method.device.type], len(examples)
    spare = chunk - count
    found = method.maps(filled(examples, chunk), [*keys, *[""] * spare], score)
    standing = found.maps
    if positions is not None:
        standing = positions.standardised(standing, [*categories, *[None] * spare])
    read = standing
    if inside is not None:
        looked_at = filled(torch.tensor(inside), chunk).to(standing.device)
        read, standing = _inside_alone(standing, looked_at), torch.where(looked_at, standing, 0)
    of_images = method.scores(read, score) if found.scores is None else found.scores
    told = {name: values[:count].double().cpu().numpy() for name, values in found.details.items()}
    scored = of_images[:count].double().cpu().numpy()
    return Scored(scored, standing[:count].cpu().float().numpy(), told, [None] * count), found.scores is not None


def _inside_alone(maps: Tensor, inside: Tensor) -> Tensor:
    """(N, H, W) maps with each one's lowest value inside put outside, where no score is to be found."""
    lowest = torch.where(inside, maps, torch.inf).amin((1, 2), keepdim=True)
    return torch.where(inside, maps, torch.where(lowest.isinf(), 0, lowest))


def _guesses(
    method: Method, examples: Tensor, given: Sequence[str | None], layouts: Sequence[Layout]
) -> list[str | None]:
    """What the method takes those images for that were given no category that it knows; None for the others.

    Most of an image's tiles decide.
    """
    known = method.categories
    guessed: list[str | None] = [None] * len(given)
    if not known or all(name in known for name in given):
        return guessed
    likely = _likely(method, examples)
    for place, (name, rows) in enumerate(zip(given, _rows(layouts), strict=True)):
        if name not in known:
            guessed[place] = Counter(likely[rows]).most_common(1)[0][0]
    return guessed


def _likely(method: Method, examples: Tensor) -> list[str]:
    """What each of the examples looks like to the method."""
    chunk = CHUNK[method.device.type]
    return [
        name
        for _, batch in _chunks(method, examples)
        for name in method.likely_categories(filled(batch, chunk))[: len(batch)]
    ]


def _chunks(method: Method, examples: Tensor) -> Iterator[tuple[slice, Tensor]]:
    chunk = CHUNK[method.device.type]
    for start in range(0, len(examples), chunk):
        rows = slice(start, start + chunk)
        yield rows, examples[rows]


def _rows(layouts: Sequence[Layout]) -> list[slice]:
    """Where each image's tiles lie."""
    ends = list(accumulate(layout.tile_count for layout in layouts))
    return [slice(end - layout.tile_count, end) for end, layout in zip(ends, layouts, strict=True)]


def image_key(image: np.ndarray) -> str:
    """An image's own key: the hash of its pixels at the model's size. Its noise is drawn from this."""
    return hashlib.sha256(np.ascontiguousarray(image[..., :3]).tobytes()).hexdigest()
