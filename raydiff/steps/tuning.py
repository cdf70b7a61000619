"""Choosing score settings on made anomalies, and a run's champion by what came of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from raydiff import cluster, methods, storage
from raydiff.at_work import at_work
from raydiff.errors import SettingsError
from raydiff.images import table
from raydiff.model.description import describe
from raydiff.run_folder import RunFolder
from raydiff.selection.champion import champion, sentences
from raydiff.selection.search_settings import SearchSettings

if TYPE_CHECKING:
    from raydiff.model.folder import Model


def tune(
    out: str,
    name: str,
    search: SearchSettings,
    save_as: str | None = None,
    space: str | None = None,
    pseudo_images: int | None = None,
) -> Model:
    """Choose a model's score settings on made anomalies; `save_as` leaves the model as it is and tunes a copy.

    `pseudo_images` bounds both the normal images and the anomalies made of them, per category. The run's table and plot
    of all trials are written anew.
    """
    from raydiff.model.folder import load
    from raydiff.report.figures import trials_plot
    from raydiff.selection.pseudo_validation import PseudoValidationSettings
    from raydiff.selection.trials import as_csv
    from raydiff.selection.tune import tune as tune_model

    size = PseudoValidationSettings.at_most(pseudo_images)
    run = RunFolder.existing(out)
    if save_as:
        load(run.model(name), "cpu").save(run.model(save_as))
    name = save_as or name
    test = run.table("test")
    labelled = any(label is not None for label in table.read(test)["label"].to_pylist())
    cluster.connect()
    model = tune_model(
        run.model(name),
        run.table("tune"),
        run.tuning(name),
        run.work,
        size,
        search,
        test_table_uri=test if labelled else None,
        space=space,
    )
    found = tunings(out)
    storage.write_bytes(run.trials, as_csv(found))
    storage.write_bytes(run.trials_plot, trials_plot(found))
    return model


def sweep(
    out: str,
    names: Sequence[str] | None,
    search: SearchSettings,
    save_as: str | None = None,
    space: str | None = None,
    pseudo_images: int | None = None,
) -> dict[str, dict[str, Any]]:
    """Tune several models one after the other, each over its method's own space; their results by name.

    Args:
        names: by default all that are called as their method. What was saved under another name was tuned for another
            purpose, often over a space of its own, and is tuned again only if it is named.

    Raises:
        SettingsError: if `save_as` or `space`, which are for one model, are given with several.
        DataError, ModelFolderError: if one of the models is not there, or none; nothing is tuned then.
    """
    run = RunFolder.existing(out)
    named = list(dict.fromkeys(names)) if names else [name for name in run.models() if name in methods.names()]
    if not named:
        raise SettingsError(f"no model of {run.uri} is called as its method; name those to be tuned with --model")
    for option, value in (("--save-as", save_as), ("--space", space)):
        if value and len(named) > 1:
            raise SettingsError(f"{option} is for a single model, not for {', '.join(named)}; name one with --model")
    for name in named:
        describe(run.existing_model(name))
    with at_work(run.uri):
        for name in named:
            tune(out, name, search, save_as, space, pseudo_images)
    return {name: storage.read_json(run.tuning(name)) for name in ([save_as] if save_as else named)}


def tunings(out: str) -> dict[str, dict[str, Any]]:
    """The tuning results there are, by model name."""
    run = RunFolder.existing(out)
    places = {name: run.tuning(name) for name in run.models()}
    return {name: storage.read_json(uri) for name, uri in places.items() if storage.exists(uri)}


def chosen(out: str) -> str | None:
    """The model chosen by pseudo-validation, among those that were tuned."""
    found = tunings(out)
    return champion(found) if found else None


def choice(out: str) -> list[str]:
    """What is to be said of the choice, a sentence each."""
    return sentences(tunings(out))
