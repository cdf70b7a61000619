"""DICOM files, which pydicom writes here, against the values that were put into them."""

from __future__ import annotations

import io
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    RLELossless,
)

from raydiff.errors import ImageError
from raydiff.images.decode import MAX_PIXELS, decode, decode_mask
from raydiff.images.index import index
from raydiff.images.levels import Levels
from raydiff.images.pages import Pages, count
from raydiff.images.stream import Reading, decode_rows
from raydiff.images.survey import find_images

RNG = np.random.default_rng(0)
HEIGHT, WIDTH = 21, 36


def values(bits: int, signed: bool = False, frames: int = 0) -> np.ndarray:
    low = -(2 ** (bits - 1)) if signed else 0
    kind = f"{'i' if signed else 'u'}{1 if bits <= 8 else 2}"
    shape = (frames, HEIGHT, WIDTH) if frames else (HEIGHT, WIDTH)
    return RNG.integers(low, low + 2**bits, shape, dtype=kind)


def dicom(
    pixels: np.ndarray, bits: int, kind: str = "MONOCHROME2", syntax: Any = ExplicitVRLittleEndian, **more: Any
) -> bytes:
    found = Dataset()
    found.file_meta = FileMetaDataset()
    found.file_meta.TransferSyntaxUID = syntax
    found.SOPClassUID = found.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.7"
    found.SOPInstanceUID = found.file_meta.MediaStorageSOPInstanceUID = "1.2.3.4"
    found.Rows, found.Columns = pixels.shape[-2:]
    found.SamplesPerPixel = 1
    found.PhotometricInterpretation = kind
    found.BitsAllocated, found.BitsStored, found.HighBit = 8 * pixels.dtype.itemsize, bits, bits - 1
    found.PixelRepresentation = int(pixels.dtype.kind == "i")
    if pixels.ndim == 3:
        found.NumberOfFrames = len(pixels)
    big = syntax == ExplicitVRBigEndian
    body = pixels.astype(pixels.dtype.newbyteorder(">" if big else "<")).tobytes()
    found.PixelData = body + bytes(len(body) % 2)
    found["PixelData"].VR = "OW" if pixels.dtype.itemsize == 2 else "OB"
    for name, value in more.items():
        setattr(found, name, value)
    if syntax == RLELossless:
        found.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        found.compress(RLELossless)
    found.save_as(sink := io.BytesIO(), enforce_file_format=True)
    return sink.getvalue()


def grey(shown: np.ndarray) -> np.ndarray:
    return np.repeat(np.asarray(shown, float)[..., None], 3, axis=2)


def line(stored: np.ndarray, low: float, high: float) -> np.ndarray:
    return 255 * np.clip((stored.astype(float) - low) / (high - low), 0, 1)


def near(image: np.ndarray, truth: np.ndarray) -> None:
    assert image.dtype == np.uint8
    assert image.shape == (*truth.shape, 3)
    assert np.abs(image - grey(truth)).max() <= 0.5 + 1e-3


SYNTAXES = {
    "implicit": ImplicitVRLittleEndian,
    "explicit": ExplicitVRLittleEndian,
    "big-endian": ExplicitVRBigEndian,
    "run lengths": RLELossless,
}


@pytest.mark.parametrize("kind", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
@pytest.mark.parametrize("syntax", SYNTAXES)
def test_white_is_what_the_stored_bits_can_hold(syntax: str, bits: int, kind: str) -> None:
    pixels = values(bits)
    truth = line(pixels, 0, 2**bits - 1)
    near(decode(dicom(pixels, bits, kind, SYNTAXES[syntax])), truth if kind == "MONOCHROME2" else 255 - truth)


def test_few_bits_in_two_bytes_and_bits_above_them() -> None:
    few = values(8).astype(np.uint16)
    near(decode(dicom(few, 8)), line(few, 0, 255))
    stored = values(12)
    overlaid = stored | (RNG.integers(0, 16, stored.shape, dtype=np.uint16) << 12)
    near(decode(dicom(overlaid, 12)), line(stored, 0, 4095))


def test_a_camera_of_12_bits_that_says_16() -> None:
    pixels = values(12)
    data = dicom(pixels, 16)
    assert decode(data).max() < 17
    near(decode(data, levels=Levels(bit_depth=12)), line(pixels, 0, 4095))
    near(decode(dicom(pixels, 12), levels=Levels(bit_depth=12)), line(pixels, 0, 4095))
    near(decode(dicom(pixels, 16, "MONOCHROME1"), levels=Levels(bit_depth=12)), 255 - line(pixels, 0, 4095))


@pytest.mark.parametrize("kind", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize(("slope", "intercept"), [(1, -1024), (2.5, 0), (0.25, 10.5), (-1, 4095)])
def test_levels_are_of_the_rescaled_values(slope: float, intercept: float, kind: str) -> None:
    pixels = values(12)
    data = dicom(pixels, 12, kind, RescaleSlope=slope, RescaleIntercept=intercept)
    real = pixels * float(slope) + intercept
    low, high = np.quantile(real, [0.1, 0.8]).tolist()
    truth = line(real, low, high)
    near(decode(data, levels=Levels(low=low, high=high)), truth if kind == "MONOCHROME2" else 255 - truth)
    for levels in (None, Levels(bit_depth=12)):
        with pytest.raises(ImageError, match="rescaled numbers of no agreed range; say which values are black"):
            decode(data, levels=levels)
    plain = dicom(pixels, 12, kind, RescaleSlope=1, RescaleIntercept=0)
    np.testing.assert_array_equal(decode(plain), decode(dicom(pixels, 12, kind)))


@pytest.mark.parametrize("kind", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("bits", [8, 12, 16])
def test_signed_values_need_levels(bits: int, kind: str) -> None:
    pixels = values(bits, signed=True)
    data = dicom(pixels, bits, kind)
    with pytest.raises(ImageError, match="no agreed range"):
        decode(data)
    truth = line(pixels, -100, 50)
    near(decode(data, levels=Levels(low=-100, high=50)), truth if kind == "MONOCHROME2" else 255 - truth)


def test_an_enhanced_file_rescales_each_frame() -> None:
    pixels = values(12, frames=2)
    shared, each = Dataset(), [Dataset(), Dataset()]
    for place, group in enumerate((*each, shared)):
        said = Dataset()
        said.RescaleSlope, said.RescaleIntercept = place + 1, -place
        group.PixelValueTransformationSequence = [said]
    levels = Levels(low=0, high=8000)
    of_all = dicom(pixels, 12, SharedFunctionalGroupsSequence=[shared])
    near(decode(of_all, levels=levels, page=2), line(3.0 * pixels[1] - 2, 0, 8000))
    own = dicom(pixels, 12, SharedFunctionalGroupsSequence=[shared], PerFrameFunctionalGroupsSequence=each)
    for page in (1, 2):
        near(decode(own, levels=levels, page=page), line(float(page) * pixels[page - 1] - (page - 1), 0, 8000))


def test_windows_of_a_file_are_not_applied() -> None:
    pixels = values(12)
    data = dicom(pixels, 12, WindowCenter=100, WindowWidth=10)
    np.testing.assert_array_equal(decode(data), decode(dicom(pixels, 12)))


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_frames_are_pages(syntax: str, tmp_path: Path) -> None:
    pixels = values(16, frames=3)
    (tmp_path / "a.dcm").write_bytes(dicom(pixels, 16, syntax=SYNTAXES[syntax]))
    (tmp_path / "b.dcm").write_bytes(dicom(pixels[0], 16))
    data = (tmp_path / "a.dcm").read_bytes()
    for page in (1, 2, 3):
        near(decode(data, page=page), line(pixels[page - 1], 0, 65535))
    with pytest.raises(ImageError, match="holds 3 frames; say which are images with --pages"):
        decode(data)
    with pytest.raises(ImageError, match="no frame 4, 3 is its last"):
        decode(data, page=4)
    assert count(str(tmp_path / "a.dcm")) == 3
    images = find_images(str(tmp_path), pages=Pages(None))
    assert [uri.rpartition("/")[2] for uri in images["uri"].to_pylist()] == [
        *("a.dcm#1", "a.dcm#2", "a.dcm#3", "b.dcm"),
    ]
    assert not decode_rows(images, Reading(16))["error"].any()


def test_masks() -> None:
    marked = values(8) > 100
    np.testing.assert_array_equal(decode_mask(dicom(marked.astype(np.uint8), 8)), marked)


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "colours": ({"kind": "RGB", "SamplesPerPixel": 3}, "RGB pixels, which is not read"),
    "a palette": ({"kind": "PALETTE COLOR"}, "PALETTE COLOR pixels"),
    "bits in the middle": ({"HighBit": 11}, "8 bits up to bit 11 of 16"),
    "32 bits": ({"BitsAllocated": 32}, "of 32"),
    "a table": ({"ModalityLUTSequence": [Dataset()]}, "values that a table translates"),
    "a slope of nothing": ({"RescaleSlope": 0, "RescaleIntercept": 0}, "rescaled by 0 and 0"),
    "a slope alone": ({"RescaleSlope": 2}, "does not say its RescaleIntercept"),
    "no size": ({"Rows": 0}, "there is nothing in it"),
    "a size beyond its pixels": ({"Rows": 500}, "damaged"),
    "far too large": ({"Rows": 60_000, "Columns": 60_000}, "more than the limit of 200,000,000"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused(name: str) -> None:
    changed, said = REFUSED[name]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the writer
        data = dicom(values(8).astype(np.uint16), 8, **changed)
    with pytest.raises(ImageError, match=said):
        decode(data, MAX_PIXELS)


def test_compressed_ones_are_refused_before_they_are_unpacked() -> None:
    data = dicom(values(8), 8, syntax=DeflatedExplicitVRLittleEndian)
    with pytest.raises(ImageError, match=r"transfer syntax 1\.2\.840\.10008\.1\.2\.1\.99, which is not read"):
        decode(data)
    plain = dicom(values(8), 8)
    place = plain.index(b"\x02\x00\x10\x00UI")
    other = JPEG2000Lossless.encode().ljust(20, b"\0")
    size = int.from_bytes(plain[place + 6 : place + 8], "little")
    changed = plain[: place + 6] + len(other).to_bytes(2, "little") + other + plain[place + 8 + size :]
    with pytest.raises(ImageError, match=r"10008\.1\.2\.4\.90, which is not read; save it uncompressed"):
        decode(changed)


def test_damaged_files_are_image_errors_and_say_nothing(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    failed = 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for data in (dicom(values(12), 12), dicom(values(8, frames=2), 8, syntax=RLELossless)):
            for number in range(150):
                damaged = bytearray(data[: len(data) if number % 3 else int(rng.integers(132, len(data)))])
                for place in rng.integers(132, min(len(damaged), 1000), 4):
                    damaged[place] = rng.integers(256)
                try:
                    decode(bytes(damaged), 10_000, page=1)
                except ImageError:
                    failed += 1
                (tmp_path / "x.dcm").write_bytes(damaged)
                assert count(str(tmp_path / "x.dcm")) >= 1
    assert failed > 30
    assert capfd.readouterr() == ("", "")


def test_without_pydicom_it_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = dicom(values(8, frames=2), 8)
    (tmp_path / "1.dcm").write_bytes(data)
    monkeypatch.setitem(sys.modules, "pydicom", None)
    with pytest.raises(ImageError, match=r"^this is a DICOM file, which needs one more package .* 'raydiff\[dicom\]'$"):
        decode(data)
    report = index(str(tmp_path), str(tmp_path / "images.parquet"), which=Pages(None))
    assert "raydiff[dicom]" in report.unreadable[0].reason
    assert pydicom.__version__ >= "3"
