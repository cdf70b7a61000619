"""Training on a real Ray: the plain loop's curve, the same curve twice, and what kill -9 does to it (nothing)."""

from __future__ import annotations

import math
import os
import shutil
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from conftest import made_images, tiny_settings, write_mvtec
from processes import is_named, named, wait_for

import raydiff
from raydiff import methods
from raydiff.errors import ClusterError, DataError
from raydiff.images import table
from raydiff.images.layouts import find_images
from raydiff.model import WEIGHTS
from raydiff.training.examples import compute_examples
from raydiff.training.loop import TrainingLoop
from raydiff.training.store import ExampleStore
from raydiff.training.train import CHECKPOINT_FILE, train

pytestmark = pytest.mark.ray

WORKER = "ray::RayTrainWorker"


def settings(steps: int):
    return tiny_settings("lafite", train_steps=steps)


class Run:
    """One training in a folder of its own, on the images that all share."""

    def __init__(self, folder: Path, images: str, steps: int, workers: int) -> None:
        self.folder, self.images, self.workers = folder, images, workers
        self.settings = settings(steps)
        self.work = folder / "work"

    def train(self) -> raydiff.Model:
        return train("lafite", self.settings, self.images, str(self.folder / "model"), str(self.work), self.workers)

    def checkpoints(self) -> list[Path]:
        """The finished checkpoints, the newest last."""
        return sorted(file.parent for file in self.work.glob(f"lafite/checkpoints/*/checkpoint_*/{CHECKPOINT_FILE}"))

    def weights(self) -> dict[str, torch.Tensor]:
        return safetensors.torch.load_file(self.folder / "model" / WEIGHTS)


def assert_same(run: Run, other: Run) -> None:
    ours, theirs = run.weights(), other.weights()
    assert ours.keys() == theirs.keys()
    for name in ours:
        torch.testing.assert_close(ours[name], theirs[name], rtol=0, atol=0, msg=name)


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """URI of a table of 80 normals in two categories (two parts, one a worker), one of them unreadable."""
    root = tmp_path_factory.mktemp("train")
    write_mvtec(root / "mvtec", train=40, test=1, size=32)
    (root / "mvtec/cloth/train/good/003.png").write_bytes(b"no image")
    found = find_images(str(root / "mvtec"))
    table.write(str(root / "fit.parquet"), found.filter([split == "train" for split in found["split"].to_pylist()]))
    return str(root / "fit.parquet")


@pytest.fixture(scope="module")
def examples(local_ray, images, tmp_path_factory):
    """The example store of the images, computed once."""
    return Path(compute_examples("lafite", settings(1), images, str(tmp_path_factory.mktemp("examples"))))


@pytest.fixture(scope="module")
def new_run(images, examples, tmp_path_factory):
    """Makes runs, each in a new folder that holds the examples already."""

    def make(steps: int, workers: int) -> Run:
        run = Run(tmp_path_factory.mktemp("run"), images, steps, workers)
        shutil.copytree(examples, run.work / examples.name)
        return run

    return make


@pytest.fixture(scope="module")
def one_worker(new_run):
    """An undisturbed training with one worker, and its model."""
    run = new_run(steps=40, workers=1)
    return run, run.train()


@pytest.fixture(scope="module")
def two_workers(new_run):
    """An undisturbed training with two workers, and its model."""
    run = new_run(steps=60, workers=2)
    return run, run.train()


def test_one_worker_is_the_plain_loop(one_worker, examples):
    run, model = one_worker
    (statistics,) = run.work.glob("lafite/statistics-*.safetensors")
    torch.set_num_threads(2)  # as many as Ray gives the worker CPUs: it decides the order of sums
    method = methods.get("lafite").untrained(run.settings)
    method.load_trained(safetensors.torch.load_file(statistics))
    loop = TrainingLoop(method, ExampleStore(str(examples)), seed=0)
    curve = []
    while not loop.finished:
        curve.append((loop.step + 1, loop.advance()))
    assert model.card["loss_curve"] == curve
    plain = loop.finish().state_dict()
    for name, value in run.weights().items():
        assert torch.equal(value, plain[name]), name


def test_an_unreadable_image_is_left_out_and_counted(one_worker, examples):
    _, model = one_worker
    store = ExampleStore(str(examples))
    assert len(store) == 79
    assert [Path(uri).parts[-4:] for uri in store.errors] == [("cloth", "train", "good", "003.png")]
    assert model.card["unreadable_images"] == 1
    assert model.card["training_images"] == {"bolt": 40, "cloth": 40}


def test_the_model_folder_holds_what_was_trained(one_worker):
    run, model = one_worker
    loaded = raydiff.load(str(run.folder / "model"), "cpu")
    assert loaded.id == model.id
    image = [made_images(1)[0]]
    assert loaded.score(image).scores == model.score(image).scores


def test_a_finished_training_is_not_done_again(one_worker, examples):
    run, model = one_worker
    kept, index = run.checkpoints(), run.work / examples.name / "index.json"
    written = index.stat().st_mtime_ns
    again = run.train()
    assert run.checkpoints() == kept  # each tenth of the steps would have ended in a new one
    assert index.stat().st_mtime_ns == written
    assert again.card["loss_curve"] == model.card["loss_curve"]
    assert again.id == model.id


def test_too_many_workers(local_ray, images, tmp_path):
    with pytest.raises(ClusterError, match=r"3 workers were asked for, but the cluster has 0 GPUs and 2 CPUs"):
        Run(tmp_path, images, steps=5, workers=3).train()
    assert list(tmp_path.iterdir()) == []


def test_a_killed_worker_changes_nothing(two_workers, new_run):
    """That the end is the same to the bit also says that one seed gives one curve, with two workers too."""
    undisturbed, model = two_workers
    run = new_run(steps=60, workers=2)

    def kill_one() -> None:
        first = wait_for(lambda: len(found := named(WORKER)) == 2 and found)
        wait_for(lambda: len(run.checkpoints()) == 2)  # so Ray Train has taken note of the first
        os.kill(first[1], signal.SIGKILL)
        assert not (run.work / "lafite/trained.safetensors").exists()  # it was in the middle
        wait_for(lambda: len(found := named(WORKER)) == 2 and not set(found) & set(first))  # others in their place

    with ThreadPoolExecutor(1) as pool:
        killed = pool.submit(kill_one)
        curve = run.train().card["loss_curve"]
        killed.result(timeout=0)
    assert curve == model.card["loss_curve"]
    assert_same(run, undisturbed)


# Without RAY_ADDRESS, on a Ray of its own.
TRAIN = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from raydiff import cluster
from test_train_ray import Run

cluster.connect()
Run(Path(sys.argv[2]), sys.argv[3], steps=40, workers=1).train()
"""


def test_a_killed_driver_goes_on_from_its_checkpoint(one_worker, new_run, job_environment):
    undisturbed, model = one_worker
    run = new_run(steps=40, workers=1)
    command = [sys.executable, "-c", TRAIN, str(Path(__file__).parent), str(run.folder), run.images]
    with subprocess.Popen(command, env=job_environment) as driver:
        try:
            wait_for(lambda: len(run.checkpoints()) == 2, still=lambda: driver.poll() is None)  # one is noted by Ray
            workers = named(WORKER, driver.pid)
        finally:
            driver.kill()
    assert len(workers) == 1
    wait_for(lambda: not is_named(workers[0], WORKER))  # Ray's processes follow their driver
    assert not (run.work / "lafite/trained.safetensors").exists()
    marked = 0
    for checkpoint in run.checkpoints():  # a mark in its past shows whether a training went on from it
        try:
            state = torch.load(checkpoint / CHECKPOINT_FILE, weights_only=True)
        except (RuntimeError, EOFError):  # cut off while it was written, so Ray Train does not know of it
            continue
        marked = state["loop"]["step"]
        state["curve"][0][1] = -1.0
        torch.save(state, checkpoint / CHECKPOINT_FILE)
    assert 0 < marked < 40
    curve = run.train().card["loss_curve"]
    assert curve == [(1, -1.0), *model.card["loss_curve"][1:]]
    assert_same(run, undisturbed)


@pytest.mark.parametrize("name", ["diffusion_ad", "glad"])
def test_two_networks_train_across_workers(local_ray, images, tmp_path, name):
    recipe = tiny_settings(name, train_steps=6, batch_size=8, accumulation=2)
    model = train(name, recipe, images, str(tmp_path / "model"), str(tmp_path / "work"), workers=2)
    assert all(math.isfinite(loss) for _, loss in model.card["loss_curve"])
    assert model.card["texture_sources"] == ["procedural", "self"]
    assert 0 < model.card["foreground_share"] <= 1
    loaded = raydiff.load(str(tmp_path / "model"), "cpu")
    assert np.isfinite(loaded.score(list(made_images(2))).scores).all()


def test_a_missing_foreground_mask_is_named(local_ray, images, tmp_path):
    recipe = tiny_settings("diffusion_ad", foreground=str(tmp_path))
    with pytest.raises(DataError, match=r"^/.*\.png has no foreground mask; looked for "):
        train("diffusion_ad", recipe, images, str(tmp_path / "model"), str(tmp_path / "work"))
