"""What another model would have changed on an archive: the rule against scoring everything, the whole on a real Ray."""

import contextlib
import json
from collections import Counter
from datetime import UTC, date, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from conftest import ListedExamples, fitted, made_images
from PIL import Image
from typer.testing import CliRunner

from raydiff import cli, cluster, methods, storage
from raydiff.errors import DataError, ImageError
from raydiff.images import archive as image_shards
from raydiff.images import pack, packed_archive
from raydiff.images.listing import Listing
from raydiff.images.shards import Part, shards
from raydiff.learning import falling
from raydiff.learning import rescore as rescoring
from raydiff.learning.changes import BY_DAY, FILE, SCHEMA, Counts, compare
from raydiff.learning.rescore import IMAGES, rescore
from raydiff.model.calibration import Calibration
from raydiff.model.description import DESCRIPTION, describe
from raydiff.model.folder import Model, load
from raydiff.model.scorer import examples_of
from raydiff.nn.positions import PositionStatistics, in_cells
from raydiff.scoring import bulk, deployment, table
from raydiff.scoring.bulk import claim
from raydiff.verdicts import table as verdicts

CATEGORIES = ("bolt", "nut")
NOON = datetime(2026, 5, 7, 12, tzinfo=UTC)
DAYS = ("2026-05-06", "2026-05-07", "2026-05-08")


def glare(images, side=12):
    found = images.copy()
    found[:, 2 : 2 + side, 2 : 2 + side] = 255
    return found


def scratched(images, seed=0):
    found = images.copy()
    found[:, 18:24, 18:24] = np.random.default_rng(seed).integers(0, 256, found[:, 18:24, 18:24].shape)
    return found


class Further(ListedExamples):
    """Examples that know their images."""

    @property
    def images(self):
        return [f"{place}.png" for place in range(len(self))]


def shared(count):
    return np.resize(CATEGORIES, count).tolist()


def calibrated(model, rate, reflections=0):
    normals = np.concatenate([made_images(60, seed=5), glare(made_images(reflections, seed=6))])
    names = shared(len(normals))
    scores = model.score(list(normals), names).scores
    by_name = {name: [score for score, other in zip(scores, names, strict=True) if other == name] for name in names}
    model.calibration = Calibration.fit(by_name, rate)
    return model


def parent_of(positions=False, **settings):
    """A model, and one whose bank has learnt what a reflection looks like, with lower thresholds."""
    method, _ = fitted("nearest_patch", made_images(24), categories=shared(24))
    model = Model(method, method.ScoreSettings(blur_sigma=2, pool=4, **settings))
    if positions:
        maps = torch.from_numpy(model.score(list(made_images(30, seed=8)), shared(30)).maps)
        model.positions = PositionStatistics.of(
            {name: in_cells(maps[place::2]) for place, name in enumerate(CATEGORIES)}
        )
    return calibrated(model, 0.1)


def learnt(parent, rate=0.3):
    method = type(parent.method).untrained(parent.method.settings)
    method.load_trained(parent.method.state_dict())
    method.learn(Further(examples_of(method, glare(made_images(12, seed=7)))), 0)
    assert len(method.memory_bank) > len(parent.method.memory_bank)
    return calibrated(Model(method, parent.score_settings, positions=parent.positions), rate, reflections=20)


# The rule


@pytest.mark.parametrize(("positions", "neighbours"), [(False, 1), (True, 1), (True, 3)])
def test_verdicts_by_the_rule_are_those_of_scoring_all(positions, neighbours):
    parent = parent_of(positions, neighbours=neighbours)
    child = learnt(parent)
    assert falling.why_not(child, parent) == ""
    fresh = made_images(300, seed=11)
    images = [*fresh[:150], *glare(fresh[150:200]), *glare(fresh[200:230], 6), *scratched(fresh[230:])]
    names = shared(300)
    names[::7] = ["unheard of"] * len(names[::7])  # the model guesses
    before, after = (model.score(images, names) for model in (parent, child))
    assert (after.maps <= before.maps + 1e-4).all()
    thresholds = [
        [model.calibration.of(guess or name).threshold for guess, name in zip(scored.guessed, names, strict=True)]
        for model, scored in ((parent, before), (child, after))
    ]
    was, now = before.scores > thresholds[0], after.scores > thresholds[1]
    rows = pa.table(
        {"score": before.scores, "category": names, "category_guessed": pa.array(before.guessed, pa.string())}
    )
    asked = falling.may_alarm(rows, child.calibration)
    assert (now & asked).tolist() == now.tolist()
    # what is looked at is not all, and some of it falls below; alarms go and alarms come
    assert now.sum() < asked.sum() < 250
    assert (was & ~now).sum() > 5
    assert (~was & now).sum() > 5


def test_what_lies_within_the_margin_is_looked_at():
    own = Calibration.fit({"bolt": list(range(100))}, 0.1)
    threshold, way = own.of("bolt").threshold, own.of("bolt").way
    scores = [threshold + way * at for at in (0.5, 0, -0.99 * falling.MARGIN, -1.01 * falling.MARGIN, -1)]
    rows = pa.table({"score": [*scores, None], "category": ["bolt"] * 6, "category_guessed": pa.nulls(6, pa.string())})
    assert falling.may_alarm(rows, own).tolist() == [True, True, True, False, False, False]


def changed(model, **buffers):
    """The model with other buffers."""
    method = type(model.method).untrained(model.method.settings)
    method.load_trained({**model.method.state_dict(), **buffers})
    return Model(method, model.score_settings, model.calibration, positions=model.positions)


def test_a_model_that_differs_in_more_than_a_grown_bank_is_not_taken_for_one_that_falls():
    parent = parent_of(positions=True)
    child = learnt(parent)
    method = child.method
    assert falling.why_not(child, parent) == ""
    assert falling.why_not(parent, parent) == ""  # also where only thresholds differ
    bank, places = method.memory_bank, method.bank_categories
    rows = method.bank_rows()
    lacking = torch.ones(len(bank), dtype=torch.bool)
    lacking[rows[1].start] = False
    moved = bank.clone()
    moved[3] += 1e-6
    swapped = bank.clone()
    swapped[[0, 1]] = swapped[[1, 0]]
    others = [
        changed(child, memory_bank=bank[lacking], bank_categories=places[lacking]),
        changed(child, memory_bank=moved),
        changed(child, memory_bank=swapped),
        changed(child, feature_std=method.feature_std * 1.001),
        changed(child, looks_mean=method.looks_mean + 1e-3),
    ]  # fmt: skip
    for other in others:
        assert "its scores may be higher" in falling.why_not(other, parent)
    assert "its scores may be higher" in falling.why_not(parent, child)  # what has forgotten
    pooled = Model(method, child.score_settings.model_copy(update={"pool": 5}), positions=child.positions)
    assert "other score settings" in falling.why_not(pooled, parent)
    assert "other position statistics" in falling.why_not(Model(method, child.score_settings), parent)
    lafite, _ = fitted("lafite", made_images(8))
    assert "other method" in falling.why_not(Model(lafite, lafite.ScoreSettings()), parent)
    sized, _ = fitted("nearest_patch", made_images(8), bank_size=7)
    assert "other train settings" in falling.why_not(
        Model(sized, parent.score_settings, positions=parent.positions), parent
    )


def test_of_more_neighbours_than_the_smaller_bank_has_nothing_is_told():
    parent = parent_of()
    most = min(rows.stop - rows.start for rows in parent.method.bank_rows())
    child = learnt(parent)
    assert min(rows.stop - rows.start for rows in child.method.bank_rows()) > most
    for neighbours, told in ((most, True), (most + 1, False)):
        assert (
            child.method.falls_from(parent.method, parent.score_settings.model_copy(update={"neighbours": neighbours}))
            is told
        )
    patch = parent.score_settings.model_copy(update={"image_score": "patch"})
    assert not child.method.falls_from(parent.method, patch)


@pytest.mark.parametrize("name", [name for name in methods.names() if name != "nearest_patch"])
def test_no_other_method_is_taken_for_one_that_falls(name):
    method, _ = fitted(name, made_images(8))
    assert not method.falls_from(method, method.ScoreSettings())


# The comparison


def drawn_table(folder, uris, days, scores, threshold, model_id="m"):
    rows = []
    for number, (uri, day, score) in enumerate(zip(uris, days, scores, strict=True)):
        known = score is not None
        rows.append(
            {
                "uri": uri,
                "category": CATEGORIES[number % 2],
                "day": date.fromisoformat(day) if day else None,
                "score": score,
                "is_anomalous": score > threshold if known else None,
                "error": None if known else "bad",
            }
        )
    for start in range(0, len(rows), 100):
        some = pa.Table.from_pylist(rows[start : start + 100], schema=table.SCHEMA)
        table.write(table.part_uri(folder, f"0001-{start // 100:06d}-{len(some)}"), some)
    return rows


def test_changes_are_those_that_are_counted_one_by_one(tmp_path):
    rng = np.random.default_rng(3)
    count = 430
    before = [None if rng.random() < 0.05 else float(rng.normal()) for _ in range(count)]
    after = [None if old is None or rng.random() < 0.05 else old + float(rng.normal(-0.5)) for old in before]
    uris = [f"line/{number}.png" for number in range(count)]
    days = [[*DAYS, None][number % 4] for number in range(count)]
    out, again = str(tmp_path / "out"), str(tmp_path / "again")
    old = drawn_table(out, uris, days, before, 1.0)
    new = drawn_table(again, uris, days, after, 0.5)
    said = {uris[number]: rng.choice(verdicts.VERDICTS) for number in range(0, count, 3)}
    verdicts.append(out, verdicts.of([verdicts.Verdict(uri, str(each), "anna", NOON) for uri, each in said.items()]))
    found = compare(out, again, lambda rows: np.ones(len(rows), bool), count)

    expected, judged, changes = {}, Counter(), []
    for one, other in zip(old, new, strict=True):
        was, now = one["is_anomalous"], other["is_anomalous"]
        if was is None or now is None:
            continue
        numbers = (1, was, now, was and not now, now and not was)
        key = one["category"], one["day"]
        expected[key] = tuple(map(sum, zip(expected.get(key, (0,) * 5), numbers, strict=True)))
        if was != now:
            judged[now, said.get(one["uri"])] += 1
            told = (one["uri"], one["category"], one["day"], one["score"], other["score"], was, now)
            changes.append(dict(zip(SCHEMA.names, told, strict=True)))
    assert found.counts == expected
    assert found.all() == tuple(map(sum, zip(*expected.values(), strict=True)))
    assert found.by_category()["nut"] == tuple(
        map(sum, zip(*(each for (name, _), each in expected.items() if name == "nut"), strict=True))
    )
    assert list(found.by_day()) == [*map(date.fromisoformat, DAYS), None]
    assert found.gone == {name: judged[False, name] for name in verdicts.VERDICTS}
    assert found.new == {name: judged[True, name] for name in verdicts.VERDICTS}
    assert min(found.gone.values()) > 0
    assert found.judged == len(said)
    assert found.without_score == sum(score is None for score in before)
    assert found.unread == sum(score is None for score in after) - found.without_score > 0
    written = pq.read_table(f"{again}/{FILE}")
    assert written.schema.equals(SCHEMA)
    assert written.to_pylist() == changes
    by_day = pq.read_table(f"{again}/{BY_DAY}").to_pylist()
    assert {(row["category"], row["day"]): tuple(row.values())[2:] for row in by_day} == expected

    with pytest.raises(DataError, match="holds scores of other images than those that are to be scored again"):
        compare(out, again, lambda rows: rows["score"].is_valid().to_numpy(), count)
    with pytest.raises(DataError, match="holds scores of other images"):  # of a part that is not asked for
        compare(out, again, lambda rows: np.full(len(rows), "line/1.png" not in rows["uri"].to_pylist()), count)


# The whole


def scored_here(handle, model_uri, table_uri, scores_uri, packed_uri=None, **_):
    """`bulk.score_table` without Ray: what is not scored yet, shard by shard."""
    model = load(model_uri, "cpu")
    for shard in shards(table_uri):
        if shard.name in table.part_names(scores_uri):
            continue
        rows = image_shards.read_shard(shard.uri).to_pylist()
        data = packed_archive.read_bytes(packed_uri, Part(0, shard.name, shard.uri, 0, shard.rows))
        for row, given in zip(rows, data or [None] * len(rows), strict=True):
            try:
                seen = model.seen(given if data else Path(row["uri"]).read_bytes(), row["category"])
            except (ImageError, OSError) as error:
                row["error"] = str(error)
                continue
            found = model.score_seen(seen.pixels[None], [row["category"]])
            threshold = model.calibration.of(found.guessed[0] or row["category"]).threshold
            row |= {"score": float(found.scores[0]), "category_guessed": found.guessed[0], "threshold": threshold}
            row["is_anomalous"] = row["score"] > threshold
        table.write(table.part_uri(scores_uri, shard.name), pa.Table.from_pylist(rows, schema=table.SCHEMA))
    counts = {
        name: {"images": int(name.split("-")[2]), "errors": 0, "alarms": 0} for name in table.part_names(scores_uri)
    }
    storage.write_json(storage.join(scores_uri, table.MANIFEST), {"complete": True, "shards": counts})


def packed_here(data, packed):
    """`pack.pack` without Ray."""
    image_shards.grow(packed_archive.images_uri(packed), Listing(str(data), CATEGORIES), 40)
    for shard in shards(packed_archive.images_uri(packed)):
        uris = image_shards.read_shard(shard.uri)["uri"].to_pylist()
        rows = [uris, [Path(uri).read_bytes() for uri in uris], [None] * len(uris)]
        sink = pa.BufferOutputStream()
        pq.write_table(pa.table(rows, schema=pack.SCHEMA), sink)
        place = storage.join(packed_archive.data_uri(packed), f"{shard.name}.parquet")
        storage.write_bytes(place, sink.getvalue().to_pybytes())
    storage.write_json(storage.join(packed, packed_archive.ABOUT), {"data": str(data)})


def write_images(folder, count, seed, first=0):
    fresh = made_images(count, seed=seed)
    stacks = [fresh[: count // 2], glare(fresh[count // 2 : -count // 4]), scratched(fresh[-count // 4 :])]
    for number, image in enumerate(np.concatenate(stacks)):
        place = folder / CATEGORIES[number % 2] / DAYS[number % 3]
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(place / f"{first + number:03d}.png")


class Site:
    """A run's models, and an archive that the older one scored."""

    def __init__(self, folder, packed=False):
        self.folder = folder
        self.parent, self.child = str(folder / "run/models/may"), str(folder / "run/models/june")
        parent = parent_of(positions=True)
        parent.save(self.parent)
        child = learnt(parent)
        child.card["learnt"] = {"parent": parent.id, "verdicts": [str(folder / "out")]}
        child.save(self.child)
        self.data, self.packed = folder / "data", str(folder / "packed") if packed else None
        write_images(self.data, 90, seed=21)
        (self.data / "bolt" / DAYS[0] / "bad.png").write_bytes(b"junk")
        self.out = str(folder / "out")
        if packed:
            packed_here(self.data, self.packed)
        self.score()

    def score(self):
        images = storage.join(self.out, IMAGES)
        if self.packed:
            for shard in packed_archive.shards_of(self.packed):
                image_shards.write_shard(images, shard.name, image_shards.read_shard(shard.uri))
        else:
            image_shards.grow(images, Listing(str(self.data), CATEGORIES), 40)
        model = describe(self.parent)
        claim(self.out, model, images, "none", 10**6, self.packed or str(self.data))
        storage.write_json(storage.join(self.out, DESCRIPTION), model)
        scored_here(None, self.parent, images, self.out, self.packed)

    def expected(self, skip=()):
        """(uri, score before, alarm before, alarm after) image by image, each scored alone by either model."""
        models = [load(uri, "cpu") for uri in (self.parent, self.child)]
        found = []
        for path in sorted(self.data.rglob("*.png")):
            if path.name == "bad.png" or path.name in skip:
                continue
            with Image.open(path) as file:
                image = np.asarray(file)
            name = path.parts[-3]
            scores = [float(model.score([image], [name]).scores[0]) for model in models]
            alarms = [s > model.calibration.of(name).threshold for s, model in zip(scores, models, strict=True)]
            found.append((str(path), scores[0], *alarms))
        return found


@pytest.fixture
def without_ray(monkeypatch):
    """Scoring in this process; what was deployed."""
    asked = []

    @contextlib.contextmanager
    def deployed(model_uri, replicas=None, engine="torch"):
        asked.append(model_uri)
        yield None

    monkeypatch.setattr(cluster, "connect", lambda address: None)
    monkeypatch.setattr(deployment, "deployed", deployed)
    monkeypatch.setattr(bulk, "score_table", scored_here)
    return asked


def told(place):
    return [
        (row["uri"], row["alarm_before"], row["alarm_after"]) for row in pq.read_table(f"{place}/{FILE}").to_pylist()
    ]


def changes_in(expected):
    return [(uri, was, now) for uri, _, was, now in expected if was != now]


def totals(expected):
    gone = sum(was and not now for _, _, was, now in expected)
    new = sum(now and not was for _, _, was, now in expected)
    return Counts(len(expected), sum(each[2] for each in expected), sum(each[3] for each in expected), gone, new)


def test_by_the_rule_and_by_all_the_same_changes_are_found(tmp_path, without_ray):
    site = Site(tmp_path)
    expected = site.expected()
    wanted = totals(expected)
    assert wanted.gone > 0 < wanted.new
    verdicts.append(site.out, verdicts.of([verdicts.Verdict(uri, "normal", "anna", NOON) for uri, *_ in expected]))

    found = rescore(site.out, site.child)
    assert found.place == f"{site.out}/rescored/{describe(site.child)['id']}"
    assert found.why_all == ""
    assert found.changes.all() == wanted
    assert sorted(told(found.place)) == sorted(changes_in(expected))
    assert (found.changes.unread, found.changes.without_score, found.images) == (0, 1, 91)
    calibration = load(site.child, "cpu").calibration
    own = [calibration.of(Path(uri).parts[-3]) for uri, *_ in expected]
    near = [
        score > each.threshold - falling.MARGIN * each.way for (_, score, _, _), each in zip(expected, own, strict=True)
    ]
    assert found.again == sum(near) < 91
    assert table.read(found.place).num_rows == found.again
    assert found.changes.gone == {"normal": wanted.gone, "defect": 0, "unsure": 0}
    said = "\n".join(found.sentences())
    assert f"scored again: {found.again} of 91 images; no score can be higher" in said
    assert f"alarms gone normal {wanted.gone}, defect 0, unsure 0; alarms new normal {wanted.new}," in said
    assert "has learnt from verdicts of this archive" in said
    assert "left out: 1 images that the archive has no score of" in said
    assert "parts are not told" not in said
    assert "parts are not told" in found._replace(parts=True).sentences()[-1]

    assert rescore(site.out, site.child) == found  # nothing is scored a second time
    assert without_ray == [site.child]

    elsewhere = str(tmp_path / "elsewhere")
    load(site.child, "cpu").save(elsewhere)
    every = rescore(site.out, elsewhere, str(tmp_path / "all"))
    assert "all 91 images, because the model that made the scores is not known here" in every.sentences()[0]
    assert every.changes.counts == found.changes.counts
    assert sorted(told(every.place)) == sorted(told(found.place))
    assert all(row["score_after"] is not None for row in pq.read_table(f"{every.place}/{FILE}").to_pylist())
    assert rescore(site.out, elsewhere, str(tmp_path / "more"), before_uri=site.parent).why_all == ""
    with pytest.raises(DataError, match="holds scores of another run"):
        rescore(site.out, site.child, every.place)


def test_an_archive_that_has_grown_is_gone_on_with(tmp_path, without_ray):
    site = Site(tmp_path)
    first = rescore(site.out, site.child)
    there = {path: path.stat().st_mtime_ns for path in Path(first.place, table.TABLE).iterdir()}
    write_images(site.data, 50, seed=33, first=500)
    site.score()
    found = rescore(site.out, site.child)
    assert found.place == first.place
    assert found.again > first.again
    assert found.changes.all() == totals(site.expected())
    assert {path: path.stat().st_mtime_ns for path in there} == there


def test_images_of_a_packed_archive_that_are_gone_are_taken_from_it(tmp_path, without_ray):
    site = Site(tmp_path, packed=True)
    expected = site.expected()
    gone = [path for path in site.data.rglob("*.png") if path.name > "030"]
    for path in gone:
        path.unlink()
    found = rescore(site.out, site.child)
    assert found.changes.all() == totals(expected)
    assert found.changes.unread == 0
    assert sorted(told(found.place)) == sorted(changes_in(expected))
    assert 0 < len(list(Path(found.place, "unpacked").rglob("*.png"))) < found.again
    elsewhere = str(tmp_path / "elsewhere")
    load(site.child, "cpu").save(elsewhere)
    every = rescore(site.out, elsewhere, str(tmp_path / "all"))
    assert every.changes.counts == found.changes.counts
    assert not list((tmp_path / "all").rglob("*.png"))


def test_images_that_are_gone_are_left_out_and_counted(tmp_path, without_ray):
    site = Site(tmp_path)
    expected = site.expected()
    lost = Path(changes_in(expected)[0][0])
    lost.unlink()
    elsewhere = str(tmp_path / "elsewhere")
    load(site.child, "cpu").save(elsewhere)
    found = rescore(site.out, elsewhere)
    assert found.changes.unread == 1
    assert found.changes.all() == totals([each for each in expected if each[0] != str(lost)])
    assert "left out: 1 images that cannot be read any more" in found.sentences()
    for path in site.data.rglob("*.png"):
        path.unlink(missing_ok=True)
    with pytest.raises(DataError, match=r"none has a verdict before and after; .* cannot be read: .*No such file"):
        rescore(site.out, elsewhere, str(tmp_path / "nothing"))


def test_what_can_not_be_compared_is_refused_before_anything_is_written(tmp_path, without_ray):
    site = Site(tmp_path)

    def refused(match, archive=site.out, model=site.child, **more):
        with pytest.raises(DataError, match=match):
            rescore(archive, model, **more)
        assert not Path(site.out, rescoring.FOLDER).exists()

    refused(r"holds no run\.json", archive=str(tmp_path / "none"))
    refused("made the scores of .* itself, so it would have changed nothing", model=site.parent)
    refused("did not make the scores", before_uri=site.child)
    child = load(site.child, "cpu")
    child.calibration = None
    child.save(str(tmp_path / "bare"))
    refused("is not calibrated, so that it raises no alarms", model=str(tmp_path / "bare"))
    child.calibration = Calibration.fit({"bolt": [1.0, 2.0]}, 0.1)
    child.save(str(tmp_path / "bolts"))
    refused("is not calibrated for nut, of which", model=str(tmp_path / "bolts"))
    manifest = storage.read_json(storage.join(site.out, table.MANIFEST))
    storage.write_json(storage.join(site.out, table.MANIFEST), manifest | {"complete": False})
    refused("is not scored to its end")
    storage.write_json(storage.join(site.out, table.MANIFEST), manifest)
    storage.delete(storage.join(site.out, IMAGES))
    elsewhere = str(tmp_path / "elsewhere")
    load(site.child, "cpu").save(elsewhere)
    with pytest.raises(DataError, match="does not hold the images of"):
        rescore(site.out, elsewhere, str(tmp_path / "all"))
    description = storage.read_json(storage.join(site.out, DESCRIPTION))
    bare = load(site.parent, "cpu")
    bare.calibration = None
    bare.save(str(tmp_path / "uncalibrated"))
    storage.write_json(storage.join(site.out, DESCRIPTION), describe(str(tmp_path / "uncalibrated")))
    refused("was scored by a model without calibration")
    storage.delete(storage.join(site.out, DESCRIPTION))
    refused(r"holds no model\.json")
    assert description["id"] == describe(site.parent)["id"]


@pytest.mark.ray
def test_the_command_scores_again_on_the_cluster_what_could_alarm(local_ray, tmp_path):
    site = Site(tmp_path, packed=True)
    expected = site.expected()
    for path in site.data.rglob("*.png"):
        path.unlink()
    done = CliRunner().invoke(cli.app, ["rescore", "--archive", site.out, "--model", site.child, "--json"])
    assert done.exit_code == 0, done.output
    document = json.loads(done.stdout)
    wanted = totals(expected)
    assert document["all"] == wanted._asdict()
    assert document["why_all"] is None
    assert 0 < document["scored_again"] < 91
    assert sum(each["gone"] for each in document["days"]) == wanted.gone
    assert [each["day"] for each in document["days"]] == list(DAYS)
    assert sum(each["images"] for each in document["categories"].values()) == 90
    assert sorted(told(document["rescored"])) == sorted(changes_in(expected))
    shown = CliRunner().invoke(cli.app, ["rescore", "--archive", site.out, "--model", site.child])
    assert f"{wanted.gone} gone, {wanted.new} new" in shown.stdout.replace("\n", " ")
