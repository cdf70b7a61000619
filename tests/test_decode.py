"""Decoding: every kind of file that an archive holds, against arrays computed by hand."""

from __future__ import annotations

import io
import struct
import threading
import warnings
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import Image
from PIL.TiffImagePlugin import AppendingTiffWriter

from raydiff.errors import ImageError
from raydiff.images.decode import decode, decode_mask, decode_noted, resize

RNG = np.random.default_rng(0)
COLOUR = RNG.integers(0, 256, (5, 7, 3), dtype=np.uint8)
GREY = COLOUR[..., 0]
DEEP = np.array([[0, 128, 129, 256, 385, 386, 32768, 65406, 65407, 65535]], np.uint16)


def file(array: np.ndarray | Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    image = array if isinstance(array, Image.Image) else Image.fromarray(array)
    sink = io.BytesIO()
    image.save(sink, kind, **options)
    return sink.getvalue()


def grey(array: np.ndarray) -> np.ndarray:
    return np.repeat(array[..., None], 3, axis=2)


def png(width: int, height: int, depth: int, colour_type: int, rows: bytes) -> bytes:
    """A PNG written by hand: Pillow writes no 16-bit colour and no impossible sizes."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def tiff(values: np.ndarray, bits: int, photometric: int, data: bytes | None = None) -> bytes:
    """A little-endian grey TIFF written by hand, for the depths that Pillow does not write."""
    height, width = values.shape
    data = values.tobytes() if data is None else data
    tags = [(256, width), (257, height), (258, bits), (259, 1), (262, photometric), (273, 8)]
    tags += [(277, 1), (278, height), (279, len(data)), (339, 3 if values.dtype.kind == "f" else 1)]
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    return b"II*\0" + struct.pack("<I", 8 + len(data)) + data + struct.pack("<H", len(tags)) + entries + bytes(4)


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF"])
def test_eight_bit_colour_and_grey_come_back_as_written(kind: str) -> None:
    image = decode(file(COLOUR, kind))
    assert image.dtype == np.uint8
    assert image.flags.c_contiguous
    assert image.flags.writeable  # torch warns about arrays that are not
    np.testing.assert_array_equal(image, COLOUR)
    np.testing.assert_array_equal(decode(file(GREY, kind)), grey(GREY))


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_adobe_deflate", "packbits"])
def test_compressed_tiff(compression: str) -> None:
    np.testing.assert_array_equal(decode(file(COLOUR, "TIFF", compression=compression)), COLOUR)


def test_jpeg_is_near_what_was_written() -> None:
    smooth = np.linspace(0, 255, 32 * 32 * 3).reshape(32, 32, 3).astype(np.uint8)
    assert np.abs(decode(file(smooth, "JPEG", quality=95)).astype(int) - smooth).max() <= 12
    flat = np.full((16, 16), 77, np.uint8)
    np.testing.assert_array_equal(decode(file(flat, "JPEG")), grey(flat))


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF"])
def test_one_bit(kind: str) -> None:
    bits = GREY > 128
    np.testing.assert_array_equal(decode(file(bits, kind)), grey(bits.astype(np.uint8) * 255))


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF"])
def test_a_palette_is_looked_up(kind: str) -> None:
    image = Image.fromarray(np.array([[0, 1, 2], [2, 1, 0]], np.uint8))
    image.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    np.testing.assert_array_equal(decode(file(image, kind))[0], [[10, 20, 30], [40, 50, 60], [70, 80, 90]])


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bit_grey_is_scaled_by_its_full_range(kind: str) -> None:
    expected = np.rint(DEEP / 257).astype(np.uint8)
    np.testing.assert_array_equal(decode(file(DEEP, kind)), grey(expected))


def test_sixteen_bit_grey_in_the_other_byte_order() -> None:
    image = Image.frombytes("I;16B", (10, 1), DEEP.astype(">u2").tobytes())
    np.testing.assert_array_equal(decode(file(image, "TIFF")), grey(np.rint(DEEP / 257).astype(np.uint8)))


@pytest.mark.parametrize(("colour_type", "channels"), [(2, 3), (4, 2), (6, 4)])
def test_sixteen_bit_colour_is_its_high_byte_and_at_most_one_level_off(colour_type: int, channels: int) -> None:
    values = np.repeat(DEEP[..., None], channels, axis=2).astype(">u2")
    if channels in (2, 4):
        values[..., -1] = 65535  # opaque
    image = decode(png(10, 1, 16, colour_type, b"\0" + values.tobytes()))
    np.testing.assert_array_equal(image, grey((DEEP >> 8).astype(np.uint8)))
    assert np.abs(image.astype(int) - grey(np.rint(DEEP / 257))).max() <= 1


def test_twelve_bit_tiff_has_its_own_full_range() -> None:
    values = np.array([[0, 2048, 4095, 9]], np.uint16)
    packed = bytes([0x00, 0x08, 0x00, 0xFF, 0xF0, 0x09])  # two values in three bytes
    image = decode(tiff(values, 12, 1, packed))
    np.testing.assert_array_equal(image, grey(np.rint(values / 4095 * 255).astype(np.uint8)))


@pytest.mark.parametrize(
    ("values", "bits"),
    [
        (np.array([[0, 255]], np.uint8), 8),
        (np.array([[0, 65535]], np.uint16), 16),
        (np.array([[0.0, 1.0]], np.float32), 32),
    ],
)
def test_tiff_whose_zero_is_white(values: np.ndarray, bits: int) -> None:
    np.testing.assert_array_equal(decode(tiff(values, bits, 1))[0, :, 0], [0, 255])
    np.testing.assert_array_equal(decode(tiff(values, bits, 0))[0, :, 0], [255, 0])
    np.testing.assert_array_equal(decode_mask(tiff(values, bits, 0)), [[True, False]])


def test_float_within_0_and_1_is_scaled() -> None:
    values = np.array([[0.0, 0.25, 0.5, 1.0]], np.float32)
    np.testing.assert_array_equal(decode(file(values, "TIFF")), grey(np.array([[0, 64, 128, 255]], np.uint8)))


@pytest.mark.parametrize("value", [1.001, -0.001, 200.0, np.nan, np.inf])
def test_float_beyond_0_and_1_is_refused(value: float) -> None:
    with pytest.raises(ImageError, match="not all within 0 to 1"):
        decode(file(np.array([[0.5, value]], np.float32), "TIFF"))


def test_32_bit_integers_are_refused_as_images_but_not_as_masks() -> None:
    data = file(np.array([[0, 70000, 1]], np.int32), "TIFF")
    with pytest.raises(ImageError, match="no agreed range"):
        decode(data)
    np.testing.assert_array_equal(decode_mask(data), [[False, True, True]])


def test_alpha_is_composited_over_black() -> None:
    values = np.dstack([COLOUR, np.full((5, 7), 255, np.uint8)])
    for kind in ("PNG", "TIFF"):
        np.testing.assert_array_equal(decode(file(values, kind)), COLOUR)
    values[0, :, 3] = 0
    values[1, :, 3] = 128
    image = decode(file(values))
    assert not image[0].any()
    assert np.abs(image[1] - COLOUR[1] * (128 / 255)).max() <= 0.5 + 1e-9
    np.testing.assert_array_equal(image[2:], COLOUR[2:])


def test_what_is_odd_about_a_file_is_noted() -> None:
    rng = np.random.default_rng(5)
    image = rng.integers(1, 256, (20, 30, 4), np.uint8)
    image[..., 3] = 0
    found = decode_noted(file(Image.fromarray(image, "RGBA"), "PNG"))
    np.testing.assert_array_equal(found.pixels, image[..., :3])
    assert "alpha is zero everywhere" in found.note
    image[0, 0, 3] = 1
    assert decode_noted(file(Image.fromarray(image, "RGBA"), "PNG")).note == ""
    jpeg = file(Image.fromarray(image[..., :3]), "JPEG")
    assert decode_noted(jpeg).note == ""
    endless = decode_noted(jpeg[:-2])
    assert "lacks its end marker" in endless.note
    np.testing.assert_array_equal(endless.pixels, decode(jpeg))


def test_grey_and_palette_transparency() -> None:
    values = np.dstack([GREY, np.where(GREY > 100, 255, 0).astype(np.uint8)])
    expected = grey(np.where(GREY > 100, GREY, 0))
    np.testing.assert_array_equal(decode(file(values)), expected)

    image = Image.fromarray(np.array([[0, 1]], np.uint8))
    image.putpalette([10, 20, 30, 40, 50, 60])
    np.testing.assert_array_equal(decode(file(image, transparency=0)), [[[0, 0, 0], [40, 50, 60]]])
    np.testing.assert_array_equal(decode(file(image, transparency=b"\xff\x00")), [[[10, 20, 30], [0, 0, 0]]])


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_cmyk(kind: str) -> None:
    ink = np.zeros((16, 16, 4), np.uint8)
    ink[:8, :, 0] = 255  # cyan above, paper below
    image = decode(file(Image.fromarray(ink, "CMYK"), kind)).astype(int)
    assert np.abs(image[:6] - [0, 255, 255]).max() <= 8
    assert np.abs(image[10:] - 255).max() <= 8


def test_lab_is_refused() -> None:
    with pytest.raises(ImageError, match="LAB"):
        decode(file(Image.new("LAB", (3, 3)), "TIFF"))


# The stored picture turned upright (EXIF 2.3, 4.6.4: where its row 0 and column 0 are to be seen).
UPRIGHT = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: np.transpose(a, (1, 0, 2)),
    6: lambda a: np.transpose(a[::-1], (1, 0, 2)),
    7: lambda a: np.transpose(a[::-1, ::-1], (1, 0, 2)),
    8: lambda a: np.transpose(a, (1, 0, 2))[::-1],
}


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize("kind", ["PNG", "TIFF", "JPEG"])
def test_orientation_is_applied(kind: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[274] = orientation
    blocks = np.kron(np.arange(6, dtype=np.uint8).reshape(2, 3) * 40, np.ones((8, 8), np.uint8))
    expected = UPRIGHT[orientation](grey(blocks))
    image = decode(file(grey(blocks), kind, exif=exif))
    assert image.shape == expected.shape
    assert np.abs(image.astype(int) - expected).max() <= 3  # JPEG
    mask = decode_mask(file(blocks > 100, "PNG", exif=exif))
    np.testing.assert_array_equal(mask, expected[..., 0] > 100)


def test_orientation_of_sixteen_bit_grey() -> None:
    exif = Image.Exif()
    exif[274] = 6
    for kind in ("PNG", "TIFF"):
        expected = np.rint(DEEP / 257).astype(np.uint8).T
        np.testing.assert_array_equal(decode(file(DEEP, kind, exif=exif)), grey(expected))


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_damaged_exif_data_says_nothing_about_the_pixels(kind: str) -> None:
    flat = np.full((8, 8, 3), 77, np.uint8)
    np.testing.assert_array_equal(decode(file(flat, kind, exif=b"Exif\0\0no TIFF header follows")), flat)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP", "TIFF"])
def test_one_pixel(kind: str) -> None:
    np.testing.assert_array_equal(decode(file(np.full((1, 1, 3), 200, np.uint8), kind)), [[[200, 200, 200]]])


def test_an_empty_file_and_one_of_another_kind() -> None:
    with pytest.raises(ImageError, match="the file is empty"):
        decode(b"")
    with pytest.raises(ImageError, match=r"no PNG, JPEG, BMP, TIFF.* file.*b'dear all"):
        decode(b"dear all, the pictures are late")
    with pytest.raises(ImageError, match="GIF8"):
        decode(file(GREY, "GIF"))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP", "TIFF"])
@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.9])
def test_a_truncated_file_is_an_error(kind: str, share: float) -> None:
    data = file(RNG.integers(0, 256, (64, 64, 3), dtype=np.uint8), kind)
    with pytest.raises(ImageError, match=kind):
        decode(data[: max(8, int(len(data) * share))])


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP", "TIFF"])
def test_damaged_files_give_an_image_or_an_image_error(kind: str) -> None:
    """Bytes overwritten at random: whatever Pillow raises becomes an ImageError."""
    data = file(COLOUR, kind)
    rng = np.random.default_rng(1)
    failed = 0
    for _ in range(300):
        damaged = bytearray(data)
        for place in rng.integers(0, len(data), 4):
            damaged[place] = rng.integers(256)
        try:
            image = decode(bytes(damaged), max_pixels=10_000)
        except ImageError:
            failed += 1
        else:
            assert image.dtype == np.uint8
            assert image.shape[2] == 3
    assert failed > 10


def test_the_size_is_judged_by_the_header_alone() -> None:
    with pytest.raises(ImageError, match="100000 x 100000 pixels, more than the limit of 200,000,000"):
        decode(png(100_000, 100_000, 8, 0, b""))
    with pytest.raises(ImageError, match="limit of 34;"):
        decode(file(COLOUR), max_pixels=34)
    assert decode(file(COLOUR), max_pixels=35).shape == (5, 7, 3)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP", "TIFF"])
def test_pillows_own_limit_neither_warns_nor_refuses(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for limit in (10, 30):  # Pillow refuses 35 pixels at 10 and warns at 30
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        assert decode(file(COLOUR, kind)).shape == (5, 7, 3)


def test_a_tiff_of_several_pages_is_an_error_but_a_thumbnail_is_no_page() -> None:
    pages = [Image.fromarray(COLOUR), Image.fromarray(COLOUR[::-1].copy())]
    with pytest.raises(ImageError, match="holds 2 pages"):
        decode(file(pages[0], "TIFF", save_all=True, append_images=pages[1:]))

    small = pages[0].resize((2, 2))
    for order in ([pages[0], small], [small, pages[0]]):
        sink = io.BytesIO()
        with AppendingTiffWriter(sink) as writer:
            for page in order:
                page.save(writer, "TIFF", tiffinfo={254: 1} if page is small else {})
                writer.newFrame()
        np.testing.assert_array_equal(decode(sink.getvalue()), COLOUR)
        with pytest.raises(ImageError, match="limit of 34;"):  # of the page, not of its thumbnail
            decode(sink.getvalue(), max_pixels=34)


def test_remarks_of_pillow_do_not_leak() -> None:
    """A TIFF with a tag that points beyond the file makes Pillow warn; the pixels are sound."""
    data = bytearray(file(GREY, "TIFF", tiffinfo={305: "a program with a longer name"}))
    entry = data.index(struct.pack("<HH", 305, 2))
    data[entry + 8 : entry + 12] = struct.pack("<I", len(data) - 3)
    with warnings.catch_warnings(record=True) as remarks:
        warnings.simplefilter("always")
        Image.open(io.BytesIO(bytes(data))).load()
    assert remarks  # else this test shows nothing
    np.testing.assert_array_equal(decode(bytes(data)), grey(GREY))


def test_threads_decode_side_by_side() -> None:
    files = [file(np.full((20, 20), value, np.uint8), "TIFF") for value in range(64)]
    results: dict[int, int] = {}

    def work(first: int) -> None:
        for value in range(first, 64, 8):
            results[value] = int(decode(files[value]).mean())

    threads = [threading.Thread(target=work, args=(first,)) for first in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {value: value for value in range(64)}


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_mask_pixels_of_any_depth_that_are_not_black_are_anomalous(kind: str) -> None:
    expected = np.array([[False, True, True], [True, False, True]])
    for values in (expected, expected * np.uint8(1), expected * np.uint8(255), expected * np.uint16(1)):
        mask = decode_mask(file(np.asarray(values), kind))
        assert mask.dtype == np.bool_
        np.testing.assert_array_equal(mask, expected)


def test_masks_in_colour_and_with_alpha() -> None:
    values = np.zeros((2, 2, 4), np.uint8)
    values[..., 3] = 255
    values[0, 1] = (0, 0, 9, 255)
    values[1, 1] = (255, 255, 255, 0)  # white, but nobody can see it
    np.testing.assert_array_equal(decode_mask(file(values)), [[False, True], [False, False]])


def test_a_jpeg_mask_is_cut_at_half() -> None:
    expected = np.zeros((32, 32), bool)
    expected[5:20, 9:27] = True
    data = file(expected.astype(np.uint8) * 255, "JPEG", quality=75)
    assert (decode(data)[..., 0][~expected] > 0).any()  # the blur that is meant
    np.testing.assert_array_equal(decode_mask(data), expected)


def test_resize_is_bilinear_and_antialiased() -> None:
    blocks = RNG.integers(0, 256, (4, 4, 3), dtype=np.uint8)
    np.testing.assert_array_equal(resize(blocks, 4), blocks)
    flat = resize(np.full((9, 5, 3), 90, np.uint8), 7)
    assert flat.shape == (7, 7, 3)
    assert flat.dtype == np.uint8
    assert (flat == 90).all()
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 255  # without antialiasing this becomes all black or all white
    assert 120 <= resize(stripes, 8).mean() <= 135
    # Halving with the triangle filter: weights 1, 3, 3, 1 of 8 around each middle.
    row = np.array([0, 0, 80, 160, 240, 240], np.uint8)
    image = resize(np.repeat(np.repeat(row[None, :, None], 6, 0), 3, 2), 3)
    np.testing.assert_array_equal(image[1, 1], [120, 120, 120])
    assert image[1, 0, 0] == round((0 * 3 + 0 * 3 + 80) / 7)
