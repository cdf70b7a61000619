"""Training on a real Ray: the plain loop's curve, what is kept, and what is refused."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from conftest import made_images, tiny_settings
from training_run import Run

import raydiff
from raydiff import methods
from raydiff.errors import ClusterError, DataError
from raydiff.training.loop import TrainingLoop
from raydiff.training.store import ExampleStore
from raydiff.training.train import train
from raydiff.training.workers import Workers

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def one_worker(new_run):
    """An undisturbed training with one worker, and its model."""
    run = new_run(steps=40, workers="1")
    return run, run.train()


def test_one_worker_is_the_plain_loop(one_worker, fit_examples):
    run, model = one_worker
    (statistics,) = run.work.glob("lafite/statistics-*.safetensors")
    torch.set_num_threads(2)  # as many as Ray gives the worker CPUs: it decides the order of sums
    method = methods.get("lafite").untrained(run.settings)
    method.load_trained(safetensors.torch.load_file(statistics))
    loop = TrainingLoop(method, ExampleStore(str(fit_examples)), seed=0)
    curve = []
    while not loop.finished:
        curve.append((loop.step + 1, loop.advance()))
    assert model.card["loss_curve"] == curve
    plain = loop.finish().state_dict()
    for name, value in run.weights().items():
        assert torch.equal(value, plain[name]), name


def test_an_unreadable_image_is_left_out_and_counted(one_worker, fit_examples):
    _, model = one_worker
    store = ExampleStore(str(fit_examples))
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


def test_a_finished_training_is_not_done_again(one_worker, fit_examples):
    run, model = one_worker
    kept, index = run.checkpoints(), run.work / fit_examples.name / "index.json"
    written = index.stat().st_mtime_ns
    again = run.train()
    assert run.checkpoints() == kept  # each tenth of the steps would have ended in a new one
    assert index.stat().st_mtime_ns == written
    assert again.card["loss_curve"] == model.card["loss_curve"]
    assert again.id == model.id


def test_too_many_workers(local_ray, fit_table, tmp_path):
    with pytest.raises(ClusterError, match=r"3 workers were asked for, but the cluster has 1 node with 0 GPUs and 2 C"):
        Run(tmp_path, fit_table, steps=5, workers="3-4").train()
    assert list(tmp_path.iterdir()) == []


def test_a_method_of_several_networks_trains_across_workers(local_ray, fit_table, tmp_path):
    recipe = tiny_settings("glad", train_steps=6, batch_size=8, accumulation=2)
    model = train("glad", recipe, fit_table, str(tmp_path / "model"), str(tmp_path / "work"), Workers(2, 2))
    assert all(math.isfinite(loss) for _, loss in model.card["loss_curve"])
    assert model.card["texture_sources"] == ["procedural", "self"]
    assert 0 < model.card["foreground_share"] <= 1
    loaded = raydiff.load(str(tmp_path / "model"), "cpu")
    assert np.isfinite(loaded.score(list(made_images(2))).scores).all()


def test_a_missing_foreground_mask_is_named(local_ray, fit_table, tmp_path):
    recipe = tiny_settings("diffusion_ad", foreground=str(tmp_path))
    with pytest.raises(DataError, match=r"^/.*\.png has no foreground mask; looked for "):
        train("diffusion_ad", recipe, fit_table, str(tmp_path / "model"), str(tmp_path / "work"))
