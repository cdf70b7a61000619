"""From the bytes of an image file to pixels: one rule for every kind of file an archive may hold."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable

import numpy as np
from PIL import BmpImagePlugin, Image, ImageFile, JpegImagePlugin, PngImagePlugin, TiffImagePlugin

from raydiff.errors import ImageError

MAX_PIXELS = 200_000_000


# The plugins are called directly and not through `Image.open`, which tries some forty formats and decides
# about decompression bombs by a process-wide setting, with a warning, before we can.
_READERS: dict[str, tuple[tuple[bytes, ...], type[ImageFile.ImageFile]]] = {
    "PNG": ((b"\x89PNG\r\n\x1a\n",), PngImagePlugin.PngImageFile),
    "JPEG": ((b"\xff\xd8\xff",), JpegImagePlugin.JpegImageFile),
    "BMP": ((b"BM",), BmpImagePlugin.BmpImageFile),
    "TIFF": (tuple(TiffImagePlugin.PREFIXES), TiffImagePlugin.TiffImageFile),
}

# Where Pillow remarks on odd metadata of a file that is otherwise sound.
_REMARKS = r"PIL\.(Png|Jpeg|Bmp|Tiff)ImagePlugin"

_BITS_PER_SAMPLE, _PHOTOMETRIC, _SUBFILE_TYPE, _ORIENTATION = 258, 262, 254, 274
_WHITE_IS_ZERO, _REDUCED = 0, 1


def decode(data: bytes, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """The image in a PNG, JPEG, BMP or TIFF file as uint8 RGB, shape (height, width, 3).

    - Orientation (EXIF, TIFF) is applied.
    - Grey is repeated to three channels, palettes are looked up, CMYK is converted without a colour profile.
    - 16-bit grey is scaled by its full range, round(v / 257) (12-bit TIFF: round(v * 255 / 4095)), never by
      the image's own extremes, so that brightness stays comparable between images. A camera that stores 12
      bits in a 16-bit file therefore looks dark. 16-bit colour arrives as its high byte, at most one level
      less.
    - Float must be finite and within [0, 1]; 32-bit and signed integers have no agreed range and are refused.
    - Alpha is composited over black: what no viewer can see must not move a score.
    - A TIFF must hold one page; reduced copies (thumbnails, pyramids) do not count.

    Raises:
        ImageError: if the file is empty, truncated, of another kind, larger than `max_pixels` (told from its
            header, before anything is unpacked) or has values as above.
    """
    return _read(data, max_pixels, _rgb)


def decode_mask(data: bytes, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """The ground-truth mask in an image file as bool, shape (height, width): True = anomalous.

    Any pixel that is not black is anomalous, whatever the depth. JPEG blurs black, so there it takes half of
    white.

    Raises:
        ImageError: as `decode`, except that integers of any depth are masks.
    """
    return _read(data, max_pixels, _mask)


def resize(image: np.ndarray, size: int) -> np.ndarray:
    """uint8 RGB (height, width, 3) to (size, size, 3), bilinear and antialiased as Pillow does it."""
    return np.array(Image.fromarray(image).resize((size, size), Image.Resampling.BILINEAR))


def resize_mask(mask: np.ndarray, size: int) -> np.ndarray:
    """bool (height, width) to (size, size): each pixel takes the nearest one's value."""
    return np.array(Image.fromarray(mask).resize((size, size), Image.Resampling.NEAREST))


def _read(data: bytes, max_pixels: int, pixels: Callable[[ImageFile.ImageFile], np.ndarray]) -> np.ndarray:
    """`pixels` of the opened file, upright, with every failure told as an ImageError."""
    kind = _kind(data)
    _silence_remarks()
    try:
        image = _READERS[kind][1](io.BytesIO(data))
        if kind == "TIFF":
            _seek_page(image)
        _check_size(image, max_pixels)
        image.load()  # turns a TIFF upright, and finds the EXIF data behind a PNG's pixels
        array = pixels(image)
        upright = _UPRIGHT.get(_orientation(image))
        return np.array(upright(array) if upright else array, order="C")
    except ImageError:
        raise
    except Exception as error:  # a damaged file can raise anything
        reason = str(error) or type(error).__name__
        raise ImageError(f"the {kind} file is damaged or of a variety not known here ({reason})") from None


def _silence_remarks() -> None:
    """For the whole process, once: `warnings.catch_warnings` around each image is not safe among threads."""
    if ("ignore", None, UserWarning, re.compile(_REMARKS), 0) not in warnings.filters:
        warnings.filterwarnings("ignore", category=UserWarning, module=_REMARKS)


def _kind(data: bytes) -> str:
    if not data:
        raise ImageError("the file is empty")
    for kind, (beginnings, _) in _READERS.items():
        if data.startswith(beginnings):
            return kind
    raise ImageError(f"this is no {', '.join(_READERS)} file, whatever its name: it begins with {data[:8]!r}")


def _check_size(image: ImageFile.ImageFile, max_pixels: int) -> None:
    width, height = image.size
    if width * height == 0:
        raise ImageError(f"the image is {width} x {height} pixels: there is nothing in it")
    if width * height > max_pixels:
        raise ImageError(
            f"the image is {width} x {height} pixels, more than the limit of {max_pixels:,}; "
            "cut it into tiles or raise the limit"
        )
    if Image.MAX_IMAGE_PIXELS is not None and width * height > Image.MAX_IMAGE_PIXELS:
        Image.MAX_IMAGE_PIXELS = width * height  # Pillow's TIFF reader asks its own limit once more


def _seek_page(image: ImageFile.ImageFile) -> None:
    assert isinstance(image, TiffImagePlugin.TiffImageFile)
    pages = []
    for page in range(image.n_frames):
        image.seek(page)
        if not image.tag_v2.get(_SUBFILE_TYPE, 0) & _REDUCED:
            pages.append(page)
    if len(pages) != 1:
        raise ImageError(f"the TIFF holds {len(pages)} pages; save each page as a file of its own")
    image.seek(pages[0])


def _orientation(image: ImageFile.ImageFile) -> int | None:
    try:
        return image.getexif().get(_ORIENTATION)
    except Exception:  # garbage where the EXIF data should be says nothing about the pixels
        return None


def _rgb(image: ImageFile.ImageFile) -> np.ndarray:
    if image.mode == "I":
        raise ImageError("the pixels are 32-bit or signed integers of no agreed range; save as 8 or 16 bit")
    if image.mode == "F":
        grey = _grey(image)
        if not np.isfinite(grey).all() or grey.min() < 0 or grey.max() > 1:
            raise ImageError("the pixels are floats and not all within 0 to 1; scale them or save as 16 bit")
        return _repeated(np.rint(grey * 255))
    if image.mode.startswith("I;16"):
        full = _full_range(image)
        return _repeated((_grey(image) * 255 + full // 2) // full)
    return np.asarray(_colour(image))


def _mask(image: ImageFile.ImageFile) -> np.ndarray:
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        return _grey(image) != 0
    least = 128 if image.format == "JPEG" else 1
    return np.asarray(_colour(image)).max(axis=2) >= least


def _colour(image: ImageFile.ImageFile) -> Image.Image:
    if image.mode == "LAB":
        raise ImageError("the pixels are in LAB colours; save as RGB")
    if not image.has_transparency_data:
        return image.convert("RGB")
    canvas = Image.new("RGB", image.size)
    seen = image.convert("RGBA")
    canvas.paste(seen, mask=seen)
    return canvas


def _grey(image: ImageFile.ImageFile) -> np.ndarray:
    """Values of one deep channel, 0 = black: uint32 or int32 as stored, or float32."""
    values = np.asarray(image)
    values = values.astype(np.uint32) if values.dtype.kind == "u" else values
    tags = getattr(image, "tag_v2", {})
    if tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO and image.mode != "I":  # Pillow turns only 8 bits over
        values = _full_range(image) - values
    return values


def _full_range(image: ImageFile.ImageFile) -> int:
    if image.mode == "F":
        return 1
    bits = getattr(image, "tag_v2", {}).get(_BITS_PER_SAMPLE, (16,))[0]
    return 2**bits - 1


def _repeated(grey: np.ndarray) -> np.ndarray:
    return np.repeat(grey.astype(np.uint8)[..., None], 3, axis=2)


_UPRIGHT: dict[int | None, Callable[[np.ndarray], np.ndarray]] = {
    2: lambda array: array[:, ::-1],
    3: lambda array: array[::-1, ::-1],
    4: lambda array: array[::-1],
    5: lambda array: array.swapaxes(0, 1),
    6: lambda array: np.rot90(array, -1),
    7: lambda array: array[::-1, ::-1].swapaxes(0, 1),
    8: lambda array: np.rot90(array),
}
