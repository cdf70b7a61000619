"""Kinds of file, one variant after another: each is right to some levels of the numbers written, or a clear error."""

from __future__ import annotations

import contextlib
import io
import struct
import warnings
from collections.abc import Callable
from typing import Any

import imagecodecs
import numpy as np
import pytest
from image_files import Tiff
from PIL import Image

from raydiff.errors import ImageError
from raydiff.images.decode import decode, decode_mask
from raydiff.images.names import is_image

HEIGHT, WIDTH = 40, 52
RNG = np.random.default_rng(0)


def smooth(high: int, dtype: type = np.uint8, channels: int = 3) -> np.ndarray:
    """(HEIGHT, WIDTH, channels) from 0 to `high`, without edges that a lossy kind would blur."""
    y, x = np.meshgrid(np.linspace(0, 1, HEIGHT), np.linspace(0, 1, WIDTH), indexing="ij")
    return (np.dstack([x, y, (x + y) / 2])[..., :channels] * high).round().astype(dtype)


COLOUR = smooth(255)
GREY = COLOUR[..., 0]
DEEP = RNG.integers(0, 65536, (HEIGHT, WIDTH), dtype=np.uint16)
TWELVE = RNG.integers(0, 4096, (HEIGHT, WIDTH), dtype=np.uint16)
BITS = RNG.integers(0, 2, (HEIGHT, WIDTH), dtype=np.uint8)
ALPHA = np.where(np.arange(WIDTH) < 26, 255, 0).astype(np.uint8)[None].repeat(HEIGHT, 0)


def pillow(array: np.ndarray, kind: str, mode: str | None = None, **options: Any) -> bytes:
    Image.fromarray(array).convert(mode).save(sink := io.BytesIO(), kind, **options)
    return sink.getvalue()


def turned() -> Image.Exif:
    exif = Image.Exif()
    exif[274] = 6
    return exif


def frames(kind: str, count: int, **options: Any) -> bytes:
    some = [Image.fromarray(np.roll(COLOUR, 5 * number, 1)) for number in range(count)]
    some[0].save(sink := io.BytesIO(), kind, save_all=True, append_images=some[1:], **options)
    return sink.getvalue()


def grey(values: np.ndarray, white: int = 255) -> np.ndarray:
    return np.repeat(np.asarray(values, float)[..., None] * 255 / white, 3, axis=2)


def pnm(number: int, values: np.ndarray, white: int = 0, comment: bool = False) -> bytes:
    """By the specification: the header in words, then bytes, or digits."""
    head = f"P{number}\n{'# by hand' + chr(10) if comment else ''}{values.shape[1]} {values.shape[0]}\n"
    head += f"{white}\n" if number not in (1, 4) else ""
    if number == 4:
        body = np.packbits(values, axis=1).tobytes()
    elif number < 4:
        body = "\n".join(" ".join(map(str, row)) for row in values.reshape(len(values), -1).tolist()).encode()
    else:
        body = values.astype(np.uint8 if white < 256 else ">u2").tobytes()
    return head.encode() + body


def j2k(values: np.ndarray, level: int = 0, **options: Any) -> bytes:
    return bytes(imagecodecs.jpeg2k_encode(values, level=level, **options))


def seen(colours: np.ndarray) -> np.ndarray:
    return colours * (ALPHA[..., None] / 255)


RGBA = np.dstack([COLOUR, ALPHA])
# What it is called: the file, how it looks, and by how many levels of 255 it may be off.
READ: dict[str, tuple[Callable[[], bytes], np.ndarray, int]] = {
    "PNG": (lambda: pillow(COLOUR, "PNG"), COLOUR, 0),
    "PNG, 16 bits": (lambda: pillow(DEEP, "PNG"), grey(DEEP, 65535), 1),
    "JPEG": (lambda: pillow(COLOUR, "JPEG", quality=95), COLOUR, 8),
    "BMP": (lambda: pillow(COLOUR, "BMP"), COLOUR, 0),
    "WebP, lossy": (lambda: pillow(COLOUR, "WEBP", quality=95), COLOUR, 8),
    "WebP, lossless": (lambda: pillow(COLOUR, "WEBP", lossless=True), COLOUR, 0),
    "WebP, grey": (lambda: pillow(GREY, "WEBP", "RGB", lossless=True), grey(GREY), 0),
    "WebP, lossless with alpha": (lambda: pillow(RGBA, "WEBP", lossless=True), seen(COLOUR), 0),
    "WebP, lossy with alpha": (lambda: pillow(RGBA, "WEBP", quality=98, alpha_quality=100), seen(COLOUR), 8),
    "WebP, turned by EXIF": (
        lambda: pillow(COLOUR, "WEBP", lossless=True, exif=turned().tobytes()),
        np.rot90(COLOUR, -1),
        0,
    ),
    "AVIF": (lambda: pillow(COLOUR, "AVIF", quality=95, subsampling="4:4:4"), COLOUR, 4),
    "AVIF, subsampled": (lambda: pillow(COLOUR, "AVIF", quality=95), COLOUR, 6),
    "AVIF, grey": (lambda: pillow(GREY, "AVIF", quality=95), grey(GREY), 4),
    "AVIF with alpha": (lambda: pillow(RGBA, "AVIF", quality=95), seen(COLOUR), 6),
    "AVIF, turned": (lambda: pillow(COLOUR, "AVIF", quality=95, exif=turned()), np.rot90(COLOUR, -1), 6),
    "JP2, reversible": (lambda: j2k(COLOUR, reversible=True, codecformat="jp2"), COLOUR, 0),
    "JP2, lossy": (lambda: j2k(COLOUR, 50, codecformat="jp2"), COLOUR, 6),
    "JP2, grey": (lambda: pillow(GREY, "JPEG2000"), grey(GREY), 0),
    "JP2, grey of 16 bits": (lambda: j2k(DEEP, reversible=True, codecformat="jp2"), grey(DEEP, 65535), 1),
    "JP2, grey of 12 bits": (
        lambda: j2k(TWELVE, reversible=True, codecformat="jp2", bitspersample=12),
        grey(TWELVE, 4095),
        1,
    ),
    "JP2 with alpha": (lambda: pillow(RGBA, "JPEG2000"), seen(COLOUR), 0),
    "JP2 of tiles": (lambda: pillow(COLOUR, "JPEG2000", tile_size=(16, 16)), COLOUR, 0),
    "J2K, a bare codestream": (lambda: j2k(COLOUR, reversible=True, codecformat="j2k"), COLOUR, 0),
    "PBM, plain": (lambda: pnm(1, BITS), grey(1 - BITS, 1), 0),
    "PBM, raw": (lambda: pnm(4, BITS), grey(1 - BITS, 1), 0),
    "PGM, plain": (lambda: pnm(2, GREY, 255), grey(GREY), 0),
    "PGM, plain, of 12 bits": (lambda: pnm(2, TWELVE, 4095), grey(TWELVE, 4095), 1),
    "PGM, raw": (lambda: pnm(5, GREY, 255), grey(GREY), 0),
    "PGM with a comment": (lambda: pnm(5, GREY, 255, comment=True), grey(GREY), 0),
    "PGM of 4 bits": (lambda: pnm(5, GREY // 16, 15), grey(GREY // 16, 15), 1),
    "PGM of 12 bits": (lambda: pnm(5, TWELVE, 4095), grey(TWELVE, 4095), 1),
    "PGM of 16 bits": (lambda: pnm(5, DEEP, 65535), grey(DEEP, 65535), 1),
    "PPM, plain": (lambda: pnm(3, COLOUR, 255), COLOUR, 0),
    "PPM, raw": (lambda: pnm(6, COLOUR, 255), COLOUR, 0),
    "PPM of 16 bits": (lambda: pnm(6, COLOUR.astype(np.uint16) * 257, 65535), COLOUR, 0),
    "PPM, by Pillow": (lambda: pillow(COLOUR, "PPM"), COLOUR, 0),
    "TIFF of tiles": (lambda: Tiff(COLOUR, 8, 2, tile=16).file(), COLOUR, 0),
    "TIFF of tiles, deflate": (lambda: Tiff(COLOUR, 8, 2, tile=16, codec="deflate").file(), COLOUR, 0),
    "TIFF of tiles, 16 bits": (
        lambda: Tiff(DEEP[..., None], 16, tile=16, predictor=2, codec="lzw").file(),
        grey(DEEP, 65535),
        1,
    ),
    "BigTIFF": (lambda: Tiff(COLOUR, 8, 2, big=True).file(), COLOUR, 0),
    "BigTIFF of tiles, big-endian": (
        lambda: Tiff(DEEP[..., None], 16, tile=16, big=True, order=">").file(),
        grey(DEEP, 65535),
        1,
    ),
    "TIFF of 12 bits": (lambda: Tiff(TWELVE[..., None], 12).file(), grey(TWELVE, 4095), 1),
}


@pytest.mark.parametrize("name", READ)
def test_a_variant_looks_as_it_was_written(name: str) -> None:
    made, truth, off = READ[name]
    image = decode(made())
    assert image.dtype == np.uint8
    assert image.shape == truth.shape
    assert np.abs(image - np.rint(truth)).max() <= off
    with pytest.raises(ImageError, match="more than the limit of 100"):
        decode(made(), max_pixels=100)


def avif_of_the_general_brand() -> bytes:
    data = pillow(COLOUR, "AVIF", quality=95)
    size = struct.unpack_from(">I", data)[0]
    assert b"mif1" in data[16:size]
    return data[:8] + b"mif1" + data[12:16] + data[16:size].replace(b"mif1", b"avif") + data[size:]


def test_an_avif_whose_first_brand_is_the_containers() -> None:
    data = avif_of_the_general_brand()
    assert np.abs(decode(data) - COLOUR.astype(float)).max() <= 6
    heic = data[:8] + data[8:40].replace(b"avif", b"heic").replace(b"avis", b"heic") + data[40:]
    with pytest.raises(ImageError, match="this is no PNG"):
        decode(heic)


def with_bytes(data: bytes, place: int, new: bytes) -> bytes:
    return data[:place] + new + data[place + len(new) :]


def j2k_of_signed() -> bytes:
    data = j2k(GREY, reversible=True, codecformat="j2k")
    return with_bytes(data, 42, bytes([data[42] | 0x80]))


def j2k_without_a_tile() -> bytes:
    data = pillow(COLOUR, "JPEG2000", tile_size=(16, 16), no_jp2=True)
    first = data.index(b"\xff\x90\x00\x0a")
    return data[:first] + data[first + struct.unpack_from(">I", data, first + 6)[0] :]


# What is refused, and what is said of it.
REFUSED: dict[str, tuple[Callable[[], bytes], str]] = {
    "GIF": (lambda: pillow(GREY, "GIF"), "this is no PNG, JPEG, BMP, TIFF, WebP, JPEG 2000, AVIF, PNM, DICOM file"),
    "WebP, three frames": (lambda: frames("WEBP", 3), "animation of 3 frames; save each frame"),
    "AVIF, three frames": (lambda: frames("AVIF", 3), "animation of 3 frames; save each frame"),
    "WebP, cut": (lambda: pillow(COLOUR, "WEBP", lossless=True)[:-20], "truncated"),
    "AVIF, cut": (lambda: pillow(COLOUR, "AVIF")[:-20], "damaged"),
    "JP2, cut": (lambda: pillow(COLOUR, "JPEG2000")[:-20], "truncated"),
    "J2K, a tile is missing": (j2k_without_a_tile, r"of its 12 tiles there are 11"),
    "J2K of two channels": (lambda: pillow(RGBA, "JPEG2000", "LA", no_jp2=True), "2 channels of unknown meaning"),
    "J2K of four channels": (lambda: pillow(RGBA, "JPEG2000", no_jp2=True), "4 channels of unknown meaning"),
    "J2K of signed numbers": (j2k_of_signed, "signed numbers"),
    "JP2 of CMYK": (lambda: pillow(COLOUR, "JPEG2000", "CMYK"), "4 channels of colour space 12"),
    "JP2, a fourth channel of no meaning": (
        lambda: pillow(RGBA, "JPEG2000").replace(b"cdef", b"free"),
        "4 channels of unusual meaning",
    ),
    "PGM, cut": (lambda: pnm(5, GREY, 255)[:-1], "truncated"),
    "PGM, plain, cut": (lambda: pnm(2, GREY, 255)[:-5], "truncated"),
    "PGM of 32 bits": (lambda: pnm(5, GREY, 70000), "highest value is 70000"),
    "PGM beyond its own white": (lambda: pnm(5, GREY, 100), "more than its highest value of 100"),
    "PGM, plain, of negatives": (lambda: pnm(2, GREY.astype(int) - 9, 255), "something else than whole numbers"),
    "PGM, two in a file": (lambda: 2 * pnm(5, GREY, 255), "several images"),
    "PGM without a size": (lambda: b"P5\n12", "no width and height"),
    "PGM of no pixels": (lambda: b"P5\n0 7\n255\n", "there is nothing in it"),
    "PFM": (lambda: b"Pf\n2 2\n-1.0\n" + bytes(16), "this is no PNG"),
    "TIFF of several pages": (lambda: frames("TIFF", 3), "holds 3 pages"),
    "TIFF of tiles, cut": (lambda: cut_tiff(), "truncated"),
}


def cut_tiff() -> bytes:
    data = Tiff(COLOUR, 8, 2, tile=16, codec="deflate").file()
    place = data.index(struct.pack("<HH", 325, 4)) + 8  # sizes of tiles
    sizes = struct.unpack_from("<I", data, place)[0]
    return with_bytes(data, sizes, struct.pack("<I", 12))


@pytest.mark.parametrize("name", REFUSED)
def test_a_variant_that_is_refused_says_why(name: str) -> None:
    made, said = REFUSED[name]
    with pytest.raises(ImageError, match=said):
        decode(made())


@pytest.mark.parametrize("name", [name for name in READ if name.startswith(("WebP", "AVIF", "J", "P"))])
def test_damage_is_an_image_error_or_another_picture(name: str, capfd: pytest.CaptureFixture[str]) -> None:
    data = READ[name][0]()
    rng = np.random.default_rng(1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for number in range(40):
            damaged = bytearray(data[: len(data) if number % 2 else int(rng.integers(len(data)))])
            for place in rng.integers(0, len(damaged), 4) if damaged else ():
                damaged[place] = rng.integers(256)
            for reader in (decode, decode_mask):
                with contextlib.suppress(ImageError):
                    reader(bytes(damaged), 10_000)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    "kind", ["PNG", "WebP, lossless", "WebP, lossy", "AVIF", "JP2", "JP2, lossy", "PGM", "PBM", "TIFF"]
)
def test_masks_of_all_kinds(kind: str) -> None:
    marked = np.zeros((HEIGHT, WIDTH), bool)
    marked[8:24, 8:40] = True
    white = marked.astype(np.uint8) * 255
    files = {
        "WebP, lossless": lambda: pillow(white, "WEBP", "RGB", lossless=True),
        "WebP, lossy": lambda: pillow(white, "WEBP", "RGB", quality=90),
        "AVIF": lambda: pillow(white, "AVIF", quality=90),
        "JP2": lambda: j2k(marked.astype(np.uint8), reversible=True, codecformat="jp2"),  # 1 of 255
        "JP2, lossy": lambda: j2k(white, 40, codecformat="jp2"),
        "PGM": lambda: pnm(5, marked.astype(np.uint8), 255),
        "PBM": lambda: pnm(4, 1 - marked.astype(np.uint8)),
        "TIFF": lambda: Tiff(white[..., None], tile=16).file(),
        "PNG": lambda: pillow(white, "PNG"),
    }
    np.testing.assert_array_equal(decode_mask(files[kind]()), marked)


def test_a_webps_size_is_judged_before_there_is_room_for_it() -> None:
    data = pillow(RGBA, "WEBP", lossless=True, exif=turned().tobytes())
    assert data[12:16] == b"VP8X"
    huge = with_bytes(data, 24, b"\xff\xff\xff\xff\xff\xff")
    with pytest.raises(ImageError, match="16777216 x 16777216 pixels, more than the limit"):
        decode(huge)


def test_pillows_own_limit_refuses_none_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, (made, truth, _) in READ.items():
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
        assert decode(made()).shape == truth.shape, name


def test_names_of_images() -> None:
    endings = "png jpg jpeg bmp tif tiff webp avif jp2 j2k j2c jpc pgm ppm pnm pbm"
    for ending in endings.split():
        assert is_image(f"bolt/train/good/1.{ending}")
        assert is_image(f"1.{ending.upper()}")
    for ending in ("gif", "txt", "npy", "pdf"):
        assert not is_image(f"1.{ending}")
