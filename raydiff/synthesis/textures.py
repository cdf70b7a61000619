"""What fills a made anomaly: texture images of the user's, drawn textures, or the image itself, shuffled."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from raydiff import storage
from raydiff.errors import DataError, ImageError, StorageError
from raydiff.images.decode import decode, resize
from raydiff.images.layouts.found import list_folder
from raydiff.images.tables import own_table
from raydiff.synthesis.perlin import fractal_noise, perlin_noise
from raydiff.vision_libraries import torchvision

V = torchvision.transforms.v2.functional
PROCEDURAL = "procedural"
SELF = "self"
KEPT = 1000  # texture images in memory, drawn evenly from all that there are
_TRIED = 8  # texture images, for one that can be read
CELLS = 8  # the image itself is cut into so many cells along each axis


class TextureSources:
    """Draws one texture after the other, each time from one of the sources with equal chance.

    Args:
        sources: "procedural" (drawn by `procedural_texture`), "self" (the image, shuffled), or the URI of a folder or
            table of texture images, such as DTD's. Those are read on first use.
        size: of the textures, pixels.

    Every texture but a procedural one is changed by three random augmentations, as in DiffusionAD's code.
    """

    def __init__(self, sources: Sequence[str], size: int) -> None:
        self.sources, self.size = tuple(sources), size

    def check(self) -> None:
        """Whether each folder or table holds a texture that can be read: all are listed, the first is read.

        Raises:
            DataError, StorageError: if not.
        """
        for source in self.sources:
            if source not in (PROCEDURAL, SELF):
                _first(source)

    def draw(self, image: Tensor, generator: torch.Generator) -> Tensor:
        """A texture (3, S, S) uint8 for an anomaly on the image (3, S, S) uint8.

        Raises:
            DataError: if a source's URI holds no image that can be read.
        """
        source = self.sources[_integer(len(self.sources), generator)]
        if source == PROCEDURAL:
            return procedural_texture(self.size, generator)
        if source == SELF:
            return shuffled(augmented(image, generator), generator)
        images = _read(source, self.size)
        return augmented(images[_integer(len(images), generator)], generator)


def procedural_texture(size: int, generator: torch.Generator) -> Tensor:
    """(3, size, size) uint8: clouds, stripes, cells or grain, between two random colours."""
    pattern = (fractal_noise, _stripes, _blocks, _grain)[_integer(4, generator)](size, generator)
    first, second = 255 * torch.rand(2, 3, 1, 1, generator=generator)
    return torch.lerp(first, second, pattern[None]).round().to(torch.uint8)


def shuffled(image: Tensor, generator: torch.Generator) -> Tensor:
    """An image (3, S, S) cut into 8 x 8 cells that changed places; what 8 does not divide is filled by wrapping."""
    size = image.shape[-1]
    cell = math.ceil(size / CELLS)
    whole = torch.arange(cell * CELLS) % size
    cells = image[:, whole][:, :, whole].unflatten(2, (CELLS, cell)).unflatten(1, (CELLS, cell))
    cells = cells.permute(1, 3, 0, 2, 4).flatten(0, 1)[torch.randperm(CELLS**2, generator=generator)]
    back = cells.unflatten(0, (CELLS, CELLS)).permute(2, 0, 3, 1, 4).flatten(3, 4).flatten(1, 2)
    return back[:, :size, :size]


def augmented(image: Tensor, generator: torch.Generator) -> Tensor:
    """An image (3, S, S) uint8 after three different augmentations of eight, in random order."""
    for number in torch.randperm(len(_AUGMENTATIONS), generator=generator)[:3].tolist():
        image = _AUGMENTATIONS[number](image, generator)
    return image


def _images(uri: str) -> list[str]:
    """All images of a folder or table, whatever they are called: DTD has a folder `cracked`."""
    if own_table.is_table(uri):
        return sorted({found for batch in own_table.read_batches(uri) for found in batch["uri"].to_pylist()})
    uris = sorted(list_folder(uri).images.values())
    if not uris:
        raise DataError(f"texture source {uri} holds no images; give a folder or table of some, such as DTD's")
    return uris


def _first(uri: str) -> None:
    """Read a texture, the first that can be."""
    tried = _images(uri)[:_TRIED]
    next(_readable(uri, tried, f"its {len(tried)} files looked at"))


@functools.lru_cache(maxsize=4)
def _read(uri: str, size: int) -> list[Tensor]:
    uris = _images(uri)
    kept = uris[:: math.ceil(len(uris) / KEPT)]
    found = _readable(uri, kept, f"{len(kept)} files")
    return [torch.from_numpy(resize(image, size)).permute(2, 0, 1) for image in found]


def _readable(source: str, uris: Sequence[str], which: str) -> Iterator[NDArray[np.uint8]]:
    """The images that can be read, one at a time; a DataError that speaks of `which` if that is none."""
    found, reason = False, "no image there"
    for uri in uris:
        try:
            image = decode(storage.read_bytes(uri))
        except (ImageError, StorageError) as error:
            reason = str(error)
            continue
        found = True
        yield image
    if not found:
        raise DataError(f"texture source {source}: none of {which} is an image that can be read ({reason})")


def _stripes(size: int, generator: torch.Generator) -> Tensor:
    y, x = torch.meshgrid(*[torch.linspace(0, 1, size)] * 2, indexing="ij")
    angle = _uniform(0, math.pi, generator)
    place = math.cos(angle) * x + math.sin(angle) * y + _uniform(0, 0.3, generator) * fractal_noise(size, generator)
    return 0.5 + 0.5 * torch.sin(2 * math.pi * _uniform(4, 30, generator) * place)


def _blocks(size: int, generator: torch.Generator) -> Tensor:
    rows, columns = (4 + _integer(20, generator) for _ in range(2))
    return V.resize(torch.rand(1, rows, columns, generator=generator), [size, size], V.InterpolationMode.NEAREST)[0]


def _grain(size: int, generator: torch.Generator) -> Tensor:
    cells = min(32, size)
    coarse = perlin_noise(size, (cells, cells), generator).add(1).div(2)
    return (0.6 * coarse + 0.4 * torch.rand(size, size, generator=generator)).clamp(0, 1)


_AUGMENTATIONS: tuple[Callable[[Tensor, torch.Generator], Tensor], ...] = (
    lambda image, generator: V.adjust_gamma(image, _uniform(0.5, 2.0, generator)),
    lambda image, generator: V.adjust_brightness(image, _uniform(0.7, 1.4, generator)),
    lambda image, generator: V.adjust_sharpness(image, _uniform(0.0, 3.0, generator)),
    lambda image, generator: V.adjust_hue(
        V.adjust_saturation(image, _uniform(0.5, 1.5, generator)), _uniform(-0.2, 0.2, generator)
    ),
    lambda image, generator: V.solarize(image, _uniform(32, 128, generator)),
    lambda image, generator: V.posterize(image, 4 + _integer(3, generator)),
    lambda image, generator: V.invert(image),
    lambda image, generator: V.equalize(V.autocontrast(image)),
)


def _integer(below: int, generator: torch.Generator) -> int:
    return int(torch.randint(below, (), generator=generator))


def _uniform(low: float, high: float, generator: torch.Generator) -> float:
    return low + (high - low) * float(torch.rand((), generator=generator))
