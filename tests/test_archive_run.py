"""An archive from its listing to its summary on a real Ray: odd and bad files, growth, packing, nothing done twice."""

from __future__ import annotations

import hashlib
import html
import io
import os
import struct
import time
import urllib.request
import zipfile
import zlib
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import ray
from conftest import calibrated_model, made_images, with_defect
from PIL import Image
from processes import wait_for

import raydiff
from raydiff import storage
from raydiff.errors import DataError, StorageError
from raydiff.images import packed_archive, pages
from raydiff.images.decode import decode
from raydiff.images.pack import pack
from raydiff.images.pages import File
from raydiff.images.shards import Part
from raydiff.model.description import describe
from raydiff.report.archive import write_archive_report
from raydiff.scoring import archive_run, table
from raydiff.scoring.archive_run import list_images, score_archive

pytestmark = pytest.mark.ray

MAX_PIXELS = 1_000_000


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    """A calibrated model folder that knows bolts and cloth."""
    return calibrated_model(tmp_path_factory.mktemp("model"), "bolt", "cloth")


def encoded(image: np.ndarray, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, kind, **options)
    return buffer.getvalue()


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims to be of some size and holds nothing."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def odd_files() -> tuple[dict[str, tuple[bytes, np.ndarray]], dict[str, tuple[bytes, str]]]:
    """Files that are read correctly, with their pixels; files that cannot be read, with what is said of them."""
    image = made_images(1, 30, seed=3)[0]
    grey = image[..., 0]
    deep = grey.astype(np.uint16) * 257
    rotated = Image.Exif()
    rotated[0x0112] = 6  # shown turned a quarter to the right
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("bomb", bytes(10_000_000))
    cmyk = Image.fromarray(image).convert("CMYK")
    pages = io.BytesIO()
    Image.fromarray(image).save(pages, "TIFF", save_all=True, append_images=[Image.fromarray(image)])
    nan = np.full((8, 8), np.nan, np.float32)
    png, jpeg = encoded(image, "PNG"), encoded(image, "JPEG", quality=95)
    readable = {
        "16_bit.png": (encoded(deep, "PNG"), np.repeat(grey[..., None], 3, 2)),
        "cmyk.tif": (_tiff(cmyk), np.asarray(cmyk.convert("RGB"))),
        "rotated.png": (encoded(image, "PNG", exif=rotated), np.rot90(image, -1)),
        "jpeg_named.png": (jpeg, np.asarray(Image.open(io.BytesIO(jpeg)).convert("RGB"))),
        "one_pixel.png": (encoded(image[:1, :1], "PNG"), image[:1, :1]),
        "long.png": (encoded(np.tile(image[:20], (1, 1000, 1)), "PNG"), np.tile(image[:20], (1, 1000, 1))),
        "a b#ä?%25::.png": (png, image),
        "endless.jpg": (jpeg[:-2], np.asarray(Image.open(io.BytesIO(jpeg)).convert("RGB"))),
    }
    unreadable = {
        "empty.png": (b"", "the file is empty"),
        "cut.png": (png[: len(png) // 2], "the PNG file is damaged"),
        "cut.jpg": (jpeg[: len(jpeg) // 2], "the JPEG file is damaged"),
        "text.png": (b"Dear Sir or Madam,", "this is no PNG, JPEG, BMP, TIFF, "),
        "zip_bomb.png": (archive.getvalue(), "this is no PNG"),
        "bomb.png": (png_header(50_000, 50_000), "50000 x 50000 pixels, more than the limit of 1,000,000"),
        "large.png": (encoded(np.zeros((1001, 1000), np.uint8), "PNG"), "1000 x 1001 pixels, more than the limit"),
        "pages.tif": (pages.getvalue(), "the TIFF holds 2 pages"),
        "nan.tiff": (encoded(nan, "TIFF"), "floats and not all within 0 to 1"),
    }
    return readable, unreadable


def _tiff(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "TIFF")
    return buffer.getvalue()


READABLE, UNREADABLE = odd_files()


@pytest.fixture(scope="module")
def archive(tmp_path_factory) -> Path:
    """150 good images of two categories on two days, three of them the same, and all odd files there are."""
    root = tmp_path_factory.mktemp("archive") / "line4"
    for category, seed in (("bolt", 1), ("cloth", 2)):
        images = made_images(75, 36, seed=seed)
        images[70:] = with_defect(images[70:])
        images[3] = images[4] = images[5]
        for number, image in enumerate(images):
            folder = root / category / f"2026-05-0{1 + number % 2}"
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{number:03d}.png").write_bytes(encoded(image, "PNG"))
    (root / "bolt/odd").mkdir()
    for name, (data, _) in {**READABLE, **UNREADABLE}.items():
        (root / "bolt/odd" / name).write_bytes(data)
    (root / "bolt/odd/notes.txt").write_text("no image by its name")
    return root


@pytest.fixture(scope="module")
def scored(local_ray, model, archive, tmp_path_factory):
    """The archive scored, after some of its files had changed since the listing."""
    out = tmp_path_factory.mktemp("scores") / "out"
    changed = archive / "cloth/changed"
    changed.mkdir()
    before, after = made_images(2, 36, seed=77)
    for name in ("gone", "other", "junk"):
        (changed / f"{name}.png").write_bytes(encoded(before, "PNG"))
    list_images(describe(model), str(archive), str(out / "images"))
    (changed / "gone.png").unlink()
    (changed / "other.png").write_bytes(encoded(after, "PNG"))
    (changed / "junk.png").write_bytes(b"junk")
    # The listing of the run itself must not find what is gone: it is the one that was interrupted after its listing.
    done, summary = score_archive(model, str(archive), str(out), maps="png", max_pixels=MAX_PIXELS)
    return out, done, summary


def rows_by_path(out) -> dict[str, dict]:
    return {row["uri"].split("/line4/")[-1]: row for row in table.read(str(out)).to_pylist()}


def test_every_file_ends_in_one_row(scored, archive):
    out, done, summary = scored
    files = {str(path.relative_to(archive)) for path in archive.rglob("*") if path.is_file()}
    expected = files - {"bolt/odd/notes.txt"} | {"cloth/changed/gone.png"}
    rows = table.read(str(out))
    assert len(rows) == len(expected) == 150 + len(READABLE) + len(UNREADABLE) + 3
    assert set(rows_by_path(out)) == expected
    errors = len(UNREADABLE) + 2
    assert (done.images, done.scored_now, done.errors) == (len(rows), len(rows), errors)
    assert (summary.images, sum(summary.errors.values()), summary.alarms) == (len(rows), errors, done.alarms)
    assert pq.read_table(out / "score_table").num_rows == len(rows)
    assert not (out / "_work").exists()


def test_bad_files_say_why(scored):
    rows = rows_by_path(scored[0])
    for name, (data, reason) in UNREADABLE.items():
        row = rows[f"bolt/odd/{name}"]
        assert reason in row["error"]
        assert row["content_hash"] == hashlib.sha256(data).hexdigest()
        assert row["score"] is row["is_anomalous"] is row["map_uri"] is None
    assert "is not there" in rows["cloth/changed/gone.png"]["error"]
    assert "this is no PNG" in rows["cloth/changed/junk.png"]["error"]


def test_odd_files_are_read_correctly(scored, model, archive):
    rows = rows_by_path(scored[0])
    loaded = raydiff.load(model, "cpu")
    for name, (data, pixels) in READABLE.items():
        row = rows[f"bolt/odd/{name}"]
        np.testing.assert_array_equal(decode(data), pixels)
        assert row["error"] is None
        assert (row["height"], row["width"]) == pixels.shape[:2]
        assert row["score"] == float(loaded.score([pixels]).scores[0])
        assert (row["note"] is not None) == (name == "endless.jpg")
    assert "lacks its end marker" in rows["bolt/odd/endless.jpg"]["note"]
    changed = rows["cloth/changed/other.png"]  # what it is now, and the hash says so
    data = (archive / "cloth/changed/other.png").read_bytes()
    assert changed["content_hash"] == hashlib.sha256(data).hexdigest()
    assert changed["score"] == float(loaded.score([decode(data)]).scores[0])


def test_category_and_day_come_from_the_path(scored, model):
    rows = rows_by_path(scored[0])
    calibration = raydiff.load(model, "cpu").calibration
    for path, row in rows.items():
        assert row["category"] == path.split("/")[0]
        assert (str(row["day"]) if row["day"] else "") in path
        assert (row["day"] is None) == ("2026-05-0" not in path)
        if not row["error"]:
            assert row["threshold"] == calibration.of(row["category"]).threshold
            assert storage.exists(row["map_uri"])


def test_the_summary_is_what_the_rows_say(scored):
    out, _, summary = scored
    rows = list(rows_by_path(out).values())
    hashes = [row["content_hash"] for row in rows if row["content_hash"]]
    assert summary.repeated == len(hashes) - len(set(hashes)) >= 4
    for day in summary.days:
        of = [row for row in rows if (row["category"], str(row["day"])) == (day.category, str(day.day))]
        assert (day.images, day.alarms) == (len(of), sum(row["is_anomalous"] is True for row in of))
    assert storage.read_json(str(out / "summary.json"))["images"] == len(rows)


def test_its_report_needs_the_folder_alone(scored, model):
    out, _, summary = scored
    assert storage.read_json(str(out / "model.json")) == describe(model)
    page = Path(write_archive_report(str(out))).read_text()
    assert f"<b>{summary.images:,}</b>images" in page
    assert f"<b>{summary.alarms:,}</b>alarms" in page
    assert all(found in html.unescape(page) for found in summary.errors)
    assert page.count('alt="anomaly map and true defect"') == page.count('alt="image"') == 24


def test_a_finished_archive_is_left_alone_and_needs_no_ray(scored, model, archive, monkeypatch):
    out, _, summary = scored
    files = {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()}
    monkeypatch.setattr(archive_run, "deployed", None)  # nothing is deployed
    start = time.monotonic()
    done, again = score_archive(model, str(archive), str(out), maps="png", max_pixels=MAX_PIXELS)
    assert time.monotonic() - start < 10
    assert done is None
    assert again == summary
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()} == files


def test_a_run_killed_before_its_last_word_gets_it(scored, model, archive):
    out, _, summary = scored
    manifest = storage.read_json(str(out / "manifest.json"))
    storage.write_json(str(out / "manifest.json"), manifest | {"complete": False})
    done, again = score_archive(model, str(archive), str(out), maps="png", max_pixels=MAX_PIXELS)
    assert (done.scored_now, again) == (0, summary)
    assert storage.read_json(str(out / "manifest.json")) == manifest


def test_counters_are_among_rays_metrics(scored):
    done = scored[1]
    (node,) = ray.nodes()
    url = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"

    def counted() -> dict[str, float]:
        with urllib.request.urlopen(url, timeout=10) as answer:
            lines = answer.read().decode().splitlines()
        found: Counter[str] = Counter()
        for line in lines:
            if line.startswith("ray_raydiff_"):
                found[line.split("{")[0].removeprefix("ray_raydiff_").removesuffix("_total")] += float(line.split()[-1])
        return found

    wanted = {"images": done.images, "errors": done.errors, "alarms": done.alarms}
    wait_for(lambda: all(counted()[name] >= count for name, count in wanted.items()))


@pytest.mark.parametrize("other", ["model_id", "images", "maps", "max_pixels"])
def test_another_run_is_refused(scored, model, archive, tmp_path, other):
    out = scored[0]
    given = {"maps": "png", "max_pixels": MAX_PIXELS}
    data = str(archive)
    if other == "model_id":
        changed = raydiff.load(model, "cpu")
        changed.score_settings = changed.score_settings.model_copy(update={"blur_sigma": 2.5})
        changed.save(str(tmp_path / "model"))
        model = str(tmp_path / "model")
    elif other == "images":
        data = str(archive / "bolt")
    else:
        given[other] = {"maps": "none", "max_pixels": 5}[other]
    with pytest.raises(DataError, match=rf"holds scores of another run \(other {other}\)"):
        score_archive(model, data, str(out), **given)


def test_packed_images_score_the_same_and_new_ones_are_taken_in(scored, model, archive, tmp_path, monkeypatch):
    out = scored[0]
    before = table.read(str(out))
    packed = str(tmp_path / "packed")
    found = pack(str(archive), packed)
    there = before.filter(pc.invert(pc.match_substring(before["uri"], "gone.png")))
    assert (found.images, found.now, found.unreadable) == (len(there), len(there), 0)
    assert pack(str(archive), packed)[:2] == (len(there), 0)
    second = str(tmp_path / "second")
    done, _ = score_archive(model, packed, second, max_pixels=MAX_PIXELS)
    without_maps = there.drop_columns("map_uri")
    assert table.read(second).drop_columns("map_uri").sort_by("uri").equals(without_maps.sort_by("uri"))
    assert done.scored_now == len(there)

    new = made_images(3, 36, seed=5)
    for number, image in enumerate(new):
        (archive / f"bolt/new_{number}.png").write_bytes(encoded(image, "PNG"))
    assert pack(str(archive), packed)[:2] == (len(there) + 3, 3)
    done, summary = score_archive(model, packed, second, max_pixels=MAX_PIXELS)
    assert (done.scored_now, done.images, summary.images) == (3, len(there) + 3, len(there) + 3)

    done, summary = score_archive(model, str(archive), str(out), maps="png", max_pixels=MAX_PIXELS)
    assert (done.scored_now, done.images, summary.images) == (3, len(before) + 3, len(before) + 3)
    rows = table.read(str(out))
    assert rows.slice(0, len(before)).equals(before)
    by_uri = {row["uri"]: row["score"] for row in table.read(second).to_pylist()}
    for row in rows.to_pylist()[len(before) :]:
        assert row["score"] == by_uri[row["uri"]]

    def gone(uri: str) -> File:
        raise StorageError(f"{uri} is not there")

    monkeypatch.setattr(pages, "read", gone)  # as if they had been deleted: the folder says where the bytes are
    noted = packed_archive.scored(storage.read_json(f"{second}/run.json"))
    for name in table.part_names(second):
        for uri in table.read_file(table.part_uri(second, name), ["uri"])["uri"].to_pylist():
            assert packed_archive.fetch(uri, noted, name).data == Path(uri).read_bytes()


def test_large_files_are_packed_so_that_eight_are_read_alone(local_ray, tmp_path):
    content = np.random.default_rng(0).bytes(2**18 + 1)
    for folder, count, size in (("large", 67, 2**18 + 1), ("small", 67, 100)):
        (tmp_path / folder).mkdir()
        for number in range(count):
            (tmp_path / folder / f"{number:03d}.png").write_bytes(number.to_bytes() + content[1:size])
        pack(str(tmp_path / folder), str(tmp_path / f"{folder}_packed"))

    def rows_of_groups(name: str) -> list[int]:
        (path,) = (tmp_path / f"{name}_packed/packed").iterdir()
        metadata = pq.ParquetFile(path).metadata
        return [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]

    assert rows_of_groups("large") == [8] * 8 + [3]  # the last three, less than 16 MB, would fit in one of 64
    assert rows_of_groups("small") == [64, 3]
    (shard,) = packed_archive.shards_of(str(tmp_path / "large_packed"))
    found = packed_archive.read_bytes(str(tmp_path / "large_packed"), Part(0, shard.name, shard.uri, 60, 66))
    assert found == [number.to_bytes() + content[1:] for number in range(60, 66)]


def test_an_archive_without_images_is_named(model, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty/readme.txt").write_text("nothing")
    with pytest.raises(DataError, match=r"empty holds no images; found readme.txt"):
        score_archive(model, str(tmp_path / "empty"), str(tmp_path / "out"))
    assert not os.path.exists(tmp_path / "out/score_table")
