"""The model folder on local disk; in object storage it is in test_storage_s3.py."""

from __future__ import annotations

import json
import pickle

import numpy as np
import pytest
import torch
from conftest import fitted, made_images, with_defect

import raydiff
from raydiff import storage
from raydiff.errors import ModelFolderError, SettingsError
from raydiff.model.calibration import Calibration
from raydiff.model.description import DESCRIPTION, FORMAT, WEIGHTS, describe
from raydiff.model.folder import Model

CALIBRATION = Calibration.fit({"bolt": [0.1, 1 / 3, 2.7], "cloth": list(np.linspace(1, 2, 30))}, rate=0.05)


@pytest.fixture
def model():
    method, _ = fitted("nearest_patch", made_images(6))
    return Model(method, method.ScoreSettings(neighbours=2), card={"seed": 0})


@pytest.fixture
def folder(model, tmp_path):
    """A saved, calibrated model."""
    model.calibration = CALIBRATION
    model.save(str(tmp_path / "model"))
    return tmp_path / "model"


def edit(folder, change, new_id=False):
    """Change model.json by hand; with `new_id`, as one would who knows how the id is made."""
    path = folder / DESCRIPTION
    description = json.loads(path.read_text())
    change(description)
    if new_id:
        description["id"] = raydiff.model.description.model_id(description)
    path.write_text(json.dumps(description))


def test_round_trip(model, folder, tmp_path):
    loaded = raydiff.load(str(folder))
    assert loaded.id == model.id == describe(str(folder))["id"]
    assert len(loaded.id) == 16
    assert loaded.score_settings == model.score_settings
    assert loaded.method.settings == model.method.settings
    assert loaded.card == {"seed": 0}
    images = np.concatenate([made_images(3, seed=5), with_defect(made_images(1, seed=6))])
    before, after = model.score(images), loaded.score(images)
    np.testing.assert_array_equal(before.scores, after.scores)
    np.testing.assert_array_equal(before.maps, after.maps)
    loaded.save(str(tmp_path / "again"))
    for file in (WEIGHTS, DESCRIPTION):
        assert (tmp_path / "again" / file).read_bytes() == (folder / file).read_bytes()


def test_calibration_survives(folder):
    loaded = raydiff.load(str(folder))
    assert loaded.calibration == CALIBRATION
    for category in ("bolt", "cloth", None):
        assert loaded.calibration.of(category).threshold == CALIBRATION.of(category).threshold
        assert loaded.calibration.of(category).p_value(1.5) == CALIBRATION.of(category).p_value(1.5)


def test_the_id_is_of_all_that_decides_and_of_nothing_else(model):
    method, settings = model.method, model.score_settings
    other, _ = fitted("nearest_patch", made_images(6, seed=1))
    same, _ = fitted("nearest_patch", made_images(6))
    assert Model(same, settings, card={"seed": 9}).id == model.id
    others = [Model(other, settings), Model(method, settings.changed(pool=8)), Model(method, settings, CALIBRATION)]
    assert len({model.id, *(other.id for other in others)}) == 4


def test_uncalibrated_description(model, folder):
    model.calibration = None
    described = describe(str(folder), calibrated=False)
    assert described["id"] == model.id
    assert described["calibration"] is None
    assert describe(str(folder))["id"] != model.id


def test_a_new_description_for_the_same_weights(folder):
    weights = (folder / WEIGHTS).stat()
    loaded = raydiff.load(str(folder))
    loaded.calibration = None
    loaded.card["note"] = "uncalibrated"
    loaded.save_description(str(folder))
    again = raydiff.load(str(folder))
    assert again.id == loaded.id
    assert again.calibration is None
    assert again.card == {"seed": 0, "note": "uncalibrated"}
    assert (folder / WEIGHTS).stat().st_mtime_ns == weights.st_mtime_ns


def test_a_description_without_weights_is_refused(model, tmp_path):
    with pytest.raises(ModelFolderError, match="save the whole model first"):
        model.save_description(str(tmp_path))
    assert storage.list_files(str(tmp_path)) == []


@pytest.mark.parametrize("where", [0, 100, 0.5, -1])
def test_a_changed_byte_in_the_weights(folder, where):
    data = bytearray((folder / WEIGHTS).read_bytes())
    data[int(where * len(data)) if isinstance(where, float) else where] ^= 1
    (folder / WEIGHTS).write_bytes(data)
    with pytest.raises(ModelFolderError, match=rf"{folder}: {WEIGHTS} is not the file that {DESCRIPTION} describes"):
        raydiff.load(str(folder))


@pytest.mark.parametrize("kept", [0, 1000, -1])
def test_truncated_weights(folder, kept):
    (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:kept])
    with pytest.raises(ModelFolderError, match=f"{WEIGHTS}.*cut short"):
        raydiff.load(str(folder))


@pytest.mark.parametrize(
    "change",
    [
        lambda it: it["settings"]["score"].update(blur_sigma=1.0),
        lambda it: it["settings"]["train"].update(image_size=64),
        lambda it: it["calibration"]["all"]["scores"].append(99.0),
        lambda it: it.update(calibration=None),
        lambda it: it.update(method="lafite"),
        lambda it: it.update(weights_sha256="0" * 64),
        lambda it: it.update(id="0" * 16),
        lambda it: it.pop("id"),
    ],
)
def test_a_changed_description(folder, change):
    edit(folder, change)
    for ask in (raydiff.load, describe):
        with pytest.raises(ModelFolderError, match=f"{DESCRIPTION} was changed since it was written"):
            ask(str(folder))


def test_the_card_may_change(model, folder):
    edit(folder, lambda it: it["card"].update(note="for line 3"))
    loaded = raydiff.load(str(folder))
    assert loaded.id == model.id
    assert loaded.card["note"] == "for line 3"


def test_weights_of_another_shape(folder):
    def widen(description):
        description["settings"]["train"]["backbone"]["stages"] = [2, 3]

    edit(folder, widen, new_id=True)
    with pytest.raises(ModelFolderError, match="the weights do not fit nearest_patch"):
        raydiff.load(str(folder))


def test_a_setting_that_is_unknown(folder):
    edit(folder, lambda it: it["settings"]["score"].update(blur_sigmas=1.0), new_id=True)
    with pytest.raises(ModelFolderError, match=r"another raydiff.*blur_sigma"):
        raydiff.load(str(folder))


@pytest.mark.parametrize("missing", [WEIGHTS, DESCRIPTION])
def test_half_a_folder(folder, missing):
    (folder / missing).unlink()
    with pytest.raises(ModelFolderError, match=rf"not a .*model folder: .*{missing} is not there"):
        raydiff.load(str(folder))


def test_no_folder(tmp_path):
    with pytest.raises(ModelFolderError, match=f"{tmp_path}/none is not a model folder"):
        raydiff.load(f"{tmp_path}/none")


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "{}", json.dumps({"format": FORMAT + 1})])
def test_what_is_no_description_of_this_format(folder, text):
    (folder / DESCRIPTION).write_text(text)
    with pytest.raises(ModelFolderError, match=f"{DESCRIPTION} is not (valid JSON|in model format {FORMAT})"):
        raydiff.load(str(folder))


def test_nothing_is_unpickled(model, folder, monkeypatch):
    assert sorted(path.name for path in folder.iterdir()) == sorted([WEIGHTS, DESCRIPTION])

    def refuse(*_, **__):
        raise AssertionError("unpickled")

    for module, name in ((pickle, "loads"), (pickle, "load"), (pickle, "Unpickler"), (torch, "load")):
        monkeypatch.setattr(module, name, refuse)
    assert raydiff.load(str(folder)).id == model.id


def test_images_to_score_are_uint8_rgb(model):
    for wrong in (np.zeros((8, 8, 3), np.float32), np.zeros((8, 8), np.uint8), np.zeros((8, 8, 4), np.uint8)):
        with pytest.raises(SettingsError, match=r"image 1 is .*uint8 RGB"):
            model.score([np.zeros((8, 8, 3), np.uint8), wrong])
    scored = model.score([])
    assert scored.scores.shape == (0,)
    assert scored.maps.shape == (0, 32, 32)
