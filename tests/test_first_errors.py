"""What somebody new does wrong: each ends in one sentence that says what to do, before anything is begun."""

import pytest
import ray
from botocore import exceptions
from fsspec.implementations.memory import MemoryFileSystem

from raydiff import cluster, storage
from raydiff.cli.method_settings import changes
from raydiff.cluster import connection
from raydiff.errors import (
    ClusterError,
    DataError,
    ModelFolderError,
    SettingsError,
    StorageError,
    StorageUnavailable,
    of_file,
)
from raydiff.images.tables import own_table
from raydiff.model.description import describe
from raydiff.nn.backbones import Backbone, BackboneSettings
from raydiff.run_folder import RunFolder
from raydiff.storage.errors import explained


@pytest.mark.parametrize(
    ("raised", "kind", "advice"),
    [
        (
            exceptions.NoCredentialsError(),
            StorageError,
            "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
        ),
        (exceptions.PartialCredentialsError(provider="env", cred_var="x"), StorageError, "set both AWS_ACCESS_KEY_ID"),
        (exceptions.ProfileNotFound(profile="x"), StorageError, "set AWS_PROFILE to one of those"),
        (exceptions.EndpointConnectionError(endpoint_url="http://x"), StorageUnavailable, "AWS_ENDPOINT_URL"),
        (OSError(28, "No space left on device"), StorageError, "name a place on another disk"),
        (exceptions.ConnectTimeoutError(endpoint_url="http://x"), StorageUnavailable, "AWS_ENDPOINT_URL"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else None,
)
def test_what_a_store_says_is_followed_by_what_to_do(raised, kind, advice):
    with pytest.raises(StorageError) as caught, explained("s3://plant/x", MemoryFileSystem()):
        raise raised
    assert type(caught.value) is kind
    assert str(caught.value).startswith(f"s3://plant/x: {raised}; ")
    assert advice in str(caught.value)


@pytest.mark.parametrize("reason", ["s3://a/x.png: access refused (403); check", "access refused (403); check"])
def test_a_file_is_named_once(reason):
    assert of_file("s3://a/x.png", reason) == "s3://a/x.png: access refused (403); check"


def test_an_unknown_kind_of_uri_is_told_what_there_is():
    with pytest.raises(
        StorageError, match=r"foo://a/b: .*; give a local path, or a URI of s3, gs or another store that fsspec knows"
    ):
        storage.exists("foo://a/b")


def test_a_text_that_is_no_table_is_told_what_is_wanted(tmp_path):
    (tmp_path / "notes.txt").write_text("buy milk\n")
    with pytest.raises(DataError, match=r"column 'uri' is missing; found: buy milk; give a folder of images"):
        own_table.read(str(tmp_path / "notes.txt"))


def test_a_misspelt_method_before_a_setting_is_told_the_near_one():
    with pytest.raises(SettingsError, match=r"there is no method 'lafit'; did you mean 'lafite'\?"):
        changes("lafite", None, None, ["lafit.train_steps=5"])
    assert changes("lafite", None, None, ["glad.unet.base_channels=5", "backbone.grid=8"]) == {"backbone": {"grid": 8}}


@pytest.mark.parametrize("weights", ["pakage", "Hub"])
def test_a_misspelt_word_for_weights_is_no_file(weights):
    with pytest.raises(SettingsError, match=f"'{weights}' is none of package, hub and random"):
        Backbone(BackboneSettings(name="tf_efficientnet_lite0", stages=(1, 2), weights=weights))


def test_a_misspelt_model_is_told_which_there_are(tmp_path):
    run = RunFolder(str(tmp_path))
    with pytest.raises(DataError, match="holds no model yet; run `raydiff train"):
        run.existing_model("lafite")
    for name in ("mine", "lafite"):
        storage.write_json(storage.join(run.model(name), "model.json"), {})
    with pytest.raises(DataError, match="has no model 'lafit'; it has lafite, mine"):
        run.existing_model("lafit")
    assert run.existing_model("lafite") == run.model("lafite")
    with pytest.raises(ModelFolderError, match=r"is not a model folder: .*; a run has them, as OUT/models/lafite"):
        describe(run.uri)


def test_gpus_that_no_ray_can_get_are_not_waited_for(monkeypatch):
    for name in ("ADDRESS", "AUTH_TOKEN"):
        monkeypatch.delenv(f"RAY_{name}", raising=False)
    started = []
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", lambda **how: started.append(how["address"]))
    monkeypatch.setattr(connection, "use_private_token", lambda: None)
    monkeypatch.setattr(connection, "gpus", lambda: 1)
    with pytest.raises(ClusterError, match=r"--gpus 2 were asked for, but this machine has 1, .* leave out --gpus"):
        cluster.connect(gpus=2)
    cluster.connect(gpus=1)
    assert started == ["local", "local"]
