"""A model learns from verdicts on a real Ray: what it finds before and after, and what is refused."""

import hashlib
import json
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from conftest import fitted, made_images
from PIL import Image
from typer.testing import CliRunner

from raydiff import cli, steps, storage
from raydiff.errors import DataError
from raydiff.images import table as image_table
from raydiff.learning import judged as judging
from raydiff.learning import scored as before_and_after
from raydiff.learning.judged import TEACHING, side
from raydiff.learning.learn import archives_of, learn
from raydiff.model.calibration import Calibration
from raydiff.model.folder import Model, load
from raydiff.nn.positions import PositionStatistics, in_cells
from raydiff.run_folder import RunFolder
from raydiff.scoring import table
from raydiff.verdicts import table as verdicts
from raydiff.verdicts.table import Verdict

pytestmark = pytest.mark.ray

RATE = 0.1
SIZE = 32


def glare(images):
    """The harmless thing that no training image shows."""
    found = images.copy()
    found[:, 2:14, 2:14] = 255
    return found


def scratched(images, seed=0):
    found = images.copy()
    found[:, 18:26, 18:26] = np.random.default_rng(seed).integers(0, 256, found[:, 18:26, 18:26].shape)
    return found


def written(folder, stacks):
    """Files by name: {kind: images} to kind-3.png."""
    folder.mkdir(parents=True)
    for kind, images in stacks.items():
        for number, image in enumerate(images):
            Image.fromarray(image).save(folder / f"{kind}-{number}.png")
    return folder


def pixels(uri):
    with Image.open(uri) as file:
        return np.asarray(file)


def scored(model, uris):
    return model.score([pixels(uri) for uri in uris], ["bolt"] * len(uris)).scores


def run_with(folder, name, positions=False, **changes):
    """A run with one calibrated model, made without Ray."""
    written(folder / "data/bolt/train/good", {"n": made_images(80)})
    run = RunFolder(str(folder / "run"))
    steps.index(str(folder / "data"), run.uri)
    known = {role: image_table.read(run.table(role))["uri"].to_pylist() for role in ("fit", "tune", "calibrate")}
    method, _ = fitted(
        name, np.stack([pixels(uri) for uri in known["fit"]]), categories=["bolt"] * len(known["fit"]), **changes
    )
    model = Model(method, method.ScoreSettings())
    if positions:
        maps = model.score([pixels(uri) for uri in known["tune"]]).maps
        model.positions = PositionStatistics.of({"bolt": in_cells(torch.from_numpy(maps))})
    model.calibration = Calibration.fit({"bolt": scored(model, known["calibrate"]).tolist()}, RATE)
    model.card = {"training_images": {"bolt": len(known["fit"])}, "made_anomalies": {}}
    model.save(run.model(name))
    return run


def archive(folder, model_uri, stacks, said):
    """A score table of images as the model scores them, and verdicts beside it: {kind: verdict}."""
    uris = sorted(map(str, written(folder / "images", stacks).iterdir()))
    model = load(model_uri, "cpu")
    threshold = model.calibration.of("bolt").threshold
    scores = scored(model, uris)
    told = {
        "uri": uris,
        "dataset": ["line"] * len(uris),
        "category": ["bolt"] * len(uris),
        "split": ["test"] * len(uris),
        "content_hash": [hashlib.sha256(Path(uri).read_bytes()).hexdigest() for uri in uris],
        "score": scores,
        "threshold": [threshold] * len(uris),
        "is_anomalous": scores > threshold,
        "model_id": [model.id] * len(uris),
    }
    out = str(folder / "scores")
    columns = [pa.array(told.get(field.name, [None] * len(uris)), field.type) for field in table.SCHEMA]
    table.write(table.part_uri(out, f"0001-000000-{len(uris)}"), pa.table(columns, schema=table.SCHEMA))
    storage.write_json(storage.join(out, table.RUN), {"model_id": model.id, "images": str(folder / "images")})
    now = datetime.now(UTC)
    rows = [Verdict(uri, said[kind], "anna", now) for uri in uris if (kind := storage.name(uri).split("-")[0]) in said]
    verdicts.append(out, verdicts.of(rows))
    return out


def files(uri):
    return {path.name: path.read_bytes() for path in Path(uri).iterdir()}


@pytest.fixture(scope="module")
def run(local_ray, tmp_path_factory):
    return run_with(tmp_path_factory.mktemp("run"), "nearest_patch")


@pytest.fixture(scope="module")
def week(run, tmp_path_factory):
    """An archive with reflections that are fine, scratches, burns that look as what is fine, all judged, and quiet
    normals that are not.
    """
    fresh = made_images(42, seed=9)
    stacks = {"glare": fresh[:16], "burn": fresh[16:20], "scratch": fresh[20:26], "quiet": fresh[26:]}
    stacks |= {"glare": glare(fresh[:16]), "burn": glare(fresh[16:20]), "scratch": scratched(fresh[20:26])}
    said = {"glare": "normal", "burn": "defect", "scratch": "defect"}
    return archive(tmp_path_factory.mktemp("week"), run.model("nearest_patch"), stacks, said)


@pytest.fixture(scope="module")
def learnt(run, week):
    """What a model learnt: refused first, because it finds no burns any more, then forced."""
    before, out = files(run.model("nearest_patch")), run.model("june")
    with pytest.raises(
        DataError, match=r"finds \d of 10 images judged defective, and that of before 10 \(lost: .*burn-"
    ):
        learn(run.model("nearest_patch"), [week], out)
    assert not Path(out).exists()
    outcome = learn(run.model("nearest_patch"), [week], out, force=True)
    assert files(run.model("nearest_patch")) == before
    return out, outcome


def judged(week, kind):
    return [uri for uri in table.read(week)["uri"].to_pylist() if storage.name(uri).startswith(kind)]


def content(uri):
    return hashlib.sha256(Path(uri).read_bytes()).hexdigest()


def test_a_model_that_has_learnt_is_another_with_fewer_false_alarms(run, week, learnt):
    out, outcome = learnt
    parent, child = load(run.model("nearest_patch"), "cpu"), load(out, "cpu")
    assert (outcome.parent, outcome.model) == (parent.id, child.id)
    assert child.id != parent.id
    assert child.card["learnt"]["parent"] == parent.id
    assert child.card["learnt"]["verdicts"] == [week]
    assert len(child.method.memory_bank) == len(parent.method.memory_bank) + outcome.learnt.added
    assert outcome.learnt.added > 0

    teaching = [uri for uri in judged(week, "glare") if side(content(uri)) < TEACHING]
    calibrating = [uri for uri in judged(week, "glare") if uri not in teaching]
    assert 0 < len(teaching) < 16
    own = image_table.read(run.table("calibrate"))["uri"].to_pylist()
    expected = np.sort(scored(child, [*own, *calibrating]))
    assert np.allclose(child.calibration.of("bolt").scores, expected, rtol=1e-6)
    for uris, told in ((calibrating, outcome.calibrating), (teaching, outcome.teaching), (own, outcome.own)):
        was = int((scored(parent, uris) > parent.calibration.of("bolt").threshold).sum())
        now = int((scored(child, uris) > child.calibration.of("bolt").threshold).sum())
        assert told == (len(uris), was, now)
    assert outcome.teaching.before == len(teaching)
    assert outcome.teaching.after == 0
    assert outcome.calibrating.before == len(calibrating)
    assert outcome.defects.before == 10
    assert outcome.defects.after == 10 - len(outcome.lost)
    assert {storage.name(uri).split("-")[0] for uri in outcome.lost} == {"burn"}  # no scratch is lost
    assert outcome.mixtures == {"bolt": (len(own), 0, len(calibrating))}


def test_what_is_said_is_what_was_counted(learnt):
    _, outcome = learnt
    said = "\n".join(outcome.sentences())
    assert f"{outcome.teaching.images} images judged normal taught; {outcome.learnt.added} patches are new" in said
    assert f"alarms on images judged defective: 10 before, {outcome.defects.after} after" in said
    assert f"bolt: promised are at most {RATE:.2%} false alarms on normal images of which no more than" in said
    assert f"{outcome.calibrating.images} of the {10 + outcome.calibrating.images} images that calibrate" in said
    assert "of its images in the archive" in said
    assert "alarmed before and do not any more, though judged defective: " in said


def test_a_model_is_not_written_over(run, week, learnt):
    out, _ = learnt
    with pytest.raises(DataError, match="no model is written over another"):
        learn(run.model("nearest_patch"), [week], out)


def test_what_was_learnt_from_before_comes_along(learnt, week, tmp_path, capsys):
    child = load(learnt[0], "cpu")
    assert archives_of(child, [str(tmp_path)]) == [str(tmp_path), week]
    assert archives_of(child, [week]) == [week]
    child.card["learnt"]["verdicts"].append(str(tmp_path / "gone"))
    assert archives_of(child, [week]) == [week]
    assert "which the model has learnt from before, is not there any more" in capsys.readouterr().out


def test_a_method_by_gradients_goes_on_from_its_weights(local_ray, tmp_path):
    run = run_with(tmp_path / "lafite", "lafite", positions=True)
    fresh = made_images(16, seed=9)
    stacks = {"glare": glare(fresh[:10]), "scratch": scratched(fresh[10:])}
    week = archive(tmp_path / "week", run.model("lafite"), stacks, {"glare": "normal", "scratch": "defect"})
    outcome = learn(run.model("lafite"), [week], run.model("june"), steps=6, force=True)
    parent, child = load(run.model("lafite"), "cpu"), load(run.model("june"), "cpu")
    assert outcome.steps == 6
    assert child.method.settings == parent.method.settings
    moved = [
        float((one - other).detach().abs().max())
        for one, other in zip(parent.method.network.parameters(), child.method.network.parameters(), strict=True)
    ]
    # from the last weights on: six steps at a tenth of the learning rate do not lead far
    assert 0 < max(moved) <= 6 * parent.method.settings.learning_rate
    assert len(child.method.memory_bank) > len(parent.method.memory_bank)
    assert torch.equal(child.method.feature_mean, parent.method.feature_mean)
    assert child.positions != parent.positions


def test_an_archive_of_another_model_is_scored_by_the_one_that_learns(run, week, monkeypatch, tmp_path):
    found = judging.judged([week])
    images = judging.image_rows(found.rows, str(tmp_path))
    model = run.model("nearest_patch")
    taken = before_and_after.scores_before(model, found, images, str(tmp_path / "before"))
    assert [taken[uri].score for uri in images["uri"].to_pylist()] == found.rows["score"].to_pylist()

    asked = []

    def scores(model_uri, images, scores_uri):
        asked.append((model_uri, images["uri"].to_pylist()))
        return {}

    monkeypatch.setattr(before_and_after, "scores", scores)
    monkeypatch.setattr(before_and_after, "_model_of", lambda archive: "another")
    before_and_after.scores_before(model, found, images, str(tmp_path / "before"))
    assert asked == [(model, images["uri"].to_pylist())]


def test_the_command_says_it_as_json_too(run, week, learnt, tmp_path, monkeypatch):
    from raydiff.learning import learn as learning

    _, outcome = learnt
    monkeypatch.setattr(learning, "learn", lambda *given: outcome)
    given = ["learn", "--model", run.model("nearest_patch"), "--verdicts", week, "--out", str(tmp_path / "o"), "--json"]
    found = CliRunner().invoke(cli.app, given, catch_exceptions=False)
    told = json.loads(found.stdout)
    assert told["id"] == outcome.model
    assert told["alarms"]["defects"] == {"images": 10, "before": 10, "after": outcome.defects.after}
    assert told["lost"] == outcome.lost
    assert told["sentences"] == outcome.sentences()


def test_a_model_without_calibration_or_run_is_refused(run, week, tmp_path):
    model = load(run.model("nearest_patch"), "cpu")
    model.save(str(tmp_path / "elsewhere"))
    with pytest.raises(DataError, match="does not lie in a run"):
        learn(str(tmp_path / "elsewhere"), [week], str(tmp_path / "out"))
    model.calibration = None
    model.save(run.model("raw"))
    with pytest.raises(DataError, match="is not calibrated; run `raydiff calibrate` first"):
        learn(run.model("raw"), [week], str(tmp_path / "out"))
