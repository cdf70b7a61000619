"""Reading by Pillow's plugins, called directly.

`Image.open` tries some forty formats and decides about decompression bombs by a process-wide setting, with a warning,
before we can.
"""

from __future__ import annotations

import re
import warnings

import numpy as np
from PIL import Image, ImageFile

from raydiff.images.samples import Samples

# Where Pillow and pydicom remark on odd metadata of a file that is otherwise sound.
_REMARKS = r"PIL\.(Png|Jpeg|Bmp|Tiff|WebP|Avif|Jpeg2K)ImagePlugin|pydicom\."
_ORIENTATION = 274


def silence_remarks() -> None:
    """For the whole process, once: `warnings.catch_warnings` around each image is not safe among threads."""
    if ("ignore", None, UserWarning, re.compile(_REMARKS), 0) not in warnings.filters:
        warnings.filterwarnings("ignore", category=UserWarning, module=_REMARKS)


def allow(pixels: int) -> None:
    """Let Pillow read so many: some of its plugins ask its own limit, for the whole process, before they unpack."""
    if Image.MAX_IMAGE_PIXELS is not None and pixels > Image.MAX_IMAGE_PIXELS:
        Image.MAX_IMAGE_PIXELS = pixels


def orientation(image: ImageFile.ImageFile) -> int:
    """Of a loaded image: the EXIF data of a PNG may stand behind its pixels."""
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # garbage where the EXIF data should be says nothing about the pixels
        return 1


def samples(image: ImageFile.ImageFile, blurred: bool = False) -> Samples:
    """What a loaded image holds. Grey and RGB have no transparent colour here, palettes have."""
    upright = orientation(image)
    if image.mode == "P" and "transparency" in image.info:
        converted: Image.Image = image.convert("RGBA")
    elif image.mode in ("P", "CMYK"):
        converted = image.convert("RGB")
    elif image.mode == "1":
        converted = image.convert("L")
    else:
        converted = image
    values = np.asarray(converted)
    values = values[..., None] if values.ndim == 2 else values
    white = 65535 if values.dtype == np.uint16 else 255
    if converted.mode in ("LA", "RGBA"):
        return Samples(values[..., :-1], white, values[..., -1], white, upright, blurred)
    if converted.mode in ("L", "RGB", "I;16"):
        return Samples(values, white, orientation=upright, blurred=blurred)
    raise ValueError(f"pixels of mode {converted.mode}")
