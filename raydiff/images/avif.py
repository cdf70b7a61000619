"""AVIF files, of any depth: 10 and 12 bits arrive as their high eight."""

from __future__ import annotations

import io

from PIL import AvifImagePlugin

from raydiff.errors import ImageError
from raydiff.images import pillow
from raydiff.images.samples import Samples, check_size

# Images are decoded side by side, so that each needs no more than its own thread.
AvifImagePlugin.DEFAULT_MAX_THREADS = 1


def read(data: bytes, max_pixels: int) -> Samples:
    """The pixels of an AVIF file of one frame.

    Raises:
        ImageError: if it is larger than `max_pixels`, or an animation.
        Exception: of any kind, if it is damaged.
    """
    image = AvifImagePlugin.AvifImageFile(io.BytesIO(data))
    if image.n_frames > 1:
        raise ImageError(f"the AVIF is an animation of {image.n_frames} frames; save each frame as a file of its own")
    check_size(*image.size, max_pixels)
    image.load()
    return pillow.samples(image, blurred=True)
