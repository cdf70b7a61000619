"""A finished score table as a whole, against counts by hand, scipy's Kolmogorov-Smirnov test and Python's own sets."""

from __future__ import annotations

import datetime
import hashlib
import io
from collections import Counter
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fsspec.implementations.local import LocalFileSystem
from PIL import Image
from rich.console import Console
from scipy.stats import ks_2samp, kstwobign

from raydiff import progress, storage
from raydiff.errors import DataError, ImageError, StorageError
from raydiff.images.decode import decode
from raydiff.model.calibration import Calibration
from raydiff.scoring import columns, summary, table
from raydiff.scoring.drift import DRIFT_P_VALUE, Drift, DriftCounts
from raydiff.scoring.summary import ArchiveSummary, Day, print_summary, reason, summarise
from raydiff.storage import files

MAY = [datetime.date(2026, 5, day) for day in (1, 2, 3)]


def write(folder: Path, rows: list[dict[str, Any]], per_part: int = 7) -> str:
    """A score table of these rows; what a row does not say is as a scored image of category nut has it."""
    filled = [{"uri": f"/archive/{i}.png", "category": "nut"} | row for i, row in enumerate(rows)]
    for part, start in enumerate(range(0, len(rows), per_part)):
        content = pa.Table.from_pylist(filled[start : start + per_part], schema=table.SCHEMA)
        table.write(table.part_uri(str(folder), f"{part:06d}"), content)
    return str(folder)


def test_images_alarms_and_errors_are_counted_by_category_and_day(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rows: list[dict[str, Any]] = []
    for _ in range(300):
        row: dict[str, Any] = {"category": str(rng.choice(["nut", "bolt"])), "day": rng.choice([*MAY, None])}
        kind = rng.choice(["alarm", "well", "uncalibrated", "bad"])
        if kind == "bad":
            row["error"] = "the file is empty"
        elif kind != "uncalibrated":
            row["is_anomalous"] = bool(kind == "alarm")
        rows.append(row)
    found = summarise(write(tmp_path, rows), None)

    days = []
    for category in ("bolt", "nut"):
        for day in [*MAY, None]:
            of_day = [row for row in rows if row["category"] == category and row["day"] == day]
            days.append(
                Day(
                    category=category,
                    day=day and day.isoformat(),
                    images=len(of_day),
                    alarms=sum(row.get("is_anomalous") is True for row in of_day),
                    errors=sum("error" in row for row in of_day),
                )
            )
    assert found.days == days
    assert found.images == 300
    assert found.alarms == sum(row.get("is_anomalous") is True for row in rows)
    assert found.errors == {"the file is empty": sum("error" in row for row in rows)}
    assert found.drift == []
    assert ArchiveSummary.model_validate_json(found.model_dump_json()) == found


def test_a_table_without_days_has_one_unknown_day(tmp_path: Path) -> None:
    uri = write(tmp_path, [{}] * 3)
    pq.write_table(table.read(uri).drop_columns("day"), table.part_uri(uri, "000000"))
    assert summarise(uri, None).days == [Day(category="nut", day=None, images=3, alarms=0, errors=0)]


def test_no_table_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"holds no score_table/part-"):
        summarise(str(tmp_path), None)


@pytest.mark.parametrize("at_once", [1, 3, 10, 39, 40, 41, 1000])
@pytest.mark.parametrize("distinct", [1, 40, 200])
def test_repeated_images_are_counted_exactly_whatever_is_held_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at_once: int, distinct: int
) -> None:
    rng = np.random.default_rng(1)
    digests = [hashlib.sha256(bytes([image])).hexdigest() for image in rng.integers(0, distinct, 200)]
    rows = [{"content_hash": digest if rng.random() < 0.9 else None} for digest in digests]
    uri = write(tmp_path, rows, per_part=60)
    monkeypatch.setattr(summary, "HASHES_AT_ONCE", at_once)
    reads = Counter[str]()
    read_bytes = storage.read_bytes
    monkeypatch.setattr(storage, "read_bytes", lambda part: reads.update([part]) or read_bytes(part))
    hashes = [row["content_hash"] for row in rows if row["content_hash"]]
    assert summarise(uri, None).repeated == len(hashes) - len(set(hashes))
    assert set(reads.values()) == {-(-len(set(hashes)) // at_once)}  # no reading more than it takes


def test_hashes_at_both_ends_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(summary, "HASHES_AT_ONCE", 1)
    digests = [digit * 64 for digit in "f0f0f7"]
    assert summarise(write(tmp_path, [{"content_hash": digest} for digest in digests]), None).repeated == 3


def test_parts_are_read_only_a_little_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    read = []

    def read_part(uri: str, columns: list[str]) -> str:
        read.append(uri)
        return f"{columns[0]} of {uri}"

    monkeypatch.setattr(columns, "read_part", read_part)
    uris = [str(part) for part in range(100)]
    parts = columns.read_columns(uris, ["score"])
    for part, found in enumerate(parts):
        assert found == f"score of {part}"
        assert len(read) <= part + 1 + columns.READS_AT_ONCE
    assert sorted(read) == sorted(uris)


def test_a_part_that_cannot_be_read_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    uri = write(tmp_path, [{}] * 20)
    parts = table.parts(uri)
    monkeypatch.setattr(table, "parts", lambda _: [*parts, f"{uri}/part-9.parquet"])
    with pytest.raises(StorageError, match=r"part-9\.parquet is not there"):
        summarise(uri, None)


# Drift


@pytest.mark.parametrize("normals", [1, 2, 19, 150, 1000])
@pytest.mark.parametrize("images", [2, 3, 400, 5000])
@pytest.mark.parametrize("digits", [0, 1, 15])  # of the scores: many ties, some, none
@pytest.mark.parametrize("shift", [0.0, 0.5, 20.0])
def test_distance_is_scipys(normals: int, images: int, digits: int, shift: float) -> None:
    rng = np.random.default_rng([normals, images, digits])
    calibrated_on = np.round(rng.normal(size=normals), digits)
    archive = np.round(rng.normal(size=images) - shift * rng.choice([-1, 1]), digits)
    archive[: images // 3] = rng.choice(calibrated_on, images // 3)  # an archive has the calibration's images, too
    calibration = Calibration.fit({"nut": list(calibrated_on)}, 0.1)
    scores = DriftCounts(calibration.of("nut"))
    for some in np.array_split(archive, 4):
        scores.add(some)
    found = scores.drift("nut")
    expected = ks_2samp(archive, calibrated_on, method="asymp")
    assert (found.images, found.normals) == (images, normals)
    assert found.distance == pytest.approx(expected.statistic, abs=1e-12)
    effective = images * normals / (images + normals)
    assert found.p_value == pytest.approx(kstwobign.sf(expected.statistic * np.sqrt(effective)), rel=1e-6, abs=1e-300)
    if effective >= 100:  # scipy has corrections for small numbers; both tend to the same
        assert found.p_value == pytest.approx(expected.pvalue, abs=0.05)


def test_each_category_is_compared_with_its_own_normals_and_an_unknown_one_with_all(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    normal = {"nut": rng.normal(size=200), "bolt": rng.normal(5, size=150), "rare": rng.normal(size=5)}
    calibration = Calibration.fit({name: list(scores) for name, scores in normal.items()}, 0.01)
    archive = {name: rng.normal(1, size=size) for name, size in (("nut", 90), ("bolt", 50), ("rare", 9), ("new", 40))}
    rows = [{"category": name, "score": score} for name, scores in archive.items() for score in scores]
    rows += [{"category": "nut", "error": "the file is empty"}, {"category": "never read", "error": "x"}]
    rng.shuffle(rows)
    found = summarise(write(tmp_path, rows), calibration).drift
    together = np.concatenate(list(normal.values()))
    against = {"bolt": normal["bolt"], "new": together, "nut": normal["nut"], "rare": normal["rare"]}
    assert [drift.category for drift in found] == list(against)
    for drift in found:
        expected = ks_2samp(archive[drift.category], against[drift.category]).statistic
        assert drift.distance == pytest.approx(expected, abs=1e-12)
        assert (drift.images, drift.normals) == (len(archive[drift.category]), len(against[drift.category]))


@pytest.mark.parametrize(
    ("images", "shift", "significant", "drifted"),
    [(20_000, 0.0, False, False), (20_000, 0.15, True, False), (20_000, 1.0, True, True), (6, 1.0, False, False)],
)
def test_drift_is_significant_and_large(images: int, shift: float, significant: bool, drifted: bool) -> None:
    rng = np.random.default_rng(3)
    scores = DriftCounts(Calibration.fit({"nut": list(rng.normal(size=5000))}, 0.01).of("nut"))
    scores.add(rng.normal(shift, size=images))
    found = scores.drift("nut")
    assert (found.p_value < DRIFT_P_VALUE) is significant
    assert found.drifted is drifted


# Reasons


def refused(data: bytes, **options: Any) -> str:
    with pytest.raises(ImageError) as raised:
        decode(data, **options)
    return str(raised.value)


def file(array: np.ndarray | Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    image = array if isinstance(array, Image.Image) else Image.fromarray(array)
    sink = io.BytesIO()
    image.save(sink, kind, **options)
    return sink.getvalue()


def pages(count: int) -> bytes:
    more = [Image.new("L", (3, 3), page) for page in range(1, count)]
    return file(Image.new("L", (3, 3)), "TIFF", save_all=True, append_images=more)


def test_reasons_of_images_that_cannot_be_decoded() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    found = {
        "the file is empty": [refused(b"")],
        "this is no PNG, JPEG, BMP, TIFF, WebP, JPEG …, AVIF, PNM, DICOM file, whatever its name: it begins with …": [
            refused(data) for data in (b"GIF89a", b"it's (1 of", b'"It\'s\\" /a', b"\x00\x01b'/x y", b'\xff\'"(")')
        ],
        "the image is … x … pixels, more than the limit of …; cut it into tiles or raise the limit": [
            refused(file(noise), max_pixels=34),
            refused(file(noise[:5, :7], "BMP"), max_pixels=3),
            refused(file(noise, "TIFF"), max_pixels=1_200),
        ],
        "the image is … x … pixels: there is nothing in it": [
            f"the image is {size} pixels: there is nothing in it" for size in ("0 x 12", "4096 x 0")
        ],
        "the TIFF holds … pages; say which are images with --pages first, all or a page's number, or save each page as "
        "a file of its own": [refused(pages(2)), refused(pages(12))],
        "the pixels are 32-bit, signed or rescaled numbers of no agreed range; say which values are black and white "
        "with --levels LOW,HIGH, or save as 8 or 16 bit": [refused(file(np.zeros((2, 2), np.int32), "TIFF"))],
        "the pixels are floats and not all within 0 to 1; say which values are black and white with --levels LOW,HIGH, "
        "or save as 16 bit": [refused(file(np.full((2, 2), 7, np.float32), "TIFF"))],
        "the TIFF holds LAB pixels, which is not read; save it as grey or RGB with … or … bits": [
            refused(file(Image.new("LAB", (2, 2)), "TIFF"))
        ],
    }
    for kind in ("PNG", "JPEG", "BMP", "TIFF"):
        whole = file(noise, kind)
        cut = [refused(whole[: max(8, len(whole) * share // 100)]) for share in (1, 30, 60, 90)]
        cut = [text for text in cut if "truncated" not in text or kind != "JPEG"]
        found[f"the {kind} file is damaged or of a variety not known here"] = cut
    whole = file(noise, "JPEG")
    ends = [refused(whole[: len(whole) * share // 100]) for share in (30, 60, 90)]
    found["the JPEG file is truncated: it ends before its last pixel"] = ends
    for expected, texts in found.items():
        assert {reason(text, "/archive/3/7.png") for text in texts} == {expected}


@pytest.mark.parametrize(("kind", "most"), [("PNG", 6), ("JPEG", 6), ("BMP", 6), ("TIFF", 12)])  # TIFF has most kinds
def test_damage_of_any_kind_is_few_reasons(kind: str, most: int) -> None:
    rng = np.random.default_rng(1)
    data = file(rng.integers(0, 256, (5, 7, 3), dtype=np.uint8), kind)
    texts, reasons = set(), set()
    for _ in range(300):
        damaged = bytearray(data)
        for place in rng.integers(0, len(data), 4):
            damaged[place] = rng.integers(256)
        try:
            decode(bytes(damaged), max_pixels=10_000)
        except ImageError as error:
            texts.add(str(error))
            reasons.add(reason(str(error), "/archive/3/7.png"))
    assert len(texts) > len(reasons)
    assert len(reasons) <= most


URIS = ["/archive/2026 (May)/a 'b' 7.png", "s3://plant/line4/cookie/000123.png", "file:///data/x.png", "memory://1.png"]


@pytest.mark.parametrize("uri", URIS)
def test_reasons_of_images_that_cannot_be_fetched(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    failures: dict[str, list[Exception]] = {
        "the file is not there; check the bucket, the folder and the name": [FileNotFoundError(2, "No such file", uri)],
        "the file: access refused; check the credentials and their rights": [
            PermissionError(13, "Permission denied"),
            PermissionError("AccessDenied"),
        ],
        "the file: [Errno …] Is a directory: …": [IsADirectoryError(21, "Is a directory", "/archive/a")],
        "the file: [Errno …] Input/output error": [OSError(5, "Input/output error")],
        "the file: quota exceeded": [RuntimeError("quota\n exceeded")],
        "the file: TimeoutError": [TimeoutError()],
        "the file: Unable to locate credentials": [RuntimeError("Unable to locate credentials")],
        "the file: Could not connect to the endpoint URL: …": [
            OSError(f'Could not connect to the endpoint URL: "http://10.0.0.{host}:9000/plant/{host}"')
            for host in (1, 22)
        ],
        "the file: An error occurred when calling the GetObject operation: Please reduce your request rate.": [
            OSError(
                f"An error occurred (SlowDown) when calling the GetObject operation (reached max retries: {count}): "
                "Please reduce your request rate."
            )
            for count in (4, 5)
        ],
        "the file: connection … of host … closed after … s": [
            OSError(f"connection {uuid} of host {address} closed after {seconds} s")
            for uuid, address, seconds in (("0x7f3ac", "10.0.0.1", 30), ("6f1f0b9a-0d1e-4a", "192.168.1.77", 0.25))
        ],
    }
    for expected, errors in failures.items():
        for error in errors:

            class Failing:
                failure = error

                def cat_file(self, _: str) -> bytes:
                    raise self.failure

            monkeypatch.setattr(files, "filesystem", lambda uri, store=Failing: (store(), uri))
            with pytest.raises(StorageError) as raised:
                storage.read_bytes(uri)
            assert reason(str(raised.value), uri) == expected


def test_reasons_of_places_that_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(StorageError) as raised:
        storage.read_bytes("nonsense://x/1.png")
    said = "the file: Protocol not known: nonsense; give a local path, or a URI of s3, gs or another store that"
    assert reason(str(raised.value), "nonsense://x/1.png") == f"{said} fsspec knows"

    def lacking(scheme: str) -> type[LocalFileSystem]:
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr(fsspec, "get_filesystem_class", lacking)
    with pytest.raises(StorageError) as raised:
        storage.read_bytes("s3://plant/1.png")
    expected = "the file: reading s3:// needs one more package: pip install 'raydiff[s3]'"
    assert reason(str(raised.value), "s3://plant/1.png") == expected


def test_a_reason_has_an_end() -> None:
    assert len(reason("page " * 1000, "/x")) == summary.REASON_LENGTH


def test_equal_kinds_of_error_count_together_the_most_frequent_first(tmp_path: Path) -> None:
    rows = []
    for image in range(30):
        uri = f"s3://plant/{image}.png"
        error = f"{uri} is not there; check the name" if image % 3 else f"the image is {image} x 0 pixels"
        rows.append({"uri": uri, "error": error})
    errors = summarise(write(tmp_path, rows), None).errors
    assert list(errors.items()) == [
        ("the file is not there; check the name", 20),
        ("the image is … x … pixels", 10),
    ]


def test_rare_reasons_are_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(summary, "REASONS", 2)
    monkeypatch.setattr(summary, "REASONS_COUNTED", 5)
    said = ["a", "b", "c", "d", "d", "e", "late", "late", "late", "e", "e"]
    errors = summarise(write(tmp_path, [{"error": text} for text in said]), None).errors
    assert list(errors.items()) == [("e", 3), ("d", 2), ("other", 6)]


# In words


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    written = io.StringIO()
    monkeypatch.setattr(summary, "console", Console(file=written, soft_wrap=True, highlight=False, width=100))
    return written


def drift(category: str, drifted: bool) -> Drift:
    return Drift(category=category, images=12_000, normals=99, distance=0.312, p_value=1e-9, drifted=drifted)


def test_the_summary_in_words(log: io.StringIO) -> None:
    days = [
        Day(category="[red]cookie", day="2026-05-01", images=11_000, alarms=2, errors=0),
        Day(category="[red]cookie", day=None, images=1_234, alarms=1_005, errors=7),
    ]
    print_summary(
        ArchiveSummary(
            images=12_234,
            errors={"the file: [Errno …] odd": 4, "other": 3},
            alarms=1_007,
            repeated=17,
            days=days,
            drift=[drift("[red]cookie", True), drift("screw", False)],
        )
    )
    lines = log.getvalue().splitlines()
    assert lines[0] == "archive: 12,234 images, 1,007 alarms, 7 could not be scored, 17 repeat another image"
    assert lines[1:3] == ["  4 not scored: the file: [Errno …] odd", "  3 not scored: other"]
    cells = [line.strip("│ ").split() for line in lines if "[red]cookie │" in line]
    assert [[cell for cell in row if cell != "│"] for row in cells] == [
        ["[red]cookie", "unknown", "1,234", "1,005", "7"],
        ["[red]cookie", "2026-05-01", "11,000", "2", "0"],
    ]
    assert lines[-1].startswith("scores of [red]cookie have left the calibration's (distance .31 over 12,000 images): ")
    assert "calibrate anew" in lines[-1]
    assert "screw" not in log.getvalue()
    assert "more" not in log.getvalue()


def test_long_lists_are_cut(log: io.StringIO) -> None:
    days = [Day(category="nut", day=f"{1000 + year}-01-01", images=500, alarms=year, errors=0) for year in range(400)]
    found = [drift(f"category {number}", True) for number in range(40)]
    print_summary(ArchiveSummary(images=200_000, errors={}, alarms=1, repeated=0, days=days, drift=found))
    written = log.getvalue()
    assert written.count("-01-01") == 14
    assert "1399-01-01" in written  # the day with most alarms
    assert "and 386 more with fewer alarms, in summary.json" in written
    assert written.count("scores of category") == 14
    assert "and 26 more whose scores have drifted, in summary.json" in written


def test_it_says_how_far_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.StringIO()
    monkeypatch.setattr(progress, "console", Console(file=written, soft_wrap=True, highlight=False))
    summarise(write(tmp_path, [{}] * 21), None)
    lines = written.getvalue().splitlines()
    assert lines[0] == "summary: begins, 3 parts"
    assert lines[-1].startswith("summary: done, 3 parts in ")
