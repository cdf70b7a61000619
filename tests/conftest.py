"""What several test files share: tiny settings, a tiny trained method and made images."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import time
import uuid
from pathlib import Path

import matplotlib
import numpy as np
import pytest
import s3_server
import torch
from faulty_proxy import FaultyProxy
from PIL import Image
from s3fs import S3FileSystem

from raydiff import methods, storage
from raydiff.gpu_check.shapes import score_settings, waves
from raydiff.gpu_check.shapes import with_squares as with_defect
from raydiff.methods.base import GradientSettings, ScoreSettings
from raydiff.model.calibration import Calibration
from raydiff.model.folder import Model

pytest.register_assert_rewrite("main_job")

TINY_BACKBONE = {
    "name": "resnet18",
    "weights": "random",
    "stages": [1, 2],
    "grid": 4,
    "neighbourhood_padding": "left_out",
}
# One entry a method that needs more than its preset to be small; a method that is not named here runs as it is.
TINY = {
    "diffusion_ad": {
        "image_size": 32,
        "backbone": TINY_BACKBONE,
        "reconstruction_size": 16,
        "unet": {"base_channels": 8, "multipliers": [1, 2], "attention_levels": []},
        "segmentation_channels": 8,
        "train_steps": 12,
        "batch_size": 4,
        "warmup_steps": 2,
    },
    "glad": {
        "image_size": 32,
        "unet": {"base_channels": 8, "multipliers": [1, 2], "attention_levels": []},
        "autoencoder": {"channels": [8, 8]},
        "backbone": TINY_BACKBONE,
        "feature_size": 32,
        "train_steps": 12,
        "batch_size": 4,
        "warmup_steps": 2,
    },
    "lafite": {
        "image_size": 32,
        "backbone": TINY_BACKBONE,
        "coreset_ratio": 0.2,
        "noise_steps": [0, 1000],
        "blocks": {"width": 16, "blocks": 1},
        "train_steps": 12,
        "batch_size": 4,
        "learning_rate": 1e-3,
        "warmup_steps": 2,
    },
    "nearest_patch": {"image_size": 32, "backbone": TINY_BACKBONE, "coreset_ratio": 0.2},
    "uniad": {
        "image_size": 32,
        "backbone": TINY_BACKBONE,
        "coreset_ratio": 0.2,
        "transformer": {
            "width": 16,
            "heads": 2,
            "encoder_layers": 1,
            "decoder_layers": 2,
            "feedforward": 16,
            "dropout": 0.1,
            "neighbourhood": 3,
        },
        "train_steps": 12,
        "batch_size": 4,
        "warmup_steps": 2,
    },
}
# The paper's network, small. Blocks, which all other tests have, begin as zero: their first step changes but the last.
LAFITES_UNET = {"network": "unet", "unet": {"base_channels": 8, "multipliers": [1, 2], "attention_levels": [1]}}
TO_BE_CHOSEN = {
    name: {"texture_sources": ["self"]} for name in ("diffusion_ad", "glad")
}  # settings that a preset may leave to the user
# The methods that take gradient steps
TRAINED = [name for name in methods.names() if issubclass(methods.get(name).TrainSettings, GradientSettings)]
# Two networks from nothing take longer; the method's own test file has them learn.
SLOW_TO_LEARN = {"diffusion_ad", "glad"}
# Ray Train looks at its workers' reports every 2 s, which is most of the time that a training of a few steps takes.
# An object that nobody refers to is gone at once, and not within a second: what needs it still fails in each test.
QUICK_RAY = {
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",
    "RAY_free_objects_period_milliseconds": "0",
}


def pytest_collection_modifyitems(items):
    """Files with a Ray in them come first: they take longest, and two workers share evenly what is short and last."""
    long = {item.path for item in items if item.get_closest_marker("ray")}
    items.sort(key=lambda item: item.path not in long)


@pytest.fixture(autouse=True)
def _one_seed():
    torch.manual_seed(0)
    torch.set_num_threads(1)


def tiny_settings(name: str, **changes):
    """Train settings of a method that trains in a second."""
    return methods.recipe(name, "demo", {**TINY.get(name, {}), **changes})


def tiny_score(name: str, **changes) -> ScoreSettings:
    """Score settings with which a method scores in a moment: its own, but for at most two steps of denoising."""
    return score_settings(methods.get(name), tiny=True).changed(**changes)


def made_images(count: int, size: int = 32, seed: int = 0) -> np.ndarray:
    """uint8 (count, size, size, 3): smooth waves with noise, all different."""
    return waves(count, size, seed)


def write_mvtec(root: Path, train: int = 8, test: int = 4, size: int = 40, categories=("bolt", "cloth")) -> Path:
    """A data set in MVTec's layout: per category `train` normals, `test` normals and `test` defective with masks."""
    for number, category in enumerate(categories):
        images = made_images(train + 2 * test, size, seed=number)
        defective = with_defect(images[train + test :])
        places = [("train/good", images[:train]), ("test/good", images[train : train + test]), ("test/spot", defective)]
        for place, stack in places:
            folder = root / category / place
            folder.mkdir(parents=True)
            for index, image in enumerate(stack):
                Image.fromarray(image).save(folder / f"{index:03d}.png")
        masks = root / category / "ground_truth/spot"
        masks.mkdir(parents=True)
        mask = np.zeros((size, size), np.uint8)
        mask[size // 4 : size // 2, size // 4 : size // 2] = 255
        for index in range(test):
            Image.fromarray(mask).save(masks / f"{index:03d}_mask.png")
    return root


class ListedExamples:
    """Examples held in memory, for a method's `fit_statistics`."""

    def __init__(self, examples: torch.Tensor, categories=None) -> None:
        self.examples = examples
        self.categories = categories or ["thing"] * len(examples)

    def __len__(self) -> int:
        return len(self.examples)

    def batches(self):
        yield from self.examples.split(3)

    def take(self, indices):
        return self.examples[indices]


def fitted(name: str, images: np.ndarray, seed: int = 0, categories=None, **changes):
    """A tiny method with its statistics fitted on images, of one category unless they are named."""
    torch.manual_seed(seed)
    kind = methods.get(name)
    method = kind(tiny_settings(name, **changes)).eval()
    from raydiff.model.scorer import examples_of

    examples = ListedExamples(examples_of(method, images), categories)
    method.fit_statistics(examples, seed)
    return method, examples


def one_category(features: torch.Tensor) -> torch.Tensor:
    """All features of a batch are of the only category."""
    return torch.zeros(len(features), dtype=torch.long)


def calibrated_model(folder: Path, *categories: str) -> str:
    """A tiny model folder, calibrated on forty normal images that its categories share equally."""
    method, _ = fitted("nearest_patch", made_images(8), categories=np.resize(categories, 8).tolist())
    model = Model(method, method.ScoreSettings())
    shares = np.array_split(model.score(list(made_images(40, seed=9))).scores, len(categories))
    model.calibration = Calibration.fit(dict(zip(categories, map(np.ndarray.tolist, shares), strict=True)), rate=0.1)
    model.save(str(folder))
    return str(folder)


@pytest.fixture
def waits(monkeypatch) -> list[float]:
    """Seconds of all waits that were asked for; none is made."""
    made: list[float] = []
    monkeypatch.setattr(time, "sleep", made.append)
    return made


@pytest.fixture(scope="session")
def s3():
    """A real S3 server. Gives a client's environment, which is set here and so for all processes started later."""
    if missing := s3_server.missing_programs():
        message = f"S3 IS NOT TESTED: no {', '.join(missing)} on this machine; {s3_server.INSTALL}"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    with s3_server.s3_server() as environment, pytest.MonkeyPatch.context() as patch:
        for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN"):
            patch.delenv(name, raising=False)
        for name, value in environment.items():
            patch.setenv(name, value)
        S3FileSystem.clear_instance_cache()  # clients keep the environment that they were made in
        yield environment


@pytest.fixture
def s3_bucket(s3) -> str:
    """URI of a fresh bucket."""
    name = f"test-{uuid.uuid4().hex[:12]}"
    storage.filesystem("s3://")[0].mkdir(name)
    return f"s3://{name}"


@pytest.fixture
def s3_proxy(s3):
    """A proxy that all clients made from here on meet instead of the S3 server; harmless until told otherwise."""
    with contextlib.closing(FaultyProxy(s3["AWS_ENDPOINT_URL"])) as proxy, pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", proxy.url)
        S3FileSystem.clear_instance_cache()
        yield proxy
        S3FileSystem.clear_instance_cache()


@pytest.fixture(scope="session")
def local_ray(tmp_path_factory):
    """One Ray of two CPUs for all tests, on loopback and with a token of its own, joined as a job joins its cluster."""
    import ray

    from raydiff import cluster
    from raydiff.cluster import own_ray

    token = tmp_path_factory.mktemp("ray") / "token"
    token.write_text(secrets.token_hex(32))
    with pytest.MonkeyPatch.context() as patch:
        for name in ("RAY_ADDRESS", "RAY_AUTH_MODE"):
            patch.setenv(name, "")
            patch.delenv(name)  # but the value of before comes back at the end, whatever Ray sets
        patch.setenv("RAY_AUTH_TOKEN_PATH", str(token))
        environment = dict(QUICK_RAY)
        own_ray.settle(environment)
        for name, value in environment.items():
            patch.setenv(name, value)
        ray.init(
            address="local",
            include_dashboard=False,
            _node_ip_address=cluster.LOOPBACK,
            num_cpus=2,
            object_store_memory=150_000_000,
            logging_config=ray.LoggingConfig(log_level="WARNING"),
        )
        cluster.connect()
        yield
        ray.shutdown()


@pytest.fixture(scope="module")
def one_deployment(local_ray):
    """A file's runs over archives share a deployment of their one model; to make it takes most of a small run."""
    from raydiff.scoring import archive_run
    from raydiff.scoring.deployment import deployed

    handles = {}
    with contextlib.ExitStack() as kept, pytest.MonkeyPatch.context() as patch:

        @contextlib.contextmanager
        def shared(model_uri, replicas=None, engine="torch"):
            if model_uri not in handles:
                assert not handles, "a job deploys one model at a time"
                handles[model_uri] = kept.enter_context(deployed(model_uri, replicas, engine))
            yield handles[model_uri]

        patch.setattr(archive_run, "deployed", shared)
        yield


@pytest.fixture
def job_environment(tmp_path):
    """Environment of a job started in a process of its own, which finds no Ray and no token of anybody else's."""
    home = tmp_path / "home"
    home.mkdir()
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    fonts = {"MPLCONFIGDIR": matplotlib.get_cachedir()}  # a new HOME would have matplotlib look at all fonts anew
    return {**kept, **fonts, **QUICK_RAY, "HOME": str(home), "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def fit_table(tmp_path_factory):
    """URI of a table of 80 normals in two categories (two parts, one a worker), one of them unreadable."""
    from raydiff.images import table
    from raydiff.images.survey import find_images

    root = tmp_path_factory.mktemp("train")
    write_mvtec(root / "mvtec", train=40, test=1, size=32)
    (root / "mvtec/cloth/train/good/003.png").write_bytes(b"no image")
    found = find_images(str(root / "mvtec"))
    table.write(str(root / "fit.parquet"), found.filter([split == "train" for split in found["split"].to_pylist()]))
    return str(root / "fit.parquet")


@pytest.fixture(scope="module")
def fit_examples(local_ray, fit_table, tmp_path_factory):
    """The example store of `fit_table`, computed once."""
    from training_run import settings

    from raydiff.training.examples import compute_examples

    return Path(compute_examples("lafite", settings(1), fit_table, str(tmp_path_factory.mktemp("examples"))))


@pytest.fixture(scope="module")
def new_run(fit_table, fit_examples, tmp_path_factory):
    """Makes trainings, each in a new folder that holds the examples already."""

    from training_run import Run

    def make(steps: int, workers: str) -> Run:
        run = Run(tmp_path_factory.mktemp("run"), fit_table, steps, workers)
        shutil.copytree(fit_examples, run.work / fit_examples.name)
        return run

    return make
