"""Images above the limit of pixels: read in bands where they are scored, with the row and the map of the whole."""

from __future__ import annotations

import io
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest
import tifffile
from conftest import fitted, made_images
from image_files import Tiff
from PIL import Image
from ray.exceptions import RayActorError

import raydiff
from raydiff import storage
from raydiff.errors import ImageError, StorageUnavailable
from raydiff.images import small, tiff_bands
from raydiff.images.decode import decode
from raydiff.images.pages import File
from raydiff.images.stream import Reading, decode_rows
from raydiff.model.calibration import Calibration
from raydiff.model.description import describe
from raydiff.model.folder import Model
from raydiff.scoring import large, part_scorer, table
from raydiff.scoring.archive_run import score_archive
from raydiff.scoring.large import LargeScored, score_large
from raydiff.scoring.maps import read_map
from raydiff.scoring.part_scorer import NO_PICTURE, PartScorer
from raydiff.scoring.unfinished import work_uri

LIMIT = 5000  # pixels
VIEW = {"tile": 40, "overlap": 8, "crop": (0, 0.1, 1, 1)}  # the networks' input is 32 wide
NAMES = ["deep.tif", "jpeg.tif", "large.png", "large.tif", "narrow.tif", "pages.tif#2", "small.tif"]


def wide(height: int, width: int, seed: int) -> np.ndarray:
    """Of images as the model was trained on, side by side."""
    some = made_images(40, seed=seed).reshape(4, 10, 32, 32, 3).transpose(0, 2, 1, 3, 4).reshape(128, 320, 3)
    return some[:height, :width]


@pytest.fixture(scope="module", autouse=True)
def _some_rows_at_a_time():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tiff_bands, "BAND", 1000)
        yield


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """An archive of a few images, most of them above the limit, and a model."""
    root = tmp_path_factory.mktemp("large")
    folder = root / "archive" / "cloth"
    folder.mkdir(parents=True)
    deep = wide(100, 90, 1)[..., :1].astype("<u2") * 16
    (folder / "deep.tif").write_bytes(Tiff(deep, 16, codec="lzw", predictor=2, tile=16, big=True).file())
    tifffile.imwrite(folder / "jpeg.tif", wide(100, 90, 2), compression="jpeg")
    Image.fromarray(wide(100, 90, 3)).save(folder / "large.png")
    (folder / "large.tif").write_bytes(Tiff(wide(90, 120, 4), photometric=2, codec="deflate").file())
    (folder / "narrow.tif").write_bytes(Tiff(wide(30, 200, 5), photometric=2).file())
    tifffile.imwrite(folder / "pages.tif", np.stack([wide(100, 60, 6), wide(100, 60, 7)]), photometric="rgb")
    (folder / "small.tif").write_bytes(Tiff(wide(50, 60, 8), photometric=2).file())
    method, _ = fitted("nearest_patch", made_images(12), view=VIEW)
    model = Model(method, method.ScoreSettings())
    scores = model.score([wide(90, 120, seed) for seed in range(20, 50)]).scores
    model.calibration = Calibration.fit({"cloth": scores.tolist()}, rate=0.1)
    model.save(str(root / "model"))
    return root


@pytest.fixture(scope="module")
def model(root) -> Model:
    return raydiff.load(str(root / "model"), "cpu")


class Handle:
    """Stands for a deployment's handle; answers are made in this process."""

    def __init__(self, model: Model, answer=score_large) -> None:
        self.asked: list[tuple[str, dict, str | None]] = []
        self.score = SimpleNamespace(remote=lambda images, categories, maps: self._answer(model.score_seen, images))
        self.score_large = SimpleNamespace(remote=self._large)
        self._model, self._scored_large = model, answer

    def _large(self, *given):
        self.asked.append(given)
        return self._answer(self._scored_large, self._model, *given)

    def _answer(self, call, *given):
        return SimpleNamespace(result=lambda timeout_s: call(*given))


def reading(model: Model, **changes) -> Reading:
    return Reading.of(model.method.settings, marks_large=True, max_pixels=LIMIT)._replace(**changes)


def columns(root: Path, model: Model, names=NAMES, **changes):
    uris = [f"{root}/archive/cloth/{name}" for name in names]
    of_each = {
        "uri": uris,
        "category": ["cloth"] * len(uris),
        "split": ["test"] * len(uris),
        "defect": ["x"] * len(uris),
    }
    which = {"shard": ["0"], "start": [0], "begun": [0.0], "stopped": [""]}
    return decode_rows(pa.table(of_each), reading(model, **changes)) | which


def scorer(root: Path, model: Model, scores: Path, maps="none", answer=score_large) -> tuple[PartScorer, Handle]:
    handle = Handle(model, answer)
    return PartScorer(handle, describe(str(root / "model")), str(scores), maps), handle


def test_what_is_marked(root, model, monkeypatch):
    fetched = []
    monkeypatch.setattr(storage, "read_bytes", lambda uri, read=storage.read_bytes: fetched.append(uri) or read(uri))
    found = columns(root, model)
    marked = dict(zip(NAMES, found["large"], strict=True))
    assert [name for name in NAMES if marked[name]] == [
        name for name in NAMES if name not in ("large.png", "small.tif")
    ]
    assert marked["deep.tif"] == '{"category": "cloth"}'
    assert sorted({Path(uri).name for uri in fetched}) == ["large.png", "small.tif"]  # of the others, the header alone
    assert found["error"].tolist().count("") == len(NAMES) - 1
    sizes = dict(zip(NAMES, zip(found["height"], found["width"], strict=True), strict=True))
    assert (sizes["large.tif"], sizes["pages.tif#2"], sizes["large.png"]) == ((90, 120), (100, 60), (0, 0))


@pytest.mark.parametrize("how", [{"marks_large": False}, {"view": {"crop": (0, 0, 1, 1)}}, {"view": {"roi": "auto"}}])
def test_what_else_is_refused_by_its_size(root, model, how):
    """Without tiles, with a region, and where nobody scores in bands."""
    if "view" in how:
        how = {"view": model.view.changed(**{"tile": None, "overlap": None, "crop": None, **how["view"]})}
    found = columns(root, model, ["large.tif"], **how)
    assert found["large"].tolist() == [""]
    assert "90 pixels, more than the limit of 5,000" in found["error"][0]


def test_rows_and_maps_are_the_whole_images(root, model, tmp_path):
    scoring, _ = scorer(root, model, tmp_path, "tiff")
    records = dict(zip(NAMES, scoring.records(columns(root, model)), strict=True))
    whole, _ = scorer(root, model, tmp_path / "whole", "tiff")
    wanted = dict(zip(NAMES, whole.records(columns(root, model, max_pixels=10**6)), strict=True))
    read = ["deep.tif", "large.tif", "pages.tif#2", "small.tif"]
    for name in read:
        own, theirs = dict(records[name]), dict(wanted[name])
        np.testing.assert_array_equal(read_map(own.pop("map_uri")), read_map(theirs.pop("map_uri")))
        assert own == theirs
        assert own["score"] is not None
        assert own["is_anomalous"] is not None
    refused = {name: record["error"] for name, record in records.items() if name not in read}
    assert "its pixels are JPEGs; save it" in refused["jpeg.tif"]
    assert "more than the limit of 5,000" in refused["large.png"]
    assert "200 x 30 pixels, and what is to be seen of it narrower than a tile of 40" in refused["narrow.tif"]
    for name in refused:
        assert records[name]["content_hash"] == File((root / "archive/cloth" / name).read_bytes()).digest()
        assert (records[name]["height"], records[name]["width"], records[name].get("score")) == (None, None, None)
    data = (root / "archive/cloth/pages.tif").read_bytes()
    assert records["pages.tif#2"]["content_hash"] == File(data, 2).digest()


def test_of_a_picture_is_said_that_there_is_none(root, model, tmp_path):
    scoring, handle = scorer(root, model, tmp_path, "png")
    first, second = scoring.records(columns(root, model, ["large.tif", "small.tif"]))
    assert (first["note"], first.get("map_uri"), second["note"]) == (NO_PICTURE, None, None)
    assert decode(Path(second["map_uri"]).read_bytes()).shape == (45, 60, 3)
    assert [asked[2] for asked in handle.asked] == [None]


def test_a_run_that_ends_in_the_middle_leaves_nothing_half(root, model, tmp_path, monkeypatch):
    """And done again it gives what it would have given at once."""
    scores, rows = tmp_path / "scores", columns(root, model)
    scoring, _ = scorer(root, model, scores, "tiff")

    def broken(*given):
        yield next(whole(*given))
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        whole = large.map_rows
        patch.setattr(large, "map_rows", broken)
        with pytest.raises(KeyboardInterrupt):
            scoring(rows)
    assert sorted(path.name for path in scores.rglob("*") if path.is_file()) == ["small.tif.tiff"]
    assert scoring(rows)["images"] == len(NAMES)
    again, _ = scorer(root, model, tmp_path / "again", "tiff")
    again(rows)
    one, other = (table.read_file(work_uri(str(folder), "0", 0)) for folder in (scores, tmp_path / "again"))
    assert one.drop_columns("map_uri").equals(other.drop_columns("map_uri"))


def test_a_store_that_is_away_stops_the_run(root, model, tmp_path):
    scoring, _ = scorer(root, model, tmp_path, answer=lambda *_: LargeScored(stopped="s3://b/large.tif: no answer"))
    told = scoring(columns(root, model))
    assert told["stopped"].tolist() == ["s3://b/large.tif: no answer"]
    assert not list(tmp_path.rglob("*.parquet"))


def test_what_stops_and_what_is_the_images_own_fault(root, model, tmp_path, monkeypatch):
    uri = f"{root}/archive/cloth/large.tif"
    monkeypatch.setattr(large, "patiently", lambda call, *given: call(*given))
    lost = score_large(model, str(tmp_path / "lost.tif"), {}, None)
    assert (lost.error, lost.content_hash) == (f"{tmp_path}/lost.tif is not there; check the name", "")
    (tmp_path / "file").write_bytes(b"")
    stopped = score_large(model, uri, {}, str(tmp_path / "file" / "a.tiff"))
    assert "is a file, not a folder" in stopped.stopped
    damaged = bytearray(Path(uri).read_bytes())
    middle = len(damaged) // 2
    damaged[middle : middle + 1000] = bytes(1000)
    (tmp_path / "bad.tif").write_bytes(damaged)
    found = score_large(model, str(tmp_path / "bad.tif"), {}, str(tmp_path / "bad.tiff"))
    assert "the TIFF file is damaged" in found.error
    assert found.content_hash == File(bytes(damaged)).digest()
    assert not (tmp_path / "bad.tiff").exists()

    def away(uri):
        raise StorageUnavailable("no answer")

    monkeypatch.setattr(storage, "local_copy", away)
    assert score_large(model, uri, {}, None) == LargeScored(stopped="no answer")


@pytest.mark.parametrize(("deaths", "lost"), [(2, False), (99, True)])
def test_an_image_that_kills_replicas_costs_itself_alone(root, model, tmp_path, deaths, lost):
    left = iter(range(deaths))

    def deadly(*given):
        for _ in left:
            raise RayActorError()
        return score_large(*given)

    scoring, handle = scorer(root, model, tmp_path, answer=deadly)
    first, second = scoring.records(columns(root, model, ["large.tif", "small.tif"]))
    assert len(handle.asked) == part_scorer.ATTEMPTS
    assert ((first["error"] is not None), second["error"]) == (lost, None)


def test_a_category_that_is_not_known_is_guessed_first(tmp_path):
    method, _ = fitted("nearest_patch", made_images(12), categories=["a", "b"] * 6, view=VIEW)
    own = Model(method, method.ScoreSettings())
    image = wide(90, 120, 4)
    (tmp_path / "a.tif").write_bytes(Tiff(image, photometric=2).file())
    found = score_large(own, str(tmp_path / "a.tif"), {"category": "c"}, None).scored
    wanted = own.score([image], ["c"])
    assert found is not None
    assert (found.scores, found.guessed) == (wanted.scores, wanted.guessed)


def test_it_is_not_fetched_to_be_shown(root, monkeypatch):
    monkeypatch.setattr(storage, "read_bytes", None)
    with pytest.raises(ImageError, match="120 x 90 pixels, more than the limit of 5,000"):
        small.small({"uri": f"{root}/archive/cloth/large.tif"}, 64, max_pixels=LIMIT)


@pytest.mark.s3
def test_in_object_storage(root, model, s3_bucket, tmp_path):
    sink = io.BytesIO((root / "archive/cloth/large.tif").read_bytes())
    uri, map_uri = f"{s3_bucket}/large.tif", f"{s3_bucket}/maps/large.tiff"
    storage.write_bytes(uri, sink.getvalue())
    assert decode_rows(pa.table({"uri": [uri]}), reading(model))["large"].tolist() == ["{}"]
    found = score_large(model, uri, {}, map_uri)
    own = score_large(model, f"{root}/archive/cloth/large.tif", {}, str(tmp_path / "a.tiff"))
    assert found.scored is not None
    assert (found.content_hash, found.scored.scores) == (own.content_hash, own.scored.scores)
    assert storage.read_bytes(map_uri) == (tmp_path / "a.tiff").read_bytes()


@pytest.mark.ray
def test_an_archive_of_them(local_ray, root, tmp_path):
    """From the job's call to the score table, and again after a kill between two parts."""
    limits = {"maps": "tiff", "replicas": 1, "pages": None}
    out, whole = str(tmp_path / "scores"), str(tmp_path / "whole")
    data, model = str(root / "archive"), str(root / "model")
    score_archive(model, data, whole, max_pixels=10**6, **limits)
    score_archive(model, data, out, max_pixels=LIMIT, **limits)
    found, wanted = ({Path(row["uri"]).name: row for row in table.read(each).to_pylist()} for each in (out, whole))
    assert sorted(found) == sorted({name.split("#")[0] for name in NAMES})
    for name in ("deep.tif", "large.tif", "small.tif"):
        maps = [read_map(rows[name].pop("map_uri")) for rows in (found, wanted)]
        np.testing.assert_array_equal(*maps)
        assert found[name] == wanted[name]
    assert [name for name, row in found.items() if row["error"]] == ["jpeg.tif", "large.png", "narrow.tif", "pages.tif"]
    before = table.read(out)
    (name,) = table.part_names(out)
    storage.delete(table.part_uri(out, name))
    storage.delete(storage.join(out, table.SUMMARY))
    summary, _ = score_archive(model, data, out, max_pixels=LIMIT, **limits)
    assert summary.scored_now == len(before)
    assert table.read(out).equals(before)
