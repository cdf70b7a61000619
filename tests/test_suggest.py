"""What to look at next: values, drawing and spreading against plain references; the whole on a real Ray."""

import json
import os
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from conftest import calibrated_model, fitted, made_images
from made_archive import calibration, score_rows, write_archive
from PIL import Image
from scipy.spatial.distance import pdist, squareform
from scipy.stats import chisquare
from typer.testing import CliRunner

from raydiff import cli, cluster, methods, storage
from raydiff.errors import DataError, SettingsError
from raydiff.images import pack, packed_archive
from raydiff.learning import peaks
from raydiff.learning.candidates import Seen, drawn, rows_of
from raydiff.learning.peaks import looks_of
from raydiff.learning.spread import Looks, mean_square, spread
from raydiff.learning.suggest import FILE, MOST, SCHEMA, suggest
from raydiff.learning.teaching_value import teaching_value, ways_above
from raydiff.model.calibration import Calibration, CategoryCalibration
from raydiff.model.folder import Model, load
from raydiff.model.scorer import examples_of
from raydiff.nn.crops import crops
from raydiff.scoring import table
from raydiff.verdicts import table as verdicts
from raydiff.views import Layout

CALIBRATION = calibration(("bolt", "cloth", "nut"))
NOTHING = Seen(pa.array([], pa.string()), pa.array([], pa.string()))
NOON = datetime(2026, 5, 7, 12, tzinfo=UTC)


# The value


@pytest.mark.parametrize("reach", [1.0, 2.5])
def test_the_value_halves_with_each_way_above_and_each_tenth_below(reach):
    own = CategoryCalibration(scores=tuple(range(100, 300)), rate=0.01, reach=reach)
    middle, threshold = 200, 200 + reach * 98  # the second largest of 200 is 298
    assert own.threshold == pytest.approx(threshold)
    way = threshold - middle
    scores = threshold + way * np.array([0, 1, 2, 3, -0.1, -0.2, -1])
    assert ways_above(scores, own) == pytest.approx([0, 1, 2, 3, -0.1, -0.2, -1], abs=1e-12)
    assert teaching_value(ways_above(scores, own)) == pytest.approx([1, 1 / 2, 1 / 4, 1 / 8, 1 / 2, 1 / 4, 2**-10])
    assert (teaching_value(np.array([-1e9, 1e9])) > 0).all()


# Drawing


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    """Of several parts; some images are of no category that the model knows."""
    rows = score_rows(20_000, CALIBRATION)
    category = np.array(rows["category"].to_pylist(), object)
    category[::50] = "screw"
    guessed = np.full(len(rows), None, object)
    guessed[::100] = "nut"
    for name, values in (("category", category), ("category_guessed", guessed)):
        rows = rows.set_column(rows.column_names.index(name), name, pa.array(values, pa.string()))
    return write_archive(tmp_path_factory.mktemp("scores"), rows, CALIBRATION)


def by_hand(out):
    """Of each image with a score: its ways above the threshold, image by image."""
    found = {}
    for row in table.read(out).to_pylist():
        if row["score"] is not None:
            own = CALIBRATION.of(row["category_guessed"] or row["category"])
            middle = sorted(own.scores)[len(own.scores) // 2]
            found[row["uri"]] = (row["score"] - own.threshold) / (own.threshold - middle)
    return found


def test_all_of_a_small_archive_come_in_the_most_valuable_first(out):
    found = drawn(out, CALIBRATION, NOTHING, 50_000, seed=0)
    expected = by_hand(out)
    assert dict(zip(found["uri"].to_pylist(), found["ways"].to_pylist(), strict=True)) == pytest.approx(expected)
    values = found["value"].to_numpy()
    assert (np.diff(values) <= 0).all()
    assert set(found["applied"].to_pylist()) == {"bolt", "cloth", "nut", ""}
    shards = dict(zip(found["uri"].to_pylist(), found["shard"].to_pylist(), strict=True))
    for uri in table.parts(out):
        assert {shards[each] for each in table.read_file(uri)["uri"].to_pylist() if each in shards} == {
            table.part_name(uri)
        }


def test_drawing_follows_its_seed_and_takes_what_is_first_of_more(out):
    few, again, other = (drawn(out, CALIBRATION, NOTHING, 200, seed)["uri"].to_pylist() for seed in (0, 0, 1))
    assert few == again
    assert len(set(few) & set(other)) < 150
    assert set(few) < set(drawn(out, CALIBRATION, NOTHING, 400, 0)["uri"].to_pylist())


def test_the_first_one_is_drawn_in_proportion_to_its_value(tmp_path):
    own = CALIBRATION.of("bolt")
    ways = np.array([0.0, 1.0, 2.0, -0.1, -0.3])
    rows = score_rows(5, calibration(("bolt",)))
    scores = own.threshold + ways * own.reach * own.way
    rows = rows.set_column(rows.column_names.index("score"), "score", pa.array(scores))
    found = write_archive(tmp_path, rows, CALIBRATION)
    uris = rows["uri"].to_pylist()
    firsts = [drawn(found, CALIBRATION, NOTHING, 1, seed)["uri"][0].as_py() for seed in range(1500)]
    counts = np.array([firsts.count(uri) for uri in uris])
    values = np.array([1, 1 / 2, 1 / 4, 1 / 2, 1 / 8])
    assert chisquare(counts, 1500 * values / values.sum()).pvalue > 0.001


def test_equal_content_comes_in_once_and_none_that_is_judged(tmp_path):
    rows = score_rows(9000, CALIBRATION)  # two parts
    contents = pa.array([f"{number % 4500:064x}" for number in range(9000)])
    rows = rows.set_column(rows.column_names.index("content_hash"), "content_hash", contents)
    found = write_archive(tmp_path, rows, CALIBRATION)
    place = dict(zip(rows["uri"].to_pylist(), range(9000), strict=True))
    ways = by_hand(found)
    best = {}
    for uri, way in ways.items():
        of = place[uri] % 4500
        best[of] = max(best.get(of, (-1, "")), (teaching_value(np.array([way]))[0], uri))
    seen = Seen(rows["uri"].combine_chunks().slice(0, 100), contents.slice(100, 100))
    got = drawn(found, CALIBRATION, seen, 9000, 0)["uri"].to_pylist()
    left = {uri for of, (_, uri) in best.items() if of >= 200}
    # those whose uri alone is judged come in by their other place
    twins = {uri for uri in ways if 4500 <= place[uri] < 4600}
    assert set(got) == left | twins
    assert rows_of(found, got[:7]).num_rows == 7


# Spreading


def plain_spread(values, offered, known, count):
    """The rule, word by word."""
    together = np.concatenate([offered.vectors, known.vectors]).astype(float)
    names = offered.categories + known.categories
    distance = squareform(pdist(together))
    scale = {}
    for name in set(offered.categories):
        mine = [place for place, each in enumerate(names) if each == name]
        scale[name] = (distance[np.ix_(mine, mine)] ** 2).mean()
    there = list(range(len(values), len(names)))
    chosen = []
    for _ in range(min(count, len(values))):
        gains = []
        for place in range(len(values)):
            near = [distance[place, each] ** 2 / scale[names[place]] for each in there if names[each] == names[place]]
            gains.append(-1 if place in there else values[place] * min([1, *near]))
        chosen.append(int(np.argmax(gains)))
        there.append(chosen[-1])
    return chosen


@pytest.mark.parametrize("judged", [0, 7])
def test_what_is_spread_is_what_the_rule_says(judged):
    rng = np.random.default_rng(judged)
    values = np.sort(rng.random(60))[::-1]
    offered = Looks(rng.choice(["bolt", "cloth", "nut"], 60).tolist(), rng.normal(size=(60, 5)).astype(np.float32))
    known = Looks(["bolt"] * judged, rng.normal(size=(judged, 5)).astype(np.float32))
    assert [each.place for each in spread(values, offered, known, 25)] == plain_spread(values, offered, known, 25)
    assert len(spread(values, offered, known, 100)) == 60


def test_an_image_is_told_what_it_is_most_like():
    offered = Looks(["bolt"] * 3 + ["cloth"], np.array([[0, 0], [10, 0], [1, 0], [3, 3]], np.float32))
    known = Looks(["bolt"], np.array([[9, 0]], np.float32))
    found = spread(np.array([1.0, 0.9, 0.8, 0.7]), offered, known, 4)
    scale = mean_square(np.array([[0, 0], [10, 0], [1, 0], [9, 0]], np.float32))
    assert [each.place for each in found] == [0, 3, 1, 2]
    assert [each.like for each in found] == [4, None, 4, 0]
    assert [each.novelty for each in found] == pytest.approx([1, 1, 1 / scale, 1 / scale])


def test_images_that_all_look_the_same_are_suggested_by_their_value():
    same = Looks(["bolt"] * 4, np.ones((4, 3), np.float32))
    nothing = Looks([], np.empty((0, 3), np.float32))
    found = spread(np.array([0.9, 0.5, 0.3, 0.1]), same, nothing, 3)
    assert [(each.place, each.novelty) for each in found] == [(0, 1), (1, 0), (2, 0)]


def test_the_mean_square_is_that_of_all_pairs():
    vectors = np.random.default_rng(0).normal(3, 2, (40, 6)).astype(np.float32)
    assert mean_square(vectors) == pytest.approx((squareform(pdist(vectors)) ** 2).mean(), rel=1e-5)


# Looks


def test_a_crop_is_what_lies_around_its_place_without_brightness_and_contrast():
    images = torch.from_numpy(made_images(4, 64)).permute(0, 3, 1, 2)
    places = torch.tensor([[30, 20], [0, 0], [63, 63], [5, 60]])
    found = crops(images, places)
    for image, (top, left), got in zip(images.numpy(), [(22, 12), (0, 0), (48, 48), (0, 48)], found, strict=True):
        cut = image[:, top : top + 16, left : left + 16].astype(float)
        cells = cut.reshape(3, 8, 2, 8, 2).mean((2, 4)).ravel()
        np.testing.assert_allclose(got, (cells - cells.mean()) / cells.std(), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(crops(images * 0.5 + 20, places), found, rtol=1e-3, atol=1e-4)
    assert (crops(torch.full((1, 3, 64, 64), 7), places[:1]) == 0).all()


@pytest.mark.parametrize("name", methods.names())
def test_every_method_tells_looks_at_a_place(name):
    method, _ = fitted(name, made_images(8))
    image = made_images(2, seed=4)
    image = np.stack([image[0], image[0], image[1]])
    found = method.looks(examples_of(method, image), torch.tensor([[4, 4], [28, 28], [4, 4]]))
    assert found.shape[0] == 3
    assert found.isfinite().all()
    assert (found[0] - found[1]).norm() > 0.1
    assert (found[0] - found[2]).norm() > 0.1


def between(features, y, x):
    """(C,) what features (C, 4, 4) of an image of 32 pixels are at a pixel, worked out axis by axis."""
    at = np.arange(4) * 8 + 3.5  # where patches have their middles
    rows = np.array([[np.interp(y, at, channel[:, column]) for column in range(4)] for channel in features.numpy()])
    return np.array([np.interp(x, at, row) for row in rows])


def test_the_look_of_a_feature_method_lies_between_its_patches():
    method, _ = fitted("nearest_patch", made_images(8))
    examples = examples_of(method, made_images(2, seed=4))
    features = method.standardised(examples)
    places = torch.tensor([[0, 31], [15, 21]])
    found = method.looks(examples, places)
    for image, (y, x), got in zip(features, places.tolist(), found, strict=True):
        np.testing.assert_allclose(got, between(image, y, x), rtol=1e-4, atol=1e-4)
    method.part_scales.fill_(4)
    torch.testing.assert_close(method.looks(examples, places), found / 4)


def test_of_an_image_of_tiles_the_one_around_the_peak_is_looked_at():
    method, _ = fitted("nearest_patch", made_images(8), view={"tile": 32, "overlap": 8})
    model = Model(method, method.ScoreSettings(blur_sigma=1, pool=4))
    large = np.concatenate(np.concatenate(made_images(9, 32, seed=3).reshape(3, 3, 32, 32, 3), 2))[:70, :90]
    large = with_square(large, 50, 66)
    small = with_square(made_images(1, 32, seed=3)[0], 8, 8)[:20]  # smaller than a tile
    found = looks_of(model, [large, small], ["thing", "thing"])
    looked_at = []
    for image, look in zip((large, small), found, strict=True):
        (peaks,) = model.score([image], ["thing"]).maps
        y, x = np.unravel_index(peaks.argmax(), peaks.shape)
        layout = Layout(*image.shape[:2], 32, 8)
        middles = {(top, left): np.hypot(top + 16 - y, left + 16 - x) for top, left in layout.origins}
        top, left = min(middles, key=middles.get)
        tile = layout.tiles(image)[layout.origins.index((top, left))]
        (features,) = method.standardised(examples_of(method, tile[None]))
        np.testing.assert_allclose(look, between(features, y - top, x - left), rtol=1e-4, atol=1e-4)
        looked_at.append((int(top), int(left)))
    assert looked_at[0] != looked_at[1] == (0, 0)


def with_square(image, top, left):
    found = image.copy()
    found[top : top + 10, left : left + 10] = (255, 0, 0)
    return found


# The whole


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    """A model folder that knows bolts alone; its threshold lies somewhat below the scores of stains."""
    uri = calibrated_model(tmp_path_factory.mktemp("model"), "bolt")
    found = load(uri, "cpu")
    found.calibration = Calibration.fit({"bolt": np.linspace(8, 28.5, 40).tolist()}, rate=0.1)
    found.save(uri)
    return uri


ODD = {"red": (2, 2), "green": (2, 22), "blue": (22, 2), "black": (13, 13)}
COLOURS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255), "black": (0, 0, 0)}


def drawn_images():
    """By name: 30 copies with noise of one stain, four other oddities, and 30 normals."""
    rng = np.random.default_rng(7)
    normal = made_images(31, 32, seed=9)
    stained = normal[30].copy()
    stained[12:20, 18:28] = (255, 255, 0)
    noisy = stained + rng.normal(0, 3, (30, *stained.shape))
    found = {f"stain{number:02d}": image for number, image in enumerate(noisy.clip(0, 255).astype(np.uint8))}
    for number, (name, (y, x)) in enumerate(ODD.items()):
        found[name] = normal[number].copy()
        found[name][y : y + 8, x : x + 8] = COLOURS[name]
    return found | {f"normal{number:02d}": image for number, image in enumerate(normal[:30])}


def scored_archive(folder, model_uri) -> str:
    """A folder as jobs/score_archive.py leaves it, of `drawn_images`, scored here."""
    model, images = load(model_uri, "cpu"), drawn_images()
    scores = model.score(list(images.values()), ["bolt"] * len(images)).scores
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for (name, image), score in zip(images.items(), scores, strict=True):
        Image.fromarray(image).save(folder / f"{name}.png")
        told = {"uri": str(folder / f"{name}.png"), "category": "bolt", "day": NOON.date(), "score": float(score)}
        rows.append(told | {"content_hash": name.encode().hex(), "split": "test", "method": "nearest_patch"})
    out = str(folder / "out")
    table.write(table.part_uri(out, "000000"), pa.Table.from_pylist(rows, schema=table.SCHEMA))
    storage.write_json(storage.join(out, table.RUN), {"model_id": model.id, "images": str(folder / "packed")})
    storage.write_json(storage.join(out, table.MANIFEST), {"complete": True, "shards": {}})
    return out


def names_of(uris) -> list[str]:
    return [uri.rpartition("/")[2].removesuffix(".png") for uri in uris]


@pytest.mark.ray
def test_no_suggestion_is_like_another_or_like_what_is_judged(local_ray, tmp_path, model):
    out = scored_archive(tmp_path / "line4", model)
    scores = {row["uri"]: row["score"] for row in table.read(out).to_pylist()}
    own = load(model, "cpu").calibration.of("bolt")
    value = {uri: teaching_value(ways_above(np.array([score]), own))[0] for uri, score in scores.items()}
    best = names_of(sorted(value, key=value.get)[::-1])
    assert all(name.startswith("stain") for name in best[:5])  # the value alone would bring five times the same

    command = ["suggest", "--archive", out, "--model", model]
    done = CliRunner().invoke(cli.app, [*command, "-n", "5", "--json"])
    assert done.exit_code == 0, done.output
    document = json.loads(done.stdout)
    told = pq.read_table(f"{out}/{FILE}")
    assert told.schema.equals(SCHEMA)
    rows = told.to_pylist()
    assert [each | {"day": str(NOON.date())} for each in rows] == document["suggestions"]
    assert [each["rank"] for each in rows] == [1, 2, 3, 4, 5]
    names = names_of(each["uri"] for each in rows)
    assert names[0].startswith("stain")
    assert sum(name.startswith("stain") for name in names) <= 2
    assert len(set(names) & set(ODD)) >= 3
    assert rows[0]["reason"] == "above the threshold (p 0.073), the first of its category"
    assert [each["score"] for each in rows] == [scores[each["uri"]] for each in rows]
    assert [each["p_value"] for each in rows] == [own.p_value(each["score"]) for each in rows]
    assert (document["candidates"], document["unread"], document["judged"]) == (64, 0, 0)

    packed = {"uri": [], "data": [], "error": []}
    for name in ("black", "red", "blue"):  # of which the first two were packed
        path = tmp_path / f"line4/{name}.png"
        for column, value in zip(packed.values(), (str(path), path.read_bytes(), None), strict=True):
            column.append(value)
        path.unlink()
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(packed, schema=pack.SCHEMA).slice(0, 2), sink)
    place = storage.join(packed_archive.data_uri(str(tmp_path / "line4/packed")), "000000.parquet")
    storage.write_bytes(place, sink.getvalue().to_pybytes())
    verdicts.append(out, verdicts.of([verdicts.Verdict(rows[0]["uri"], "normal", "anna", NOON)]))
    done = CliRunner().invoke(cli.app, [*command, "-n", "60"])
    assert done.exit_code == 0, done.output
    assert "60 images to judge next, of 63 candidates; judged already: 1" in done.stdout
    assert "and 10 more" in done.stdout
    assert "1 candidates cannot be read any more" in done.stdout
    rows = pq.read_table(f"{out}/{FILE}").to_pylist()
    again = names_of(each["uri"] for each in rows)
    assert len(set(again)) == 60
    assert not {names[0], "blue"} & set(again)
    assert {"black", "red"} < set(again)
    assert not again[0].startswith("stain")
    assert sum(name.startswith("stain") for name in again[:4]) <= 1
    assert any(each["reason"].endswith("somewhat like one judged normal") for each in rows)


@pytest.mark.ray
def test_what_can_not_be_read_any_more_leaves_nothing_written(local_ray, tmp_path, model):
    out = scored_archive(tmp_path / "line4", model)
    for path in (tmp_path / "line4").glob("*.png"):
        path.write_bytes(b"junk")
    with pytest.raises(DataError, match=r"none of 64 candidates .* can be read .*this is no PNG"):
        suggest(out, model, 5, 0)
    assert not (tmp_path / "line4/out" / FILE).exists()


def test_what_can_not_be_suggested_from_is_refused(tmp_path, model):
    def refused(archive, model_uri, *more):
        done = CliRunner().invoke(cli.app, ["suggest", "--archive", str(archive), "--model", str(model_uri), *more])
        assert isinstance(done.exception, DataError | SettingsError), done.output
        return str(done.exception)

    out = scored_archive(tmp_path / "line4", model)
    assert refused(tmp_path / "none", model) == (
        f"{tmp_path / 'none'} holds no run.json; give the --out of jobs/score_archive.py"
    )
    other = calibrated_model(tmp_path / "other", "nut")
    assert "holds the scores of another model" in refused(out, other)
    bare = load(model, "cpu")
    bare.calibration = None
    bare.save(str(tmp_path / "bare"))
    storage.write_json(storage.join(out, table.RUN), {"model_id": bare.id})
    assert "is not calibrated, so that nothing is near a threshold" in refused(out, tmp_path / "bare")
    for number in ("0", str(MOST + 1)):
        assert f"-n {number} images cannot be suggested; give 1 to 1,000" in refused(out, model, "-n", number)
    uris = table.read(out)["uri"].to_pylist()
    verdicts.append(out, verdicts.of([verdicts.Verdict(uri, "unsure", "anna", NOON) for uri in uris]))
    assert "has no image to suggest: of all that have a score there are verdicts" in refused(out, model)
    storage.write_json(storage.join(out, table.MANIFEST), {"complete": False, "shards": {}})
    assert "is not scored to its end" in refused(out, model)


def test_where_no_image_has_a_score_that_is_said(tmp_path, model):
    out = scored_archive(tmp_path / "line4", model)
    (part,) = table.parts(out)
    rows = table.read_file(part)
    storage.delete(part)
    place = rows.column_names.index("score")
    table.write(part, rows.set_column(place, "score", pa.nulls(len(rows), pa.float64())))
    with pytest.raises(DataError, match="has no image to suggest: none has a score; its column `error` says why"):
        suggest(out, model, 5, 0)


def test_workers_are_told_whole_paths(tmp_path, model, monkeypatch):
    out = scored_archive(tmp_path / "line4", model)
    told = []

    def looked(*args):
        told.extend(args[:2])
        return peaks.Found([], np.empty((0, 0), np.float32), "not looked at")

    monkeypatch.setattr(cluster, "connect", lambda address: None)
    monkeypatch.setattr(peaks, "looks_at_peaks", looked)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match="not looked at"):
        suggest("line4/out", os.path.relpath(model), 5, 0)
    assert told == [model, out]
