"""Files that lie about themselves: an ImageError of one sentence, at once and in little memory."""

from __future__ import annotations

import io
import itertools
import re
import struct
import threading
import time
import tracemalloc
import zlib
from typing import Any

import imagecodecs
import numpy as np
import pytest
from image_files import CODECS, Tiff, assemble, bmp, png, png_chunk
from PIL import Image

from raydiff.errors import ImageError
from raydiff.images.decode import decode, decode_mask

COLOUR = np.random.default_rng(0).integers(0, 256, (21, 37, 3), dtype=np.uint8)
PAGE = Tiff(COLOUR, 8, 2)
MUCH = 64 * 2**20  # bytes, far more than any picture here needs


def refused(data: bytes) -> str:
    """The sentence; fails if it is not one, or if saying it took long or much memory."""
    tracemalloc.start()
    begun = time.process_time()
    try:
        with pytest.raises(ImageError) as caught:
            decode(data)
        assert time.process_time() - begun < 5
        assert tracemalloc.get_traced_memory()[1] < MUCH + 4 * len(data)
    finally:
        tracemalloc.stop()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def lie(page: Tiff, **tags: Any) -> bytes:
    """`page` with other values for the tags of these numbers, t256=(7,) and so on."""
    more = dict(page.more)
    for name, numbers in tags.items():
        more[int(name[1:])] = ("I", numbers)
    return page.with_(more=more).file()


@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("order", ["<", ">"])
def test_pages_in_a_circle_and_thousands_of_them(order: str, big: bool) -> None:
    data = PAGE.with_(order=order, big=big).file()
    pointer = order + ("Q" if big else "I")
    at = 8 if big else 4
    (first,) = struct.unpack_from(pointer, data, at)
    (count,) = struct.unpack_from(order + ("Q" if big else "H"), data, first)
    after = first + (8 + 20 * count if big else 2 + 12 * count)
    circle = data[:after] + struct.pack(pointer, first) + data[after + struct.calcsize(pointer) :]
    assert "circle" in refused(circle)
    assert "more than 1000 pages" in refused(assemble(b"", [{256: ("I", (1,))}] * 3000, order, big))
    assert "holds 0 pages" in refused(data[:at] + bytes(8))
    assert "3 pages" in refused(assemble(b"", [{256: ("I", (1,))}] * 3, order, big))


@pytest.mark.parametrize(
    "tags",
    [
        {"t277": (65535,)},
        {"t258": (2**31,)},
        {"t256": (10_000,), "t257": (10_000,)},  # more than is there
        {"t278": (0,)},
        {"t273": (2**31,)},
        {"t273": (8,), "t279": (2**31,)},
        {"t279": (0,) * 6},
        {"t322": (2**30,), "t323": (2**30,), "t324": (8,), "t325": (9,)},
        {"t322": (0,), "t323": (16,), "t324": (8,), "t325": (9,)},
        {"t338": (1, 2, 3, 4, 5, 6)},
        {"t339": (9, 9, 9)},
        {"t317": (7,)},
        {"t262": (77,)},
        {"t284": (2,)},
        {"t259": (34712,)},
    ],
    ids=str,
)
def test_tags_that_lie(tags: dict[str, tuple[int, ...]]) -> None:
    for page in (PAGE, PAGE.with_(codec="deflate"), PAGE.with_(codec="lzw")):
        assert "TIFF" in refused(lie(page, **tags))


def test_the_size_is_judged_before_anything_is_unpacked() -> None:
    for data in (
        lie(PAGE.with_(codec="deflate"), t256=(100_000,), t257=(100_000,)),
        png(np.zeros((1, 1, 1), int), 8, 0).replace(struct.pack(">II", 1, 1), struct.pack(">II", 10**5, 10**5), 1),
        bmp(b"", 100_000, 100_000, 32),
        bmp(b"", 100_000, 100_000, 24),
    ):
        assert "100000 x 100000 pixels, more than the limit" in refused(data)


def test_strips_that_lie_over_each_other() -> None:
    page = Tiff(np.zeros((4000, 4, 1), np.uint8), rows=1, codec="lzw")
    lying = lie(page, t273=(8,) * 4000, t279=(20_000,) * 4000)
    assert "over each other" in refused(lying)


@pytest.mark.parametrize("codec", ["deflate", "lzw", "zstd", "lzma", "packbits"])
def test_a_strip_that_unpacks_to_much_more_than_it_should_gives_its_pixels_only(codec: str) -> None:
    bomb = bytes(2**23)
    packed = b"\x81\0" * 2**16 if codec == "packbits" else CODECS[codec][1](bomb)
    number = CODECS[codec][0]
    tags = {256: 5, 257: 5, 258: 8, 259: number, 262: 1, 273: 8, 277: 1, 278: 5, 279: len(packed)}
    data = assemble(packed, [{tag: ("I", (value,)) for tag, value in tags.items()}], "<", False)
    del bomb
    tracemalloc.start()
    np.testing.assert_array_equal(decode(data), np.zeros((5, 5, 3)))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**20 + 4 * len(data)


def test_a_strip_that_unpacks_to_less_is_truncated() -> None:
    short = zlib.compress(COLOUR.tobytes()[:-1])
    tags = {256: 37, 257: 21, 258: 8, 259: 8, 262: 2, 273: 8, 277: 3, 278: 21, 279: len(short)}
    assert "truncated" in refused(assemble(short, [{t: ("I", (v,)) for t, v in tags.items()}], "<", False))


def test_a_jpeg_inside_a_tiff_is_of_the_size_that_the_tiff_says() -> None:
    huge = imagecodecs.jpeg8_encode(np.zeros((3000, 3000), np.uint8), 50)
    page = Tiff(COLOUR[..., :1], rows=21, jpeg=lambda part: bytes(huge))
    assert "3000 x 3000 pixels where 37 x 21 were expected" in refused(page.file())


def test_a_stack_of_imagej_behind_one_directory_is_many_pages() -> None:
    words = b"ImageJ=1.53\nimages=7\nslices=7\n\0"
    data = PAGE.with_(more={270: ("s", tuple(bytes([b]) for b in words))})
    with pytest.raises(ImageError, match="holds 7 pages"):
        decode(data.file())


def test_a_jpeg_of_thousands_of_scans() -> None:
    Image.fromarray(COLOUR).save(sink := io.BytesIO(), "JPEG", progressive=True)
    data = sink.getvalue()
    last = data.rindex(b"\xff\xda")
    assert "scans" in refused(data[:last] + data[last:-2] * 3000 + data[-2:])


def test_a_jpeg_that_lost_parts_between_restart_markers_is_an_error() -> None:
    """What is behind them would move up, and nothing but the markers says so."""
    rng = np.random.default_rng(0)
    for shape, subsampling, progressive, (restart, number) in itertools.product(
        ((33, 50), (40, 64, 3)),
        (0, 1, 2),
        (False, True),
        (("restart_marker_blocks", 1), ("restart_marker_blocks", 5), ("restart_marker_rows", 1)),
    ):
        image = Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8))
        how = {"subsampling": subsampling, "progressive": progressive, restart: number}
        image.save(file := io.BytesIO(), "JPEG", **how)
        data = file.getvalue()
        assert decode(data).shape[:2] == shape[:2]
        at = [match.start() for match in re.finditer(rb"\xff[\xd0-\xd7]", data)]
        for lost in ([0, 1], [len(at) // 2, len(at) // 2 + 1], [-2, -1], [0, 8]):  # with eight the count is in turn
            if lost[1] < len(at):
                assert re.search("restart markers|truncated", refused(data[: at[lost[0]]] + data[at[lost[1]] :])), how
    one_more = data[:-2] + b"\xff" + bytes([0xD0 + (data[at[-1] + 1] - 0xD0 + 1) % 8]) + data[-2:]
    np.testing.assert_array_equal(decode(one_more), decode(data))


def test_damaged_files_say_nothing_but_their_error(capfd: pytest.CaptureFixture[str]) -> None:
    for data in (PAGE.file(), PAGE.with_(codec="deflate", tile=16, big=True, order=">").file()):
        rng = np.random.default_rng(1)
        failed = 0
        for _ in range(150):
            damaged = bytearray(data)
            for place in rng.integers(0, len(data), 4):
                damaged[place] = rng.integers(256)
            for reader in (decode, decode_mask):
                try:
                    reader(bytes(damaged), 10_000)
                except ImageError:
                    failed += 1
        assert failed > 20
    assert capfd.readouterr() == ("", "")


def test_chunks_of_a_png_that_lie() -> None:
    whole = png(COLOUR, 8, 2)
    refused(whole.replace(png_chunk(b"IEND", b""), b"")[:60] + b"\xff\xff\xff\xffIDAT")
    refused(whole[:8] + png_chunk(b"IDAT", b"") + whole[8:])


def test_sixteen_threads_read_all_kinds_side_by_side() -> None:
    files = [PAGE.with_(codec=codec, tile=tile).file() for codec in ("none", "lzw", "deflate") for tile in (0, 16)]
    files += [png(COLOUR, 8, 2)]
    wrong: list[int] = []

    def work(first: int) -> None:
        read = [decode(files[(first + number) % len(files)]) for number in range(12)]
        wrong.extend(first for image in read if not np.array_equal(image, COLOUR))

    threads = [threading.Thread(target=work, args=(first,)) for first in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
