"""`--bit-depth` and `--levels` against their closed form, 255 x clip((v - low) / (high - low)), wherever images go."""

from __future__ import annotations

import io
from fractions import Fraction
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pyarrow as pa
import pytest
import typer.testing
from conftest import fitted, made_images
from image_files import Tiff
from index_report import look
from PIL import Image

import raydiff
from raydiff import cli, cluster, methods
from raydiff.cli.method_settings import with_levels
from raydiff.errors import ImageError, SettingsError
from raydiff.images.decode import decode, decode_mask
from raydiff.images.levels import Levels
from raydiff.images.stream import Reading, decode_rows, read_image
from raydiff.model.description import describe
from raydiff.model.folder import Model
from raydiff.scoring.service import Arguments, Service
from raydiff.settings import Settings

RNG = np.random.default_rng(0)
TWELVE = RNG.integers(0, 4096, (40, 40), dtype=np.uint16)
BY_DEPTH = Levels(bit_depth=12)


def png(values: np.ndarray) -> bytes:
    Image.fromarray(values).save(sink := io.BytesIO(), "PNG")
    return sink.getvalue()


def tiff(values: np.ndarray, photometric: int = 1, **more: Any) -> bytes:
    values = values if values.ndim == 3 else values[..., None]
    code = {"u": 1, "i": 2, "f": 3}[values.dtype.kind]
    return Tiff(values, 8 * values.dtype.itemsize, photometric, code, **more).file()


def shown(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """In exact numbers, one value at a time; halves may go either way."""

    def one(value: Any) -> float:
        share = (Fraction(value) - Fraction(low)) / (Fraction(high) - Fraction(low))
        return float(255 * min(max(share, Fraction(0)), Fraction(1)))

    flat = [one(value) for value in values.reshape(-1).tolist()]
    return np.array(flat).reshape(values.shape)


def check(data: bytes, levels: Levels, truth: np.ndarray) -> None:
    image = decode(data, levels=levels)
    truth = truth if truth.ndim == 3 else truth[..., None]
    assert image.dtype == np.uint8
    assert image.shape == (*truth.shape[:2], 3)
    assert np.abs(image - truth).max() <= 0.5 + 1e-6


@pytest.mark.parametrize("bits", [10, 12, 14])
def test_a_bit_depth_stretches_what_a_camera_keeps_in_16_bits(bits: int) -> None:
    white = 2**bits - 1
    values = RNG.integers(0, white + 1, (9, 13), dtype=np.uint16)
    values[0, :3] = 0, white, 60_000  # what lies beyond is clipped
    for data in (png(values), tiff(values), tiff(values, order=">", tile=16, codec="deflate")):
        check(data, Levels(bit_depth=bits), shown(values, 0, white))
    colours = RNG.integers(0, white + 1, (9, 13, 3), dtype=np.uint16)
    check(tiff(colours, 2), Levels(bit_depth=bits), shown(colours, 0, white))
    pgm = b"P5\n13 9\n65535\n" + values.astype(">u2").tobytes()
    check(pgm, Levels(bit_depth=bits), shown(values, 0, white))
    check(imagecodecs.jpeg2k_encode(values, reversible=True), Levels(bit_depth=bits), shown(values, 0, white))


def test_a_bit_depth_leaves_files_alone_that_say_their_own() -> None:
    eight = RNG.integers(0, 256, (9, 13), dtype=np.uint8)
    packed = Tiff(TWELVE[..., None], 12).file()
    pgm = b"P5\n40 40\n4095\n" + TWELVE.astype(">u2").tobytes()
    share = tiff(RNG.random((9, 13)).astype(np.float32))
    Image.fromarray(eight).save(jpeg := io.BytesIO(), "JPEG")
    for data in (png(eight), packed, pgm, share, jpeg.getvalue()):
        np.testing.assert_array_equal(decode(data, levels=Levels(bit_depth=10)), decode(data))
    np.testing.assert_array_equal(decode(packed), decode(png(TWELVE), levels=BY_DEPTH))  # as bright as its neighbour
    with pytest.raises(ImageError, match="no agreed range; say which values are black and white with --levels"):
        decode(tiff(np.zeros((2, 2), np.int32)), levels=BY_DEPTH)


RANGES: dict[str, tuple[np.ndarray, float, float]] = {
    "8 bits": (RNG.integers(0, 256, (9, 13), dtype=np.uint8), 16, 235),
    "16 bits": (RNG.integers(0, 65536, (9, 13), dtype=np.uint16), 1000, 30000),
    "32 bits": (RNG.integers(0, 2**32, (9, 13), dtype=np.uint32), 2**20, 2**31),
    "64 bits": (RNG.integers(0, 2**50, (9, 13), dtype=np.uint64), 0, 2**49),
    "signed, 8 bits": (RNG.integers(-128, 128, (9, 13), dtype=np.int8), -100, 50),
    "signed, 16 bits": (RNG.integers(-(2**15), 2**15, (9, 13), dtype=np.int16), -1000, 3000),
    "signed, 32 bits": (RNG.integers(-(2**31), 2**31, (9, 13), dtype=np.int32), -5, 2**30),
    "half floats": (RNG.normal(0, 100, (9, 13)).astype(np.float16), -50, 75.5),
    "floats": (RNG.normal(0, 1e6, (9, 13)).astype(np.float32), -1e6, 2e6),
    "doubles": (RNG.normal(0, 1, (700, 3)), -0.001, 0.002),
}


@pytest.mark.parametrize("name", RANGES)
def test_levels_of_any_range(name: str) -> None:
    values, low, high = RANGES[name]
    check(tiff(values), Levels(low=low, high=high), shown(values, low, high))
    check(tiff(values, order=">", rows=7), Levels(low=low, high=high), shown(values, low, high))


@pytest.mark.parametrize("name", ["8 bits", "16 bits", "32 bits", "64 bits"])
def test_levels_are_of_the_stored_values_where_zero_is_white(name: str) -> None:
    values, low, high = RANGES[name]
    check(tiff(values, 0), Levels(low=low, high=high), 255 - shown(values, low, high))


def test_a_bit_depth_where_zero_is_white() -> None:
    check(tiff(TWELVE, 0), BY_DEPTH, 255 - shown(TWELVE, 0, 4095))


def test_alpha_is_composited_after_the_levels() -> None:
    colours = RNG.integers(0, 4096, (9, 13, 3), dtype=np.uint16)
    alpha = RNG.integers(0, 65536, (9, 13, 1), dtype=np.uint16)
    data = tiff(np.dstack([colours, alpha]), 2, extra=(2,))
    truth = np.rint(shown(colours, 0, 4095)) * (alpha / 65535)
    check(data, BY_DEPTH, truth)


def test_no_image_has_levels_of_its_own() -> None:
    """Half as bright an image looks half as bright: nothing is stretched to an image's own extremes."""
    bright, dim = (decode(png(values), levels=BY_DEPTH).astype(int) for values in (TWELVE, TWELVE // 2))
    assert np.abs(bright - 2 * dim).max() <= 2


def test_numbers_that_are_none_are_an_error() -> None:
    values = RNG.normal(0, 1, (9, 13)).astype(np.float32)
    for bad in (np.nan, np.inf, -np.inf):
        values[3, 3] = bad
        with pytest.raises(ImageError, match="no numbers"):
            decode(tiff(values), levels=Levels(low=-1, high=1))


def test_a_file_of_fewer_bits_than_the_levels_are_for_is_an_error() -> None:
    eight = np.full((9, 13), 200, np.uint8)
    with pytest.raises(ImageError, match="the file's values end at 255, and the levels at 4,095"):
        decode(png(eight), levels=Levels(low=0, high=4095))
    colours = RNG.integers(0, 4096, (9, 13, 3), dtype=np.uint16)
    deep = imagecodecs.jpeg2k_encode(colours, reversible=True)
    assert decode(deep).shape == (9, 13, 3)
    with pytest.raises(ImageError, match="16 bits, of which the high eight are read"):
        decode(deep, levels=BY_DEPTH)


def test_masks_know_no_levels() -> None:
    marked = TWELVE > 2000
    np.testing.assert_array_equal(decode_mask(png(marked.astype(np.uint16))), marked)


@pytest.mark.parametrize(
    ("bit_depth", "levels", "found"),
    [
        ([], [], None),
        (["12"], [], {"bit_depth": 12}),
        ([], ["0,4095"], {"low": 0.0, "high": 4095.0}),
        ([], ["-1000, 3000.5"], {"low": -1000.0, "high": 3000.5}),
        ([], ["1e-3,2"], {"low": 0.001, "high": 2.0}),
        (["bolt=12"], [], {"categories": {"bolt": {"bit_depth": 12}}}),
        (
            ["10", "bolt=12"],
            ["a=b=-5,9"],
            {"bit_depth": 10, "categories": {"bolt": {"bit_depth": 12}, "a=b": {"low": -5.0, "high": 9.0}}},
        ),
    ],
)
def test_options_as_they_are_given(bit_depth: list[str], levels: list[str], found: dict[str, Any] | None) -> None:
    by = Levels.of_options(bit_depth, levels)
    assert (by.model_dump(exclude_none=True) if by else None) == found
    assert with_levels({"image_size": 64}, bit_depth, levels) == {"image_size": 64} | (
        {"levels": found} if found else {}
    )


@pytest.mark.parametrize(
    ("bit_depth", "levels", "said"),
    [
        ("12", "0,4095", "--bit-depth and --levels both"),
        ("bolt=12", "bolt=0,4095", "--bit-depth and --levels both say which value is white of bolt"),
        ("9", None, "none of 10, 12, 14; give --levels"),
        ("16", None, "none of 10, 12, 14"),
        ("twelve", None, "none of 10, 12, 14"),
        ("bolt=9", None, "--bit-depth 9 is none of 10, 12, 14"),
        (None, "bolt=7,7", "--levels 7,7 is not LOW,HIGH"),
        (None, "4095", "is not LOW,HIGH"),
        (None, "4095,0", "is not LOW,HIGH"),
        (None, "7,7", "is not LOW,HIGH"),
        (None, "a,b", "is not LOW,HIGH"),
        (None, "0,nan", "is not LOW,HIGH"),
        (None, "0,inf", "is not LOW,HIGH"),
        (None, "0,1,2", "is not LOW,HIGH"),
        (None, "", "is not LOW,HIGH"),
    ],
)
def test_options_that_mean_nothing(bit_depth: str | None, levels: str | None, said: str) -> None:
    given = [[each] if each is not None else None for each in (bit_depth, levels)]
    with pytest.raises(SettingsError, match=said):
        Levels.of_options(*given)


def test_options_that_say_one_thing_twice() -> None:
    for twice in (["12", "10"], ["bolt=12", "nut=12", "bolt=12"]):
        with pytest.raises(SettingsError, match="or one twice"):
            Levels.of_options(twice, None)


def test_levels_are_a_train_setting() -> None:
    for name in methods.names():
        recipe = methods.recipe(name, "demo", {"levels": {"bit_depth": 12}})
        assert recipe.levels == BY_DEPTH
        assert methods.recipe(name, "demo").levels is None
    for wrong in ({"bit_depth": 12, "low": 0, "high": 9}, {}, {"low": 0}, {"low": 3, "high": 2}, {"bit_depth": 11}):
        with pytest.raises(SettingsError, match="levels"):
            methods.recipe("lafite", "demo", {"levels": wrong})
    with pytest.raises(SettingsError, match="same thing"):
        with_levels({"levels": {"bit_depth": 12}}, ["12"], None)
    mixed = {name: methods.recipe(name, "demo", {"levels": {"bit_depth": 12}}) for name in ("glad", "lafite")}
    assert methods.levels_of(mixed) == BY_DEPTH
    with pytest.raises(SettingsError, match="must share levels"):
        methods.levels_of(mixed | {"lafite": methods.recipe("lafite", "demo")})
    assert issubclass(Levels, Settings)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A model that was trained with `--bit-depth 12`."""
    method, _ = fitted("nearest_patch", made_images(8, 32), levels={"bit_depth": 12})
    place = str(tmp_path_factory.mktemp("model"))
    Model(method, method.ScoreSettings()).save(place)
    return place


def test_a_model_keeps_its_levels_and_they_are_part_of_its_id(folder: str, tmp_path: Path) -> None:
    model = raydiff.load(folder, "cpu")
    assert model.levels == BY_DEPTH
    assert Levels.kept(describe(folder)["settings"]["train"]) == BY_DEPTH
    plain, _ = fitted("nearest_patch", made_images(8, 32))
    other = Model(plain, plain.ScoreSettings())
    assert other.levels is None
    assert other.id != model.id
    other.save(str(tmp_path))
    train = describe(str(tmp_path))["settings"]["train"]
    assert Levels.kept(train) is None
    del train["levels"]  # as a model has it that was trained before there were any
    assert Levels.kept(train) is None


def test_a_service_reads_images_as_its_model_was_trained(folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "use_assigned_device", lambda: "cpu")
    service = Service(Arguments(model=folder))
    seen = (np.rint(shown(TWELVE, 0, 4095))).astype(np.uint8)
    assert service.answer(png(TWELVE))["score"] == service.answer(png(seen))["score"]
    assert service.answer(png(TWELVE))["score"] != service.answer(png(seen // 16))["score"]


def test_a_decoding_task_reads_by_its_levels(tmp_path: Path) -> None:
    (tmp_path / "1.png").write_bytes(png(TWELVE))
    uri = str(tmp_path / "1.png")
    by, plain = (read_image(uri, Reading(40, levels=levels)).pixels for levels in (BY_DEPTH, None))
    assert np.abs(by[..., 0] - shown(TWELVE, 0, 4095)).max() <= 0.5 + 1e-6
    assert plain.max() <= 16
    rows = decode_rows(pa.table({"uri": [uri]}), Reading(40, levels=BY_DEPTH))
    np.testing.assert_array_equal(rows["image"][0], by)


@pytest.mark.parametrize(
    ("highest", "said"),
    [
        (255, "lie below 256, so that they look dark; train with --levels 0,255: 3"),
        (1023, "lie below 1,024, so that they look dark; train with --bit-depth 10: 3"),
        (4095, "lie below 4,096, so that they look dark; train with --bit-depth 12: 3"),
        (16383, "lie below 16,384, so that they look dark; train with --bit-depth 14: 3"),
        (16384, None),
        (0, None),
    ],
)
def test_index_says_which_depth_a_camera_has(tmp_path: Path, highest: int, said: str | None) -> None:
    data = tmp_path / "data"
    data.mkdir()
    for number in range(3):
        values = np.zeros((8, 8), np.uint16)
        values[number, 0] = highest
        (data / f"{number}.png").write_bytes(png(values))
    (data / "8.png").write_bytes(png(np.full((8, 8), 200, np.uint8)))
    found = look(data)
    assert (said in found) if said else ("--bit-depth" not in found and "--levels" not in found)
    assert "look dark" not in look(data, BY_DEPTH)


def test_index_reads_by_the_levels(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    for number in range(3):
        (data / f"{number}.tif").write_bytes(tiff(RANGES["signed, 32 bits"][0]))
    assert "unreadable images, they will be rows with an error: 3" in look(data)
    assert "--levels LOW,HIGH" in look(data)
    found = look(data, Levels(low=-5, high=5.5))
    assert "unreadable" not in found
    assert "images were read with --levels -5,5.5: train with it, too" in found
    assert "read with --bit-depth 12: train" in look(data, BY_DEPTH)


def test_the_command_line_refuses_both_at_once(tmp_path: Path) -> None:
    runner = typer.testing.CliRunner()
    where = ["--data", str(tmp_path), "--out", str(tmp_path / "run")]
    for more in (["--bit-depth", "12", "--levels", "-5,4095"], ["--pack", "--bit-depth", "12"]):
        found = runner.invoke(cli.app, ["index", *where, *more])
        assert isinstance(found.exception, SettingsError)
