"""Bulk scoring through a deployment on a real Ray: one row an image, the model's own scores, nothing done twice."""

from __future__ import annotations

import hashlib
import json
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from conftest import fitted, made_images, write_mvtec
from PIL import Image
from ray import serve
from ray.exceptions import RayActorError
from ray.serve.context import _get_global_client

import raydiff
from raydiff.errors import ClusterError, DataError, SettingsError
from raydiff.images import table as image_table
from raydiff.images.decode import decode
from raydiff.images.shards import ROWS_PER_PART, Shard
from raydiff.images.stream import Reading, decode_rows
from raydiff.images.survey import find_images
from raydiff.model.calibration import Calibration
from raydiff.model.description import describe
from raydiff.model.folder import Model
from raydiff.model.scored import Scored
from raydiff.scoring import bulk, deployment, table
from raydiff.scoring.bulk import score_table
from raydiff.scoring.deployment import Scorer, deployed
from raydiff.scoring.maps import read_map
from raydiff.scoring.part_scorer import PartScorer
from raydiff.scoring.router import PATIENT
from raydiff.scoring.unfinished import Unfinished, work_uri

pytestmark = pytest.mark.ray


def with_columns(images: pa.Table) -> pa.Table:
    """What a user's own table says beyond ours."""
    numbers = range(len(images))
    taken = pa.array([None, *(1_777_777_777_777_777_777 - number for number in numbers[1:])], pa.timestamp("ns"))
    return images.append_column("serial", [[f"{number:04d}" for number in numbers]]).append_column("taken", taken)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Two model folders with the same weights, one calibrated; tables of all and of few images of one archive."""
    root = tmp_path_factory.mktemp("bulk")
    write_mvtec(root / "mvtec", train=1, test=33, size=36)
    (root / "mvtec/bolt/test/spot/002.png").write_bytes(b"no image")
    whole = (root / "mvtec/cloth/test/good/005.png").read_bytes()
    (root / "mvtec/cloth/test/good/005.png").write_bytes(whole[: len(whole) // 2])
    Image.fromarray(made_images(1, 50)[0, :20]).save(root / "mvtec/cloth/test/good/006.png")  # not square
    images = find_images(str(root / "mvtec"))
    (root / "mvtec/cloth/test/spot/007.png").unlink()
    image_table.write(str(root / "all.parquet"), with_columns(images))
    rows = pc.and_(pc.equal(images["category"], "bolt"), pc.match_substring(images["uri"], "/00"))
    image_table.write(str(root / "few.parquet"), images.filter(rows))
    method, _ = fitted("nearest_patch", made_images(8))
    model = Model(method, method.ScoreSettings())
    model.save(str(root / "uncalibrated"))
    normal = model.score(list(made_images(30, seed=9))).scores
    # The threshold lies among bolt's scores; cloth has too few normals to promise the rate and falls back to all.
    model.calibration = Calibration.fit({"bolt": normal.tolist(), "cloth": [float(normal.max()) * 0.5]}, rate=0.2)
    model.save(str(root / "calibrated"))
    return root


@pytest.fixture(scope="module")
def handle(local_ray, folders):
    with deployed(str(folders / "calibrated"), replicas=2) as handle:
        yield handle


@pytest.fixture(scope="module")
def scored(handle, folders):
    """A finished run over all images with float maps: its folder and its summary."""
    out = folders / "scores"
    return out, score_table(handle, str(folders / "calibrated"), str(folders / "all.parquet"), str(out), maps="tiff")


def image_of(row) -> np.ndarray | None:
    """The decoded image of a row, None for the three bad ones."""
    if row["error"]:
        return None
    return decode(Path(row["uri"]).read_bytes())


def test_one_row_an_image(scored, folders):
    out, summary = scored
    images = image_table.read(str(folders / "all.parquet"))
    rows = table.read(str(out))
    assert images.num_rows == 134 > 2 * ROWS_PER_PART
    assert [Path(part).name for part in table.parts(str(out))] == ["part-0000-000000-134.parquet"]
    assert sorted(os.listdir(out)) == ["anomaly_maps", "manifest.json", "run.json", "score_table"]
    assert json.loads((out / "manifest.json").read_text())["complete"] is True
    assert len(pq.read_table(out / "score_table")) == 134  # as any reader of Parquet takes it
    assert rows.schema.names == [*table.SCHEMA.names, "serial", "taken"]
    assert rows.select(images.column_names).equals(images)  # each beside its own serial number
    bad = {row["uri"].split("mvtec/")[1]: row for row in rows.to_pylist() if row["error"]}
    assert sorted(bad) == ["bolt/test/spot/002.png", "cloth/test/good/005.png", "cloth/test/spot/007.png"]
    for row in bad.values():
        nothing = ["height", "width", "score", "p_value", "threshold", "is_anomalous", "map_uri"]
        assert [row[name] for name in nothing] == [None] * len(nothing)
    assert "is not there" in bad["cloth/test/spot/007.png"]["error"]
    assert bad["cloth/test/spot/007.png"]["content_hash"] is None
    assert bad["bolt/test/spot/002.png"]["content_hash"] == hashlib.sha256(b"no image").hexdigest()
    alarms = sum(row["is_anomalous"] is True for row in rows.to_pylist())
    assert 0 < alarms < 131
    assert summary[:4] == (134, 134, 3, alarms)


def test_whoever_calls_waits_for_a_replica_that_computes(handle):
    """By default Serve passes over a replica that does not say within 0.1 s how much it has in hand."""
    assert PATIENT.get_request_router_class().queue_len_response_deadline_s == 5
    details = _get_global_client().get_serve_details()["applications"]
    (app,) = [app for name, app in details.items() if name.startswith(deployment.APP)]
    config = app["deployments"]["scorer"]["deployment_config"]
    assert config["request_router_config"]["request_router_class"] == "raydiff.scoring.router:PatientRouter"


def test_scores_and_maps_are_the_models_own(scored, folders):
    out, _ = scored
    model = raydiff.load(str(folders / "calibrated"), "cpu")
    rows = [row for row in table.read(str(out)).to_pylist() if not row["error"]]
    alone = [model.score([image_of(row)]) for row in rows]
    assert [row["score"] for row in rows] == [float(scored.scores[0]) for scored in alone]
    for row, own in zip(rows, alone, strict=True):
        image = image_of(row)
        assert row["category_guessed"] == own.guessed[0]
        calibration = model.calibration.of(own.guessed[0] or row["category"])
        assert (row["height"], row["width"]) == image.shape[:2]
        assert (row["method"], row["model_id"]) == ("nearest_patch", model.id)
        assert row["threshold"] == calibration.threshold
        assert row["p_value"] == calibration.p_value(row["score"])
        assert row["is_anomalous"] == (row["score"] > calibration.threshold)
        wanted = "/".join([row["category"], row["split"], row["defect"], Path(row["uri"]).stem + ".tiff"])
        assert row["map_uri"] == f"{out}/anomaly_maps/{wanted}"
        size = image.shape[1], image.shape[0]
        upsampled = np.asarray(Image.fromarray(own.maps[0]).resize(size, Image.Resampling.BILINEAR))
        np.testing.assert_array_equal(read_map(row["map_uri"]), upsampled)


def test_only_what_is_missing_is_done_again(scored, handle, folders):
    out, first = scored
    before = table.read(str(out))
    whole = out / "score_table/part-0000-000000-134.parquet"
    whole.unlink()  # as if the run had been killed with two of three parts scored
    for start in (0, 128):
        part = before.slice(start, ROWS_PER_PART)
        table.write(work_uri(str(out), "0000-000000-134", start), part)
    lines = str(folders / "calibrated"), str(folders / "all.parquet"), str(out)
    summary = score_table(handle, *lines, maps="tiff")
    assert summary[:4] == (134, ROWS_PER_PART, first.errors, first.alarms)
    assert table.read(str(out)).equals(before)
    assert not (out / "_work").exists()

    files = {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()}
    again = score_table(handle, *lines, maps="tiff")
    assert again[:5] == (134, 0, first.errors, first.alarms, 0)
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()} == files


@pytest.mark.parametrize(
    ("model", "images", "maps", "other"),
    [
        ("uncalibrated", "all", "tiff", "model_id"),
        ("calibrated", "few", "tiff", "images"),
        ("calibrated", "all", "none", "maps"),
    ],
)
def test_a_folder_of_another_run_is_refused(scored, handle, folders, model, images, maps, other):
    out, _ = scored
    before = sorted(os.listdir(out))
    with pytest.raises(DataError, match=rf"{out} holds scores of another run \(other {other}\)"):
        score_table(handle, str(folders / model), str(folders / f"{images}.parquet"), str(out), maps)
    assert sorted(os.listdir(out)) == before


def test_heat_maps_need_a_calibration(handle, folders, tmp_path):
    few = str(folders / "few.parquet")
    with pytest.raises(SettingsError, match="raydiff calibrate"):
        score_table(handle, str(folders / "uncalibrated"), few, str(tmp_path / "none"), maps="png")
    assert not (tmp_path / "none").exists()
    score_table(handle, str(folders / "calibrated"), few, str(tmp_path / "scores"), maps="png")
    rows = table.read(str(tmp_path / "scores")).to_pylist()
    assert len(rows) == 21
    assert sum(row["error"] is not None for row in rows) == 1
    for row in rows:
        if not row["error"]:
            with Image.open(row["map_uri"]) as picture:
                assert (picture.format, picture.size) == ("PNG", (row["width"], row["height"]))
    damaged = next(row for row in rows if row["label"] == 1 and row["is_anomalous"])
    heat = decode(Path(damaged["map_uri"]).read_bytes()).astype(int)
    assert (heat[..., 0] - heat[..., 2])[9:18, 9:18].mean() > 20  # hot where the dark square is


def test_without_calibration(handle, folders, tmp_path):
    lines = str(folders / "few.parquet"), str(tmp_path)
    summary = score_table(handle, str(folders / "calibrated"), *lines, calibrated=False)
    rows = table.read(str(tmp_path)).to_pylist()
    assert summary.alarms == 0
    assert all(row["score"] is not None or row["error"] for row in rows)
    assert all(row[name] is None for row in rows for name in ("p_value", "threshold", "is_anomalous", "map_uri"))
    described = json.loads((folders / "uncalibrated/model.json").read_text())
    assert {row["model_id"] for row in rows} == {described["id"]}


class Handle:
    """Stands for a deployment handle; the answer is made in this process."""

    def __init__(self, answer) -> None:
        self.score = self
        self._answer = answer

    def remote(self, images, categories, maps):
        self._images = images
        return self

    def result(self, timeout_s):
        return self._answer(self._images)


def test_what_a_method_tells_of_an_image_is_in_its_row(folders, tmp_path):
    method, _ = fitted("glad", made_images(4))
    score = method.ScoreSettings(start_step=400, denoising_steps=4, least_step=0, switch_distance=0.005)
    model = Model(method, score)
    model.save(str(tmp_path / "glad"))
    described = describe(str(tmp_path / "glad"))
    images = image_table.read(str(folders / "few.parquet"))
    which = {"shard": ["0"], "start": [0], "begun": [0.0], "stopped": [""]}
    scores = str(tmp_path / "scores")
    PartScorer(Handle(model.score), described, scores, "none")(decode_rows(images, Reading(model.image_size)) | which)
    rows = table.read_file(work_uri(scores, "0", 0)).to_pylist()
    good = [row for row in rows if not row["error"]]
    assert len(good) == len(rows) - 1 > 5
    told = model.score([image_of(row) for row in good]).details
    assert sorted(told) == ["chosen_step", "probing_score"]
    for place, row in enumerate(good):
        assert dict(row["details"]) == {name: values[place] for name, values in told.items()}
    assert [row["details"] for row in rows if row["error"]] == [None]


def test_images_of_many_tiles_are_asked_for_a_few_at_a_time(folders, tmp_path, monkeypatch):
    """A part of them in one request would be a gigabyte, and keep its replica for minutes."""
    monkeypatch.setattr("raydiff.views.view.TILES", 8)
    method, _ = fitted("nearest_patch", made_images(8), view={"tile": 32})
    model = Model(method, method.ScoreSettings())
    model.save(str(tmp_path / "model"))
    asked = []

    def answer(images):
        asked.append(len(images))
        return model.score_seen(images)

    for number, size in enumerate((60, 32, 60, 150, 40)):
        Image.fromarray(made_images(1, size, seed=number)[0]).save(tmp_path / f"{number}.png")
    rows = pa.table({"uri": [f"{tmp_path}/{number}.png" for number in range(5)], "category": [""] * 5})
    decoded = decode_rows(rows, Reading.of(method.settings))
    scorer = PartScorer(Handle(answer), describe(str(tmp_path / "model")), str(tmp_path / "scores"), "none")
    assert [record["score"] for record in scorer.records(decoded)] == model.score(
        [decode((tmp_path / f"{n}.png").read_bytes()) for n in range(5)]
    ).scores.tolist()
    assert asked == [2, 1, 1, 1]  # 4 and 1 tiles, 4, 25, 4


def test_a_replica_computes_one_request_after_the_other(folders, monkeypatch):
    """In one thread, or each of Serve's threads would keep the memory that a request took."""
    monkeypatch.setattr(deployment.cluster, "use_assigned_device", lambda: "cpu")
    scorer = Scorer(str(folders / "calibrated"))
    images, threads = made_images(2), set()
    wanted = scorer.model.score_seen(images, ["bolt"] * 2).scores

    def watched(*given):
        threads.add(threading.get_ident())
        return Model.score_seen(scorer.model, *given)

    monkeypatch.setattr(scorer.model, "score_seen", watched)
    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(lambda _: scorer.score(images, ["bolt"] * 2, False), range(6)))
    assert len(threads) == 1
    for each in found:
        np.testing.assert_array_equal(each.scores, wanted)
        assert each.maps.size == 0


class Replicas(Handle):
    """Replicas that die of dark images."""

    def __init__(self, deadly: int) -> None:
        super().__init__(self._scored)
        self.deadly = deadly  # how often a dark image kills
        self.calls = 0

    def _scored(self, images):
        self.calls += 1
        if self.deadly and (images.max(axis=(1, 2, 3)) == 0).any():
            self.deadly -= 1
            raise RayActorError()
        return Scored(images.mean(axis=(1, 2, 3)), images[..., 0].astype(np.float32), {}, [None] * len(images))


@pytest.mark.parametrize(("deadly", "calls", "lost"), [(0, 1, 0), (2, 3, 0), (99, 3 + 3 + 3, 1)])
def test_an_image_that_kills_replicas_costs_itself_alone(folders, tmp_path, deadly, calls, lost):
    images = made_images(4)
    images[1] = 0
    handle = Replicas(deadly)
    scorer = PartScorer(handle, describe(str(folders / "uncalibrated")), str(tmp_path), "none")
    found = scorer._scores(images, ["bolt"] * len(images))
    assert handle.calls == calls
    assert [one is None for one in found] == [lost > 0 and place == 1 for place in range(4)]
    assert [float(one.scores[0]) for one in found if one] == [
        image.mean() for place, image in enumerate(images) if not lost or place != 1
    ]


def test_replicas_that_die_of_every_image_are_not_blamed_on_the_images(folders, tmp_path):
    scorer = PartScorer(Replicas(99), describe(str(folders / "uncalibrated")), str(tmp_path), "none")
    with pytest.raises(ClusterError, match="end whatever image they are given"):
        scorer._scores(np.zeros((3, 32, 32, 3), np.uint8), ["bolt"] * 3)


def test_a_run_goes_in_waves_of_whole_shards(monkeypatch):
    monkeypatch.setattr(bulk, "PARTS_PER_WAVE", 5)
    sizes = [4, 1, 1, 9, 2, 2]  # parts
    missing = [Unfinished(Shard(f"{n}", "", parts * ROWS_PER_PART - 1), frozenset()) for n, parts in enumerate(sizes)]
    waves = list(bulk._waves(missing))
    assert [[each.shard.name for each in wave] for wave in waves] == [["0", "1"], ["2"], ["3"], ["4", "5"]]


def test_what_a_killed_job_left_deployed_is_taken_down(handle, folders):
    with deployed(str(folders / "calibrated"), replicas=1):  # so that Serve runs
        pass
    left = serve.deployment(Scorer, name="scorer", ray_actor_options={"num_cpus": 0}).bind(str(folders / "calibrated"))
    serve.run(left, name="raydiff-77000000", route_prefix=None)
    with deployed(str(folders / "calibrated"), replicas=1):
        assert "raydiff-77000000" not in serve.status().applications


def test_the_rate_is_of_all_that_was_done_since_the_first_image_was_read():
    # reading begins 3 s before the first part is back; parts overlap and come back in another order
    meter = bulk.Meter()
    assert meter.rate() is None
    for begun, now in ((107.0, 110.0), (106.0, 111.0), (109.0, 112.0), (108.5, 114.0)):
        meter.add({"images": 10, "errors": 1, "alarms": 2}, begun, now)
    assert meter.rate() == pytest.approx(40 / 8.0)
    assert meter.counts == {"images": 40, "errors": 4, "alarms": 8}


def test_score_tables_of_several_columns_are_read_as_one(tmp_path):
    """What a table of images says beyond ours, in some parts only: those written before have no such columns."""
    given = pa.Table.from_pylist([{"uri": "b"}], table.SCHEMA).append_column("serial", [["0012"]])
    table.write(table.part_uri(str(tmp_path), "0000-000000-1"), pa.Table.from_pylist([{"uri": "a"}], table.SCHEMA))
    table.write(table.part_uri(str(tmp_path), "0000-000001-1"), given)
    found = table.read(str(tmp_path))
    assert found.schema.names == [*table.SCHEMA.names, "serial"]
    assert found.select(["uri", "serial"]).to_pylist() == [{"uri": "a", "serial": None}, {"uri": "b", "serial": "0012"}]
    assert table.read_file(table.parts(str(tmp_path))[1], ["serial"])["serial"].to_pylist() == ["0012"]
