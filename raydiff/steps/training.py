"""Fitting a method on a run's normal images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from raydiff import cluster, methods
from raydiff.at_work import at_work
from raydiff.errors import DataError
from raydiff.images import table
from raydiff.images.regions import check_regions
from raydiff.run_folder import RunFolder

if TYPE_CHECKING:
    from raydiff.model.folder import Model
    from raydiff.training.workers import Workers


def check_recipe(out: str, method: str, preset: str, changes: Mapping[str, Any]) -> None:
    """Whether there is a run to train in, and what the settings name is there or can be had: before anything begins.

    Raises:
        DataError, SettingsError, StorageError: if not.
    """
    run = RunFolder.existing(out)
    settings = methods.recipe(method, preset, changes)
    if settings.levels:
        settings.levels.check(table.read(run.images)["category"].unique().to_pylist())
    methods.check({method: settings})


def train(
    out: str,
    method: str,
    preset: str,
    changes: Mapping[str, Any] | None = None,
    workers: Workers | None = None,
    seed: int = 0,
    save_as: str | None = None,
) -> Model:
    """Fit a method on the run's images with the role `fit`; its model folder takes the method's name, or `save_as`."""
    from raydiff.training.train import train as train_method

    run = RunFolder.existing(out)
    settings = methods.recipe(method, preset, changes)
    normals = table.read(run.table("fit"))
    if not normals.num_rows:
        raise DataError(f"{run.uri} has no normal image to train on; `raydiff index` shows what there is")
    check_regions(settings.view, normals)
    cluster.connect()
    with at_work(run.uri):
        return train_method(method, settings, run.table("fit"), run.model(save_as or method), run.work, workers, seed)
