"""TIFF files in bands of rows: the pixels of `decode` to the bit, of what is read so; the rest is refused."""

import hashlib
import itertools
import re
from pathlib import Path

import numpy as np
import pytest
from image_files import Tiff
from test_decode_matrix import FORMATS, KINDS, LAYOUTS, codecs, tiffs, values

from raydiff.errors import ImageError
from raydiff.images import bands, tiff_bands
from raydiff.images.bands import Bands, size_if_large
from raydiff.images.decode import decode
from raydiff.images.levels import Levels
from raydiff.images.pages import File, digest_of

GREY = Tiff(np.random.default_rng(0).integers(0, 256, (90, 40, 1)).astype(np.uint8))


@pytest.fixture(autouse=True)
def _small_bands(monkeypatch):
    """Of some pixels: a row of some strips or tiles, several of others."""
    monkeypatch.setattr(tiff_bands, "BAND", 150)


def read(place: Path, data: bytes, page: int | None = None, levels: Levels | None = None) -> np.ndarray:
    place.write_bytes(data)
    found = Bands(str(place), page, levels)
    rows = list(found.rows())
    image = np.concatenate(rows)
    assert image.shape[:2] == (found.height, found.width)
    assert image.dtype == np.uint8
    return image


def check(place: Path, name: str, data: bytes, levels: Levels | None = None) -> int:
    """Whether it is as of the whole, or refused with the same words; one where it was read."""
    try:
        whole = decode(data, levels=levels)
    except ImageError as error:
        with pytest.raises(ImageError, match=re.escape(str(error))):
            read(place, data, levels=levels)
        return 0
    np.testing.assert_array_equal(read(place, data, levels=levels), whole, name)
    return 1


@pytest.mark.parametrize("kind", [name for name, (_, _, extra, _) in KINDS.items() if 2 not in extra])
def test_every_kind(kind, tmp_path):
    files = [(name, page.file()) for name, page in [*tiffs(kind, *KINDS[kind])][::2]]
    assert sum(check(tmp_path / "a.tif", name, data) for name, data in files) > 7


@pytest.mark.parametrize(("order", "big", "tile"), LAYOUTS)
def test_every_layout(order, big, tile, tmp_path):
    rng, count = np.random.default_rng(0), 0
    for kind, (bits, sample_format) in itertools.product(("grey", "rgb planar"), FORMATS):
        channels, photometric, extra, planar = KINDS[kind]
        samples = values(channels, bits, sample_format, rng)
        page = Tiff(samples, bits, photometric, sample_format, extra, (), planar, order=order, big=big, tile=tile)
        for codec, predictor in codecs(bits, sample_format)[::3]:
            for rows in (1, 8):
                data = page.with_(codec=codec, predictor=predictor, rows=rows).file()
                count += check(tmp_path / "a.tif", f"{kind} {bits} {sample_format} {codec} {rows}", data)
    assert count > 30


def test_levels(tmp_path):
    for kind, levels in itertools.product(("<u2", "<i4", "<f4"), (Levels(low=10, high=900), Levels(bit_depth=12))):
        samples = np.random.default_rng(1).integers(0, 1000, (21, 37, 1)).astype(kind)
        sample_format = {"u": 1, "i": 2, "f": 3}[samples.dtype.kind]
        data = Tiff(samples, 8 * samples.dtype.itemsize, sample_format=sample_format).file()
        read_it = check(tmp_path / "a.tif", f"{kind} {levels}", data, levels)
        assert read_it == (levels.bit_depth is None or kind == "<u2")


@pytest.mark.parametrize("band", [1, 150, 2**22])
def test_a_strip_of_many_rows_is_read_in_parts(tmp_path, band, monkeypatch):
    """Where it is plain, it need not be looked at as a whole; the last strip is shorter here."""
    monkeypatch.setattr(tiff_bands, "BAND", band)
    for rows in (90, 60, 13):
        data = GREY.with_(rows=rows).file()
        (tmp_path / "a.tif").write_bytes(data)
        parts = list(Bands(str(tmp_path / "a.tif")).rows())
        np.testing.assert_array_equal(np.concatenate(parts), decode(data))
        assert max(map(len, parts)) <= max(1, band // 40)


def test_what_is_unpacked_whole_must_be_small(tmp_path, monkeypatch):
    monkeypatch.setattr(tiff_bands, "MOST", 40 * 30)
    for page, kind in ((GREY.with_(rows=31), "strips"), (GREY.with_(tile=32), "tiles")):
        with pytest.raises(ImageError, match=rf"its {kind} of \d+ rows are unpacked whole, .* at most \d+ rows"):
            read(tmp_path / "a.tif", page.with_(codec="lzw").file())
    assert read(tmp_path / "a.tif", GREY.with_(codec="lzw", rows=30).file()).shape == (90, 40, 3)


@pytest.mark.parametrize(
    ("page", "what"),
    [
        (GREY.with_(jpeg=bytes), "JPEGs"),
        (GREY.with_(more={274: ("H", (6,))}), "turned or mirrored"),
        (Tiff(np.zeros((9, 9, 4), np.uint8), photometric=2, extra=(2,)), "an alpha channel"),
    ],
)
def test_what_is_read_whole_only(page, what, tmp_path):
    with pytest.raises(ImageError, match=what):
        read(tmp_path / "a.tif", page.file())


def test_the_limits(tmp_path, monkeypatch):
    monkeypatch.setattr(bands, "MAX_PIXELS", 90 * 40 - 1)
    with pytest.raises(ImageError, match=r"40 x 90 pixels; in bands of its rows up to 3,599 pixels"):
        read(tmp_path / "a.tif", GREY.file())
    monkeypatch.setattr(bands, "MAX_PIXELS", 90 * 40)
    monkeypatch.setattr(bands, "MAX_WIDTH", 39)
    with pytest.raises(ImageError, match=r"and 39 in a row"):
        read(tmp_path / "a.tif", GREY.file())


def test_damage_is_told_when_it_is_met(tmp_path):
    data = bytearray(GREY.with_(codec="deflate").file())
    data[600:900] = bytes(300)
    (tmp_path / "a.tif").write_bytes(data)
    found = Bands(str(tmp_path / "a.tif"))
    with pytest.raises(ImageError, match="the TIFF file is damaged"):
        list(found.rows())
    for damaged in (b"", b"II*\0", GREY.file()[:2000]):
        with pytest.raises(ImageError):
            read(tmp_path / "a.tif", damaged)


def test_which_images_are_large(tmp_path):
    place = tmp_path / "a.TIF"
    place.write_bytes(GREY.file())
    assert size_if_large(str(place), 90 * 40) is None
    assert size_if_large(str(place), 90 * 40 - 1) == (90, 40)
    assert size_if_large(f"{place}#1", 1) == (90, 40)
    for page in (f"{place}#2", str(tmp_path / "lost.tif"), str(tmp_path)):
        assert size_if_large(page, 1) is None
    for name, data in (("a.png", GREY.file()), ("b.tif", b"II*\0"), ("c.tif", b"\x89PNG"), ("d.tif", b"")):
        (tmp_path / name).write_bytes(data)
        assert size_if_large(str(tmp_path / name), 1) is None


def test_the_hash_is_of_the_whole_file(tmp_path):
    (tmp_path / "a.tif").write_bytes(GREY.file())
    for page in (None, 3):
        assert digest_of(str(tmp_path / "a.tif"), page) == File(GREY.file(), page).digest()
    assert digest_of(str(tmp_path / "a.tif"), None) == hashlib.sha256(GREY.file()).hexdigest()
