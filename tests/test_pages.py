"""`--pages`: TIFFs of several pages as rows of their pages, from the listing to the map file."""

from __future__ import annotations

import io
import itertools
import json
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import tifffile
from conftest import calibrated_model, fitted, made_images
from image_files import Tiff, assemble
from PIL import Image

from raydiff import cluster, storage
from raydiff.errors import DataError, ImageError, SettingsError, StorageUnavailable
from raydiff.images import archive, pack, packed_archive, pages
from raydiff.images.decode import decode, decode_mask
from raydiff.images.holdout import roles
from raydiff.images.index import index
from raydiff.images.listing import Listing
from raydiff.images.masks import read_mask
from raydiff.images.pages import File, Pages, Shared, count, file_of, split
from raydiff.images.parts import PartPattern
from raydiff.images.shards import parts
from raydiff.images.stream import Reading, decode_rows, read_image
from raydiff.images.survey import find_images
from raydiff.images.tables import own_table
from raydiff.model.description import describe
from raydiff.model.folder import Model
from raydiff.planning.archive import _listed
from raydiff.progress import phase
from raydiff.report.facts import archive_command
from raydiff.scoring import table as score_table
from raydiff.scoring.archive_run import source_of
from raydiff.scoring.bulk import check_claim
from raydiff.scoring.map_place import map_place
from raydiff.scoring.part_scorer import PartScorer
from raydiff.scoring.service import Arguments, Service
from raydiff.scoring.unfinished import work_uri

ALL, FIRST, THIRD = Pages(None), Pages(1), Pages(3)
PICTURES = made_images(5, 32)


def stack(*pictures: np.ndarray, **options: Any) -> bytes:
    some = [Image.fromarray(picture) for picture in pictures]
    some[0].save(sink := io.BytesIO(), "TIFF", save_all=True, append_images=some[1:], **options)
    return sink.getvalue()


def of_tifffile(values: np.ndarray, **options: Any) -> bytes:
    tifffile.imwrite(sink := io.BytesIO(), values, **options)
    return sink.getvalue()


STACKS = {
    "plain": stack(*PICTURES[:3]),
    "deflate": stack(*PICTURES[:3], compression="tiff_adobe_deflate"),
    "tiles": of_tifffile(PICTURES[:3], photometric="rgb", tile=(16, 16), metadata=None),
    "BigTIFF": of_tifffile(PICTURES[:3], photometric="rgb", bigtiff=True, metadata=None),
    "big-endian": of_tifffile(PICTURES[:3], photometric="rgb", byteorder=">", metadata=None),
    "ImageJ's, behind one directory": of_tifffile(PICTURES[:3], imagej=True, photometric="rgb"),
}


@pytest.mark.parametrize("kind", STACKS)
def test_each_page_is_its_own_picture(kind: str, tmp_path: Path) -> None:
    data = STACKS[kind]
    for page in (1, 2, 3):
        np.testing.assert_array_equal(decode(data, page=page), PICTURES[page - 1])
        np.testing.assert_array_equal(decode_mask(data, page=page), (PICTURES[page - 1] != 0).any(axis=2))
    with pytest.raises(ImageError, match=r"holds 3 pages; say which are images with --pages first, all or a page's"):
        decode(data)
    with pytest.raises(ImageError, match="has no page 4, 3 is its last"):
        decode(data, page=4)
    (tmp_path / "x.tif").write_bytes(data)
    assert count(str(tmp_path / "x.tif")) == 3


def test_reduced_copies_are_no_pages(tmp_path: Path) -> None:
    page = Tiff(PICTURES[0], 8, 2, rows=32)
    small = {254: ("I", (1,)), 256: ("I", (1,)), 257: ("I", (1,))}
    own = {256: ("I", (32,)), 257: ("I", (32,)), 258: ("H", (8, 8, 8)), 262: ("H", (2,)), 277: ("H", (3,))}
    own |= {273: ("I", (8,)), 278: ("I", (32,)), 279: ("I", (32 * 32 * 3,))}
    body = b"".join(page.segments())
    data = assemble(body, [own, small, own], "<", False)
    (tmp_path / "x.tif").write_bytes(data)
    assert count(str(tmp_path / "x.tif")) == 2
    for number in (1, 2):
        np.testing.assert_array_equal(decode(data, page=number), PICTURES[0])
    with pytest.raises(ImageError, match="no page 3"):
        decode(data, page=3)


def test_pages_behind_one_directory_must_lie_plainly() -> None:
    words = b"ImageJ=1.53\nimages=7\n\0"
    more = {270: ("s", tuple(bytes([b]) for b in words))}
    packed = Tiff(PICTURES[0], 8, 2, codec="lzw", more=more).file()
    with pytest.raises(ImageError, match="packed behind one directory"):
        decode(packed, page=2)
    short = Tiff(PICTURES[0], 8, 2, more=more).file()
    with pytest.raises(ImageError, match="truncated"):
        decode(short, page=2)


def test_other_kinds_hold_one_image() -> None:
    Image.fromarray(PICTURES[0]).save(png := io.BytesIO(), "PNG")
    np.testing.assert_array_equal(decode(png.getvalue(), page=1), PICTURES[0])
    with pytest.raises(ImageError, match="a PNG file holds one image, and page 2 was asked for"):
        decode(png.getvalue(), page=2)


def test_names_of_pages() -> None:
    assert split("s3://b/a.tif#12") == ("s3://b/a.tif", 12)
    assert split("/a/b.TIFF#1") == ("/a/b.TIFF", 1)
    for name in ("a.tif", "a.tif#0", "a.tif#x", "a.png#1", "a#3.tif", "a.tif#3.tiff", "run#3/a.tif", "a.tif#"):
        assert split(name) == (name, None)
    assert file_of("a.tif#3") == "a.tif"


@pytest.mark.parametrize(("text", "found"), [(None, None), ("all", ALL), ("first", FIRST), ("3", THIRD)])
def test_the_option(text: str | None, found: Pages | None) -> None:
    assert Pages.parse(text) == found


@pytest.mark.parametrize(
    ("uris", "option"),
    [
        (["a.png", "b.tif"], None),
        (["a.tif#1", "b.tif"], "--pages 1"),
        (["a.tif#3", "b.tif#3"], "--pages 3"),
        (["a.tif#1", "a.tif#2", "b.tif"], "--pages all"),
        (["a.png#2"], None),
    ],
)
def test_the_option_that_gave_images_their_names(uris: list[str], option: str | None) -> None:
    found = Pages.seen_in(uris)
    assert (found and found.option()) == option
    assert found is None or Pages.parse(found.option().split()[1]) == found
    command = archive_command("m", uris)
    assert command == "python jobs/score_archive.py --model m --data ARCHIVE --out SCORES" + (
        f" {option}" if option else ""
    )


@pytest.mark.parametrize("text", ["0", "-1", "last", "1.5", "", "1,2", "All"])
def test_the_option_is_refused_where_it_means_nothing(text: str) -> None:
    with pytest.raises(SettingsError, match="none of first, all and a page's number"):
        Pages.parse(text)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A file of three pages, one of one, one of no TIFF; a damaged one."""
    root = tmp_path / "line"
    root.mkdir()
    (root / "a.tif").write_bytes(stack(*PICTURES[:3]))
    (root / "b.tif").write_bytes(stack(PICTURES[3]))
    Image.fromarray(PICTURES[4]).save(root / "c.png")
    (root / "d.tif").write_bytes(b"II*\0\xff\xff\xff\xff")
    return root


def names(images: pa.Table, root: Path) -> list[str]:
    return [uri.removeprefix(f"{root}/") for uri in images["uri"].to_pylist()]


@pytest.mark.parametrize(
    ("which", "found"),
    [
        (None, ["a.tif", "b.tif", "c.png", "d.tif"]),
        (ALL, ["a.tif#1", "a.tif#2", "a.tif#3", "b.tif", "c.png", "d.tif"]),
        (FIRST, ["a.tif#1", "b.tif", "c.png", "d.tif"]),
        (THIRD, ["a.tif#3", "b.tif#3", "c.png", "d.tif#3"]),
    ],
)
def test_folders_to_train_on_and_archives(folder: Path, which: Pages | None, found: list[str]) -> None:
    images = find_images(str(folder), pages=which)
    assert names(images, folder) == found
    listed = pa.concat_tables(list(Listing(str(folder), pages=which)))
    assert sorted(names(listed, folder)) == found
    assert listed.column_names == archive.SCHEMA.names
    rows = decode_rows(images, Reading(32))
    assert [bool(error) for error in rows["error"]] == [
        name.startswith("d") or name in ("a.tif", "b.tif#3") for name in found
    ]
    where = {"a.tif#1": 0, "a.tif#2": 1, "a.tif#3": 2, "b.tif": 3, "c.png": 4}
    for name, picture, error in zip(found, rows["image"], rows["error"], strict=True):
        if not error:
            np.testing.assert_array_equal(picture, PICTURES[where[name]])


def test_an_archive_grows_by_pages(folder: Path, tmp_path: Path) -> None:
    images = str(tmp_path / "images")
    assert archive.grow(images, Listing(str(folder), pages=ALL)).new == 6
    (folder / "e.tif").write_bytes(stack(*PICTURES[:2]))
    assert archive.grow(images, Listing(str(folder), pages=ALL)) == archive.Growth(2, 6, 0)


def test_a_dry_run_counts_pages(folder: Path) -> None:
    model = {"card": {}, "calibration": None}
    for which, number in ((None, 4), (ALL, 6)):
        with phase("listing") as shown:
            assert _listed(str(folder), [], model, which, shown)[1] == number


def test_pages_of_one_file_are_held_out_together(tmp_path: Path) -> None:
    root = tmp_path / "bolt"
    root.mkdir()
    for number in range(12):
        (root / f"{number}.tif").write_bytes(
            stack(*[np.full((4, 4), 9 * number + page, np.uint8) for page in range(3)])
        )
    images = find_images(str(root), pages=ALL)
    assert images["part"].to_pylist() == [file_of(uri) for uri in images["uri"].to_pylist()]
    of_file: dict[str, set[str]] = {}
    for uri, role in zip(images["uri"].to_pylist(), roles(images), strict=True):
        of_file.setdefault(file_of(uri), set()).add(role)
    assert len(of_file) == 12
    assert all(len(found) == 1 for found in of_file.values())
    own = find_images(str(root), pages=ALL, part_from=PartPattern(r"#(\d+)$"))
    assert set(own["part"].to_pylist()) == {"1", "2", "3"}
    for which in (None, FIRST, THIRD):
        assert "part" not in find_images(str(root), pages=which).column_names


def test_masks_of_pages(tmp_path: Path) -> None:
    root = tmp_path / "bolt"
    for place in ("train/good", "test/dent", "ground_truth/dent"):
        (root / place).mkdir(parents=True)
    for number in range(8):
        (root / f"train/good/{number}.tif").write_bytes(stack(PICTURES[0]))
    marked = [np.where(np.arange(32) < 8 * page, 255, 0).astype(np.uint8)[None].repeat(32, 0) for page in (1, 2, 3)]
    for name, masks in {"each": marked, "one": marked[:1], "other": marked[:2]}.items():
        (root / f"test/dent/{name}.tif").write_bytes(stack(*PICTURES[:3]))
        (root / f"ground_truth/dent/{name}_mask.tif").write_bytes(stack(*masks))
    images = find_images(str(root), pages=ALL).to_pylist()
    found = {row["uri"].rpartition("/")[2]: row["mask_uri"] for row in images if row["label"] == 1}
    assert len(found) == 9
    for page in (1, 2, 3):
        np.testing.assert_array_equal(read_mask(found[f"each.tif#{page}"]), marked[page - 1] > 0)
        np.testing.assert_array_equal(read_mask(found[f"one.tif#{page}"]), marked[0] > 0)
    with pytest.raises(ImageError, match="holds 2 pages"):
        read_mask(found["other.tif#1"])
    report = index(str(root), str(tmp_path / "images.parquet"), which=ALL)
    assert not report.unreadable
    assert len(report.bad_masks) == 3


def test_a_table_may_name_pages_itself(folder: Path) -> None:
    (folder / "own.csv").write_text("uri,serial\na.tif#2,7\nb.tif,8\n")
    for which in (None, ALL):
        images = find_images(str(folder / "own.csv"), pages=which)
        assert names(images, folder) == ["a.tif#2", "b.tif"]
        np.testing.assert_array_equal(decode_rows(images, Reading(32))["image"], PICTURES[[1, 3]])
    (folder / "list.txt").write_text("a.tif#1\na.tif#3\n")
    assert names(own_table.read(str(folder / "list.txt")), folder) == ["a.tif#1", "a.tif#3"]
    (folder / "all.csv").write_text("uri,serial\na.tif,7\nb.tif,8\n")
    images = find_images(str(folder / "all.csv"), pages=ALL)
    assert images["serial"].to_pylist() == ["7", "7", "7", "8"]


def test_the_content_of_a_page_has_a_hash_of_its_own(folder: Path) -> None:
    uris = [f"{folder}/a.tif#{page}" for page in (1, 2)]
    hashes = [read_image(uri, Reading(32)).content_hash for uri in uris]
    assert len({*hashes, read_image(f"{folder}/a.tif", Reading(32)).content_hash}) == 3
    assert hashes == [File((folder / "a.tif").read_bytes(), page).digest() for page in (1, 2)]


def test_a_file_is_fetched_once_for_its_pages(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    real = storage.read_bytes
    lock = threading.Lock()

    def counted(uri: str) -> bytes:
        with lock:
            asked.append(storage.name(uri))
        return real(uri)

    monkeypatch.setattr(storage, "read_bytes", counted)
    images = find_images(str(folder), pages=ALL)
    asked.clear()
    decode_rows(images, Reading(32))
    assert sorted(asked) == ["a.tif", "b.tif", "c.png", "d.tif"]


def test_a_fetch_that_failed_is_tried_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, answers = storage.read_bytes, itertools.chain([False], itertools.repeat(True))

    def moody(uri: str) -> bytes:
        if next(answers):
            return real(uri)
        raise StorageUnavailable("not now")

    monkeypatch.setattr(storage, "read_bytes", moody)
    fetch = Shared()
    with pytest.raises(StorageUnavailable):
        fetch(f"{folder}/a.tif#1")
    assert fetch(f"{folder}/a.tif#1").page == 1
    monkeypatch.setattr(pages, "patiently", lambda call, *given: call(*given))
    monkeypatch.setattr(storage, "opened", moody)
    answers = iter([False])
    with pytest.raises(StorageUnavailable):  # how many images there are must not depend on that
        count(f"{folder}/a.tif")


def test_counting_reads_no_pixels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "x.tif").write_bytes(STACKS["plain"])
    monkeypatch.setattr(storage, "read_bytes", None)
    assert count(str(tmp_path / "x.tif")) == 3
    assert count(str(tmp_path / "missing.tif")) == 1


def test_each_page_has_a_map_of_its_own() -> None:
    uris = [f"/data/bolt/test/dent/x.tif#{page}" for page in (1, 2)] + ["/data/bolt/test/dent/x.tif"]
    found = [map_place(uri, "bolt", "test", "dent") for uri in uris]
    assert found == ["bolt/test/dent/x#1", "bolt/test/dent/x#2", "bolt/test/dent/x"]
    assert map_place("s3://b/x.tif#2", None, "test", None) == "b/x.tif#2"


class Handle:
    """A deployment's handle that answers at once."""

    def __init__(self, model: Model) -> None:
        self.score = self
        self._model = model

    def remote(self, images: np.ndarray, categories: list[str], maps: bool) -> Handle:
        self._asked = images
        return self

    def result(self, timeout_s: float) -> Any:
        return self._model.score(list(self._asked))


@pytest.fixture(scope="module")
def model_uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    return calibrated_model(tmp_path_factory.mktemp("model"), "line")


def test_the_score_table_and_the_maps_have_a_row_a_page(folder: Path, tmp_path: Path) -> None:
    method, _ = fitted("nearest_patch", made_images(8, 32))
    model = Model(method, method.ScoreSettings())
    model.save(str(tmp_path / "model"))
    images = find_images(str(folder), pages=ALL)
    which = {"shard": ["0"], "start": [0], "begun": [0.0], "stopped": [""]}
    scores = str(tmp_path / "scores")
    scorer = PartScorer(Handle(model), describe(str(tmp_path / "model")), scores, "tiff")
    scorer(decode_rows(images, Reading(model.image_size)) | which)
    rows = score_table.read_file(work_uri(scores, "0", 0)).to_pylist()
    assert [row["uri"].rpartition("/")[2] for row in rows] == names(images, folder)
    told = model.score(list(PICTURES)).scores
    np.testing.assert_allclose([row["score"] for row in rows if not row["error"]], told, rtol=1e-5)
    maps = [row["map_uri"] for row in rows if row["map_uri"]]
    assert len(set(maps)) == 5
    assert all(storage.exists(uri) for uri in maps)
    assert rows[0]["map_uri"].endswith("a.tif#1.tiff")


def test_scores_of_other_pages_are_not_mixed(model_uri: str, tmp_path: Path) -> None:
    model, out = describe(model_uri), str(tmp_path / "scores")
    assert source_of("/data", None) == "/data"

    def claim(which: Pages | None) -> dict[str, Any]:
        return check_claim(out, model, str(tmp_path / "images"), "none", 100, source_of("/data", which))

    storage.write_json(storage.join(out, "run.json"), claim(ALL))
    claim(ALL)
    for other in (None, FIRST):
        with pytest.raises(DataError, match="another run"):
            claim(other)


def test_a_packed_archive_knows_its_pages(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packed = str(tmp_path / "packed")
    monkeypatch.setattr(cluster, "connect", lambda: None)

    def here(missing: Any, place: str) -> Any:
        for shard in missing:
            yield shard, pack._pack_shard._function(shard, place)

    monkeypatch.setattr(pack, "_on_cluster", here)
    assert pack.pack(str(folder), packed, ALL).images == 6
    (part,) = parts(storage.join(packed, "images"))
    images = archive.read_shard(part.uri)
    assert names(images, folder)[:3] == ["a.tif#1", "a.tif#2", "a.tif#3"]
    rows = decode_rows(images, Reading(32), packed_archive.read_bytes(packed, part))
    plain = decode_rows(images, Reading(32))
    for column in ("image", "content_hash", "error"):
        np.testing.assert_array_equal(rows[column], plain[column])
    assert pack.pack(str(folder), packed, ALL).now == 0
    with pytest.raises(DataError, match="other --pages"):
        pack.pack(str(folder), packed)
    with pytest.raises(SettingsError, match="is packed: give --pages to raydiff index --pack"):
        source_of(packed, ALL)


def test_a_service_is_told_the_page(model_uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "use_assigned_device", lambda: "cpu")
    service = Service(Arguments(model=model_uri))
    Image.fromarray(PICTURES[1]).save(alone := io.BytesIO(), "PNG")
    second = service.answer(STACKS["plain"], page=2)
    assert second == service.answer(alone.getvalue())
    assert json.dumps(second)
