"""Every variety of file against the numbers that were written: each is right to one level, or an error row.

The writers are in `image_files.py`; what the numbers should look like is said once more here. `tifffile` confirms that
the written TIFFs are what they claim to be.
"""

from __future__ import annotations

import io
import itertools
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

import imagecodecs
import numpy as np
import pytest
import tifffile
from image_files import Tiff, bmp, pack, png, png_chunk
from PIL import Image

from raydiff.errors import ImageError
from raydiff.images.decode import decode, decode_mask

HEIGHT, WIDTH = 21, 37  # two by three tiles of 16, the last of them cut
Cell = tuple[str, bytes, np.ndarray | None]


def check(cells: Iterable[Cell]) -> int:
    """How many cells were right. Those without a truth must be refused, all others read."""
    wrong, right = [], 0
    for name, data, truth in cells:
        try:
            image = decode(data)
        except ImageError as error:
            if truth is not None:
                wrong.append(f"{name}: refused: {error}")
            continue
        if truth is None or image.shape != truth.shape or np.abs(image - np.rint(truth)).max() > 1:
            wrong.append(f"{name}: read {'though it should not be' if truth is None else 'wrong'}")
        right += truth is not None
    assert not wrong, "\n".join(wrong)
    return right


def grey(values: np.ndarray) -> np.ndarray:
    return np.repeat(np.asarray(values, float)[..., None], 3, axis=2)


def over_black(colours: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    return colours * alpha[..., None] if alpha.any() else colours


# ---- TIFF

FORMATS = [(bits, 1) for bits in (1, 2, 4, 8, 10, 12, 14, 16, 32, 64)]
FORMATS += [(8, 2), (16, 2), (32, 2), (16, 3), (32, 3), (64, 3)]
PLAIN = ["none", "lzw", "deflate", "old deflate", "packbits", "lzma", "zstd"]
LAYOUTS = list(itertools.product("<>", (False, True), (0, 16)))
# Channels, photometric interpretation, extra samples, whether planar.
KINDS: dict[str, tuple[int, int, tuple[int, ...], bool]] = {
    "grey, white is zero": (1, 0, (), False),
    "grey": (1, 1, (), False),
    "rgb": (3, 2, (), False),
    "rgb planar": (3, 2, (), True),
    "palette": (1, 3, (), False),
    "cmyk": (4, 5, (), False),
    "cmyk planar": (4, 5, (), True),
    "grey, premultiplied": (2, 1, (1,), False),
    "grey with alpha": (2, 1, (2,), False),
    "grey with alpha planar": (2, 1, (2,), True),
    "rgb, premultiplied": (4, 2, (1,), False),
    "rgb with alpha": (4, 2, (2,), False),
    "rgb with alpha planar": (4, 2, (2,), True),
    "rgb, alpha is zero": (4, 2, (2,), False),
    "rgb and one": (4, 2, (0,), False),
    "rgb and one not declared": (4, 2, (), False),
    "rgb, one and alpha": (5, 2, (0, 2), False),
}
REFUSED: dict[str, tuple[int, int, tuple[int, ...], bool]] = {
    "two greys": (2, 1, (0,), False),
    "two greys not declared": (2, 1, (), False),
    "four greys planar": (4, 1, (0, 0, 0), True),
    "ycbcr without jpeg": (3, 6, (), False),
    "palette with alpha": (2, 3, (2,), False),
    "cmyk with alpha": (5, 5, (2,), False),
    "lab": (3, 8, (), False),
    "colour filter array": (1, 32803, (), False),
    "transparency mask": (1, 4, (), False),
}


def codecs(bits: int, sample_format: int) -> list[tuple[str, int]]:
    found = [(codec, 1) for codec in (PLAIN if bits in (1, 8, 16) else PLAIN[:3])]
    if sample_format == 3:
        found += [("lzw", 3), ("deflate", 3)]
    elif bits in (8, 16, 32, 64):
        found += [("lzw", 2), ("deflate", 2)]
    return found


def values(channels: int, bits: int, sample_format: int, rng: np.random.Generator) -> np.ndarray:
    shape = (HEIGHT, WIDTH, channels)
    kind = np.dtype(f"{' uif'[sample_format]}{max(8, 1 << (bits - 1).bit_length()) // 8}")
    if sample_format == 3:
        return rng.random(shape).astype(kind)
    low = -(2 ** (bits - 1)) if sample_format == 2 else 0
    return rng.integers(low, low + 2**bits, shape, dtype=kind)


def looks(stored: Tiff) -> np.ndarray | None:
    """How it looks, 0 to 255; None if nobody can say."""
    if stored.sample_format == 2 or (stored.sample_format == 1 and stored.bits > 16):
        return None
    share = stored.samples.astype(float) / (1 if stored.sample_format == 3 else 2**stored.bits - 1)
    colours = {0: 1, 1: 1, 2: 3, 3: 1, 5: 4}[stored.photometric]
    if stored.photometric == 5 and (stored.sample_format == 3 or stored.bits not in (8, 16)):
        return None  # not a depth that anybody writes
    if stored.photometric in (0, 1):
        shown = np.repeat(share[..., :1] if stored.photometric else 1 - share[..., :1], 3, axis=2)
    elif stored.photometric == 3:
        shown = np.reshape(stored.colour_map, (3, -1)).T[stored.samples[..., 0]] / 65535
    elif stored.photometric == 5:
        shown = (1 - share[..., :3]) * (1 - share[..., 3:])
    else:
        shown = share[..., :3]
    if 2 in stored.extra:
        shown = over_black(shown, share[..., colours + stored.extra.index(2)])
    return shown * 255


def tiffs(
    name: str, channels: int, photometric: int, extra: tuple[int, ...], planar: bool
) -> Iterator[tuple[str, Tiff]]:
    rng = np.random.default_rng(len(name))
    layout = itertools.cycle(LAYOUTS)
    for bits, sample_format in FORMATS:
        if photometric == 3 and (sample_format != 1 or bits not in (1, 2, 4, 8, 16)):
            continue
        samples = values(channels, bits, sample_format, rng)
        if extra == (1,):
            samples[..., :-1] = np.minimum(samples[..., :-1], samples[..., -1:])
        if "zero" in name and extra:
            samples[..., -1] = 0
        colour_map = tuple(rng.integers(0, 65536, 3 * 2**bits).tolist()) if photometric == 3 else ()
        for codec, predictor in codecs(bits, sample_format):
            order, big, tile = next(layout)
            page = Tiff(samples, bits, photometric, sample_format, extra, colour_map, planar, codec, predictor)
            where = f"{name} {' uif'[sample_format]}{bits} {codec} {predictor} {order} {big} {tile}"
            yield where, page.with_(order=order, big=big, tile=tile)
        next(layout)  # else a codec would always have the same


@pytest.mark.parametrize("kind", KINDS)
def test_tiff(kind: str) -> None:
    assert check((name, page.file(), looks(page)) for name, page in tiffs(kind, *KINDS[kind])) > 15


@pytest.mark.parametrize("kind", REFUSED)
def test_tiff_of_which_nobody_can_say_how_it_looks(kind: str) -> None:
    assert check((name, page.file(), None) for name, page in [*tiffs(kind, *REFUSED[kind])][::5]) == 0


@pytest.mark.parametrize(("order", "big", "tile"), LAYOUTS)
def test_tiff_in_every_layout(order: str, big: bool, tile: int) -> None:
    """And as tifffile reads it: what the writer writes is what it says."""
    rng = np.random.default_rng(0)
    for kind, (bits, sample_format) in itertools.product(("grey", "rgb planar"), FORMATS):
        channels, photometric, extra, planar = KINDS[kind]
        samples = values(channels, bits, sample_format, rng)
        page = Tiff(samples, bits, photometric, sample_format, extra, (), planar, order=order, big=big, tile=tile)
        for codec, predictor in codecs(bits, sample_format)[1::3]:
            data = page.with_(codec=codec, predictor=predictor).file()
            check([(f"{kind} {bits} {sample_format} {codec}", data, looks(page))])
            read = tifffile.imread(io.BytesIO(data))
            np.testing.assert_array_equal(np.moveaxis(read, 0, 2) if planar else read[..., None], samples)


@pytest.mark.parametrize("photometric", [0, 1])
@pytest.mark.parametrize("fill_order", [1, 2])
def test_one_bit_of_tiff_by_fax_and_in_the_other_bit_order(fill_order: int, photometric: int) -> None:
    bits = np.random.default_rng(0).integers(0, 2, (HEIGHT, WIDTH, 1), dtype=np.uint8)
    page = Tiff(bits, 1, photometric, more={266: ("H", (fill_order,))})
    truth = grey(bits[..., 0] if photometric else 1 - bits[..., 0]) * 255
    data = bytearray(page.file())
    if fill_order == 2:
        size = sum(map(len, page.segments()))
        data[8 : 8 + size] = bytes(int(f"{byte:08b}"[::-1], 2) for byte in data[8 : 8 + size])
    check([("plain", bytes(data), truth)])
    if fill_order == 1:
        for compression in ("group3", "group4", "tiff_ccitt"):
            sink = io.BytesIO()
            Image.fromarray(bits[..., 0] > 0).save(sink, "TIFF", compression=compression)
            check([(compression, sink.getvalue(), grey(bits[..., 0]) * 255)])
    np.testing.assert_array_equal(decode_mask(bytes(data)), truth[..., 0] > 0)


def jpeg(stored: str, inside: str, subsampling: str, part: np.ndarray) -> bytes:
    part = np.ascontiguousarray(part[..., 0] if part.shape[2] == 1 else part)
    return bytes(imagecodecs.jpeg8_encode(part, 95, colorspace=stored, outcolorspace=inside, subsampling=subsampling))


def smooth(channels: int) -> np.ndarray:
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    waves = [np.sin(x / (5 + c) + c) * 50 + np.cos(y / (4 + c)) * 50 + 128 for c in range(channels)]
    return np.stack(waves, axis=2).astype(np.uint8)


@pytest.mark.parametrize(
    ("channels", "photometric", "planar", "stored", "inside", "subsampling"),
    [
        (1, 1, False, "GRAYSCALE", "GRAYSCALE", "444"),
        (1, 0, False, "GRAYSCALE", "GRAYSCALE", "444"),
        (3, 2, False, "RGB", "RGB", "444"),
        (3, 2, True, "GRAYSCALE", "GRAYSCALE", "444"),
        (3, 6, False, "RGB", "YCBCR", "444"),
        (3, 6, False, "RGB", "YCBCR", "422"),
        (3, 6, False, "RGB", "YCBCR", "420"),
        (4, 5, False, "CMYK", "CMYK", "444"),
    ],
)
def test_tiff_with_jpeg_inside(
    channels: int, photometric: int, planar: bool, stored: str, inside: str, subsampling: str
) -> None:
    samples, cells = smooth(channels), []
    encode = partial(jpeg, stored, inside, subsampling)
    for order, big, tile in LAYOUTS:
        page = Tiff(samples, 8, photometric, 1, (), (), planar, order=order, big=big, tile=tile, rows=16, jpeg=encode)
        decoded = [
            imagecodecs.jpeg8_decode(segment, colorspace=inside, outcolorspace=stored) for segment in page.segments()
        ]
        size = (16, tile or WIDTH)
        across, lines = -(-WIDTH // size[1]), [segment.reshape(*segment.shape[:2], -1) for segment in decoded]
        rows = [np.concatenate(lines[i : i + across], axis=1) for i in range(0, len(lines), across)]
        planes = [np.concatenate(rows[i : i + 2])[:HEIGHT, :WIDTH] for i in range(0, len(rows), 2)]
        whole = np.concatenate(planes, axis=2)
        truth = looks(page.with_(samples=whole, photometric=2 if photometric == 6 else photometric))
        cells.append((f"{order} {big} {tile}", page.file(), truth))
    assert check(cells) == 8


def test_tiff_with_jpeg_tables_and_with_a_jpeg_that_contradicts_it() -> None:
    for image in (Image.fromarray(smooth(1)[..., 0]), Image.fromarray(smooth(3))):
        sink = io.BytesIO()
        image.save(sink, "TIFF", compression="jpeg")
        read = tifffile.imread(io.BytesIO(sink.getvalue()))
        assert check([("tables", sink.getvalue(), grey(read) if read.ndim == 2 else read)]) == 1
    encode = partial(jpeg, "RGB", "YCBCR", "444")  # and so marked
    with pytest.raises(ImageError, match="the JPEG says otherwise"):
        decode(Tiff(smooth(3), 8, 2, rows=16, jpeg=encode).file())


# ---- PNG


@pytest.mark.parametrize("interlaced", [False, True])
def test_png(interlaced: bool) -> None:
    assert check(pngs(interlaced)) == 68


def pngs(interlaced: bool) -> Iterator[Cell]:
    rng = np.random.default_rng(2)
    large = zlib.compress(bytes(3_000_000))
    texts = {
        "large text": png_chunk(b"zTXt", b"Comment\0\0" + large) + png_chunk(b"iTXt", b"C\0\1\0\0\0" + large),
        "large profile": png_chunk(b"iCCP", b"profile\0\0" + large),
    }
    depths = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}
    for colour_type, depth in [(kind, depth) for kind, depths_ in depths.items() for depth in depths_]:
        full = 2**depth - 1
        for variety in ("plain", "transparent", "alpha zero", *texts):
            stored = rng.integers(0, full + 1, (HEIGHT, WIDTH, {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour_type]))
            palette = rng.integers(0, 256, (full + 1, 3), dtype=np.uint8) if colour_type == 3 else None
            chunks, alpha = texts.get(variety, b""), np.ones((HEIGHT, WIDTH))
            chunks += b"" if palette is None else png_chunk(b"PLTE", palette.tobytes())
            if variety == "alpha zero":
                if colour_type in (0, 2):
                    continue
                stored[..., -1] = stored[..., -1] if colour_type == 3 else 0
                chunks += png_chunk(b"tRNS", bytes(full + 1)) if colour_type == 3 else b""
                alpha = np.zeros((HEIGHT, WIDTH))
            elif variety == "transparent" and colour_type == 3:
                shares = rng.integers(0, 256, full + 1, dtype=np.uint8)
                chunks, alpha = chunks + png_chunk(b"tRNS", shares.tobytes()), shares[stored[..., 0]] / 255
            elif variety == "transparent" and colour_type in (0, 2):
                chunks += png_chunk(b"tRNS", stored[3, 3].astype(">u2").tobytes())
                alpha = (stored != stored[3, 3]).any(axis=2).astype(float)
            elif colour_type in (4, 6):
                alpha = stored[..., -1] / full
            if palette is not None:
                colours = palette[stored[..., 0]].astype(float)
            else:
                colours = stored[..., :3] * 255 / full if colour_type in (2, 6) else grey(stored[..., 0] * 255 / full)
            data = png(stored, depth, colour_type, interlaced, chunks)
            yield f"{colour_type} {depth} {variety}", data, over_black(colours, alpha)


# ---- BMP


@pytest.mark.parametrize("header", [12, 40, 52, 56, 64, 108, 124])
def test_bmp(header: int) -> None:
    assert check(bmps(header)) > 5


def bmps(header: int) -> Iterator[Cell]:
    rng = np.random.default_rng(3)
    for down in (False, True) if header > 12 else (False,):

        def write(rows: list[bytes], bits: int, down: bool = down, **more: Any) -> bytes:
            padded = b"".join(row + bytes(-len(row) % 4) for row in (rows if down else rows[::-1]))
            return bmp(padded, WIDTH, -HEIGHT if down else HEIGHT, bits, header=header, **more)

        for bits in (1, 4, 8):
            palette = rng.integers(0, 256, (2**bits, 3), dtype=np.uint8)
            stored = rng.integers(0, 2**bits, (HEIGHT, WIDTH))
            data = write([pack(row, bits) for row in stored], bits, palette=palette)
            yield f"palette {bits} {down}", data, palette[stored]
        colours = rng.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
        yield f"24 {down}", write([row[:, ::-1].tobytes() for row in colours], 24), colours
        for filler in (0, 255, 77):
            four = np.dstack([colours[..., ::-1], np.full((HEIGHT, WIDTH), filler, np.uint8)])
            yield f"32 {filler} {down}", write([row.tobytes() for row in four], 32), colours
        yield masked("555", write, rng, 16, (0x7C00, 0x3E0, 0x1F), 0)
        if header in (12, 64):
            continue
        for name, bits, masks in [
            ("555", 16, (0x7C00, 0x3E0, 0x1F)),
            ("565", 16, (0xF800, 0x7E0, 0x1F)),
            ("1555", 16, (0x7C00, 0x3E0, 0x1F, 0x8000)),
            ("4444", 16, (0xF00, 0xF0, 0xF, 0xF000)),
            ("bgrx", 32, (0xFF0000, 0xFF00, 0xFF)),
            ("rgbx", 32, (0xFF, 0xFF00, 0xFF0000)),
            ("bgra", 32, (0xFF0000, 0xFF00, 0xFF, 0xFF000000)),
            ("bgra zero", 32, (0xFF0000, 0xFF00, 0xFF, 0xFF000000)),
            ("abgr", 32, (0xFF000000, 0xFF0000, 0xFF00, 0xFF)),
            ("10 bits", 32, (0x3FF00000, 0xFFC00, 0x3FF)),
        ]:
            if len(masks) == 3 or header >= 56:
                yield masked(name, write, rng, bits, masks, 3)


def masked(
    name: str, write: Callable[..., bytes], rng: np.random.Generator, bits: int, masks: tuple[int, ...], kind: int
) -> Cell:
    fulls = [mask // (mask & -mask) for mask in masks]
    channels = [rng.integers(0, full + 1, (HEIGHT, WIDTH)) for full in fulls]
    if name.endswith("zero"):
        channels[3][:] = 0
    pixels = sum(channel * (mask & -mask) for channel, mask in zip(channels, masks, strict=True))
    rows = [row.astype(f"<u{bits // 8}").tobytes() for row in np.asarray(pixels)]
    shares = [channel / full for channel, full in zip(channels, fulls, strict=True)]
    alpha = shares[3] if len(shares) > 3 else np.ones((HEIGHT, WIDTH))
    data = write(rows, bits, compression=kind, masks=masks if kind else ())
    return f"{bits} {name}", data, over_black(np.dstack(shares[:3]) * 255, alpha)


@pytest.mark.parametrize(("bits", "compression"), [(8, 1), (4, 2)])
def test_bmp_in_runs(bits: int, compression: int) -> None:
    rng = np.random.default_rng(4)
    palette = rng.integers(0, 256, (2**bits, 3), dtype=np.uint8)
    stored = np.repeat(rng.integers(0, 2**bits, (HEIGHT, 9)), 4, axis=1)  # runs of 4 and, at the right, literals
    runs = b""
    for row in stored[::-1]:
        for value in row[:20:4]:
            runs += bytes([4, value if bits == 8 else value << 4 | value])
        literal = pack(row[20:36], bits)
        runs += bytes([0, 16]) + literal + bytes(len(literal) % 2) + b"\0\0"
    data = bmp(runs + b"\0\1", 36, HEIGHT, bits, compression, palette=palette)
    assert check([("runs", data, palette[stored])]) == 1


# ---- JPEG


def jpegs() -> Iterator[tuple[str, bytes, np.ndarray]]:
    for name, image in (("grey", Image.fromarray(smooth(1)[..., 0])), ("colour", Image.fromarray(smooth(3)))):
        for quality, subsampling, progressive, restart in itertools.product((60, 95), (0, 2), (False, True), (0, 1)):
            sink = io.BytesIO()
            how: dict[str, Any] = {"progressive": progressive, "restart_marker_rows": restart}
            image.save(sink, "JPEG", quality=quality, subsampling=subsampling, **how)
            read = np.asarray(imagecodecs.jpeg8_decode(sink.getvalue()))
            where = f"{name} {quality} {subsampling} {progressive} {restart}"
            yield where, sink.getvalue(), grey(read) if read.ndim == 2 else read


def test_jpeg_with_and_without_its_end() -> None:
    cells: list[Cell] = []
    for name, data, truth in jpegs():
        cells += [(name, data, truth), (f"{name}, and more", data + b"a camera's own data", truth)]
        cells += [(f"{name} less {cut}", data[:-cut], truth) for cut in (1, 2)]
        cells += [(f"{name}, zeros for its end", data[:-2] + bytes(100), truth)]
    assert check(cells) == len(cells)


@pytest.mark.parametrize("after", [b"", b"\xff\xd9", bytes(64)], ids=["nothing", "an end marker", "zeros"])
def test_jpeg_that_lacks_pixels_is_no_image(after: bytes) -> None:
    """Decoders go on in grey and say nothing. A file may lack bytes that change nothing: then it may be read."""
    refused = 0
    for name, data, truth in jpegs():
        for cut in (4, 7, 12, 30, 100, 200):
            try:
                image = decode(data[:-cut] + after)
            except ImageError:
                refused += 1
            else:
                assert np.abs(image - np.rint(truth)).max() <= 1, (name, cut)
    assert refused > 150  # of 192


def test_a_large_jpeg_that_lacks_its_lower_half_but_not_its_end() -> None:
    values = np.random.default_rng(0).integers(0, 256, (40, 40), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
    sink = io.BytesIO()
    Image.fromarray(values).save(sink, "JPEG")
    data = sink.getvalue()
    assert np.abs(decode(data).astype(int) - values[..., None]).max() < 60
    with pytest.raises(ImageError, match="ends before its last pixel"):
        decode(data[: len(data) // 2] + b"\xff\xd9")
    values[-16:, -16:] = 90  # where a decoder would stop, too
    Image.fromarray(values).save(sink := io.BytesIO(), "JPEG")
    assert decode(sink.getvalue()).shape == (320, 320, 3)


def test_jpeg_of_four_channels() -> None:
    for inside in ("CMYK", "YCCK"):
        data = jpeg("CMYK", inside, "444", smooth(4))
        mark = data.index(b"\xff\xee")
        assert data[mark + 4 : mark + 9] == b"Adobe"
        ink = imagecodecs.jpeg8_decode(data, colorspace=inside, outcolorspace="CMYK") / 255.0
        unmarked = data[:mark] + data[mark + 2 + struct.unpack_from(">H", data, mark + 2)[0] :]
        assert check([(inside, data, ink[..., :3] * ink[..., 3:] * 255), (f"{inside} unmarked", unmarked, None)]) == 1


def test_jpeg_of_other_kinds() -> None:
    colour, deep = smooth(3), smooth(3).astype(np.uint16) * 16
    unmarked = jpeg("RGB", "RGB", "444", colour)
    sink = io.BytesIO()
    Image.fromarray(colour).save(sink, "MPO", save_all=True, append_images=[Image.fromarray(255 - colour)])
    cells: list[Cell] = [
        ("stored as RGB", unmarked, imagecodecs.jpeg8_decode(unmarked)),
        ("MPO", sink.getvalue(), imagecodecs.jpeg8_decode(sink.getvalue())),
        ("12 bits", imagecodecs.jpeg8_encode(deep, 95, bitspersample=12), None),
    ]
    for predictor, image in itertools.product((1, 4, 7), (colour, colour[..., 0].copy())):
        cells.append(("lossless", imagecodecs.jpeg8_encode(image, lossless=True, predictor=predictor), None))
    assert check(cells) == 2
