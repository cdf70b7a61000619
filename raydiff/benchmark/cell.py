"""One cell of a benchmark: every contender on one data set with one seed, in a run folder of its own.

Each contender's results are a file; what is in it is taken as it is when the same is measured again, whatever was
killed meanwhile, and the run folder takes up the rest.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator, Mapping
from typing import Any, Literal

from raydiff import cluster, methods, steps, storage
from raydiff.at_work import at_work
from raydiff.benchmark import trivial
from raydiff.benchmark.protocol import Protocol, images_digest, versions
from raydiff.benchmark.spec import Contender, Spec
from raydiff.errors import DataError
from raydiff.evaluation.evaluate import METRICS, Evaluation
from raydiff.images import table
from raydiff.images.holdout import roles
from raydiff.images.levels import Levels
from raydiff.model.folder import Model
from raydiff.nn.backbones import HUB, PACKAGE, RANDOM
from raydiff.progress import console
from raydiff.run_folder import RunFolder
from raydiff.selection.criterion import METRIC
from raydiff.selection.search_settings import SearchSettings
from raydiff.selection.trials import rank_correlation, whole
from raydiff.storage import walking
from raydiff.storage.source import version

TRIVIAL = "trivial: "  # before the name of a statistic, which stands in the tables as a contender does
FORMAT = 2
NO_FILES = (HUB, PACKAGE, RANDOM)  # weights that are no file

Result = dict[str, Any]  # one contender in one category


def measure(spec: Spec, data: str, seed: int, out: str, at_once: int = 1) -> list[Result]:
    """The results of all contenders, and of trivial statistics, on the data set of that name.

    Args:
        at_once: how many cells are at work on the cluster. Each deploys on its share alone: two that want all of it
            would each hold a part and wait for the other's.

    Raises:
        DataError: if the data set cannot be measured on: no test images, or too few normals.
        ClusterError, SettingsError, StorageError: as the steps of a run.
    """
    run = RunFolder(storage.join(out, "runs", data, f"seed-{seed}"))
    given = spec.data[data]
    levels = methods.levels_of({name: contender.recipe() for name, contender in spec.contenders.items()})
    with at_work(run.uri):
        report = steps.index(given.uri, run.uri, **given.options(), levels=levels)
        steps.check_enough(run.uri, spec.per_category, report.unreadable)
        steps.check_tested(run.uri)
        images = table.read(run.images)
        what = images_digest(images, roles(images), walking.root(*storage.filesystem(storage.absolute(given.uri))))
        _check_same_images(run, what)
        runs = [RunFolder(uri) for uri in steps.split(run.uri).values()] if spec.per_category else [run]
        found: list[Result] = []
        for name, contender in spec.contenders.items():
            depends = _depends(spec, contender, what, seed)
            place = storage.join(out, "results", data, f"seed-{seed}", f"{name}.json")
            kept = storage.read_json(place) if storage.exists(place) else None
            if kept is None or kept["depends"] != depends:
                console.print(f"{data}, seed {seed}: {name}", markup=False)
                results = list(_measured(spec, name, contender, runs, what, seed, at_once))
                kept = {"depends": depends, "results": [each | {"data": data} for each in results]}
                storage.write_json(place, kept)
            found += kept["results"]
        if seed == spec.seeds[0]:  # they know no seed
            found += _trivial(spec, data, run, out, what, levels)
        return found


def _check_same_images(run: RunFolder, images: str) -> None:
    """Whether a cell's run folder is of the same images as before; nothing in it is thrown away.

    Raises:
        DataError: if not.
    """
    place = storage.join(run.uri, "measured_images.json")
    before = storage.read_json(place) if storage.exists(place) else images
    if before != images:
        raise DataError(f"{run.uri} holds what was measured on other images of that data set; give another --out")
    storage.write_json(place, images)


def _depends(spec: Spec, contender: Contender, images: str, seed: int) -> str:
    """A digest of all that a contender's results come from."""
    named = {
        "format": FORMAT,
        "contender": contender.model_dump(mode="json"),
        "recipe": contender.recipe().model_dump(mode="json"),
        "space": storage.read_bytes(contender.space).decode() if contender.space else None,
        "weights": {uri: version(uri) for uri in weights_files(contender.recipe())},
        "device": _device(),
        "images": images,
        "seed": seed,
        "versions": versions(),
        **spec.model_dump(mode="json", include={"per_category", "size", "false_alarm_rate", "pseudo_images"}),
    }
    return hashlib.sha256(json.dumps(named, sort_keys=True).encode()).hexdigest()


def weights_files(recipe: Any) -> list[str]:
    """URIs of the files of weights that train settings name."""
    named = [getattr(recipe, "backbone", None), *getattr(recipe, "further_backbones", ())]
    uris = [each.weights for each in named if each is not None and each.weights not in NO_FILES]
    given = getattr(recipe, "autoencoder", None)
    return uris + ([given] if isinstance(given, str) and not storage.is_folder(given) else [])


def _device() -> Literal["cpu", "gpu"]:
    return "gpu" if cluster.gpus() else "cpu"


def _measured(
    spec: Spec, name: str, contender: Contender, runs: list[RunFolder], images: str, seed: int, at_once: int
) -> Iterator[Result]:
    """A contender's results in each category: trained, tuned, calibrated, scored and evaluated as any run does."""
    for run in runs:
        began = time.monotonic()
        steps.train(run.uri, contender.method, contender.preset, contender.settings, seed=seed, save_as=name)
        trained = time.monotonic()
        search = SearchSettings(seed=seed)
        steps.tune(run.uri, name, search, space=contender.space, pseudo_images=spec.pseudo_images)
        tuned = time.monotonic()
        with steps.serving(run.uri, name, max(1, cluster.devices() // at_once)) as handle:
            model = steps.calibrate(handle, run.uri, name, spec.false_alarm_rate, spec.pseudo_images)
            steps.score(handle, run.uri, name, "tiff")
        evaluation = steps.evaluate(run.uri, name, spec.size)
        ended = time.monotonic()
        tuning = storage.read_json(run.tuning(name))
        shared = {
            "contender": name,
            "method": contender.method,
            "model_id": evaluation.model_id,
            "seed": seed,
            **_told(_protocol(spec, model, images, seed)),
            "train_seconds": trained - began,
            "tune_seconds": tuned - trained,
            "score_seconds": ended - tuned,
            "pseudo": _pseudo(tuning),
        }
        yield from (_row(evaluation, category) | shared for category in evaluation.categories)


def _row(evaluation: Evaluation, category: str) -> Result:
    of = evaluation.categories[category]
    counts = {"images": of.images, "anomalous": of.anomalous, "maps": of.maps}
    return {"category": category, **counts, **{metric: getattr(of, metric) for metric in METRICS}}


def _protocol(spec: Spec, model: Model, images: str, seed: int) -> Protocol:
    return Protocol(
        images=images,
        models="one a category" if spec.per_category else "one for all categories",
        image_size=model.method.settings.image_size,
        view=json.dumps(model.method.settings.view.model_dump(mode="json", exclude_defaults=True)),
        evaluation_size=spec.size,
        image_score=model.method.image_score_rule(model.score_settings),
        threshold=f"split-conformal, {spec.false_alarm_rate:g} of normals",
        tuned=f"{METRIC} on made anomalies",
        seed=seed,
        device=_device(),
        versions=versions(),
    )


def _told(protocol: Protocol) -> dict[str, Any]:
    return {"protocol": protocol.digest, "protocol_fields": protocol.model_dump(mode="json")}


def _pseudo(tuning: Mapping[str, Any]) -> dict[str, Any]:
    """How well the choice without labels foretold the test set, over all settings that were tried, each once."""
    trials: dict[str, Any] = {}
    chosen: dict[str, Any] = {}
    for stage in tuning["stages"]:
        for trial in stage["trials"]:
            if whole(trial) and trial["test_score"] is not None:
                trials[json.dumps(chosen | trial["fixed"] | trial["settings"], sort_keys=True)] = trial
        chosen = chosen | stage["chosen"]
    return {
        "saw_made_anomalies": tuning["saw_made_anomalies"],
        "pseudo_score": tuning["pseudo_score"],
        "trials": len(trials),
        "rank_correlation": rank_correlation(list(trials.values())),
        "price": tuning["oracle_price"],
    }


def _trivial(spec: Spec, data: str, run: RunFolder, out: str, images: str, levels: Levels | None) -> list[Result]:
    """What statistics of a file alone tell."""
    place = storage.join(out, "results", data, "trivial.json")
    kept = storage.read_json(place) if storage.exists(place) else None
    depends = [FORMAT, images, versions(), levels and levels.model_dump(mode="json")]
    if kept is None or kept["depends"] != depends:
        rows = table.read(run.images)
        found = trivial.results(rows, roles(rows), levels)
        kept = {"depends": depends, "results": found}
        storage.write_json(place, kept)
    none = dict.fromkeys(METRICS)
    protocol = Protocol(
        images=images,
        models="one a category",
        image_size=None,
        view="{}",
        evaluation_size=spec.size,
        image_score="deviations from the mean of normals",
        threshold="none",
        tuned="nothing",
        seed=None,
        device="cpu",
        versions=versions(),
    )
    return [
        {**none, **metrics, "category": category, "contender": TRIVIAL + name, "method": "", "data": data, "seed": None}
        | _told(protocol)
        for name in trivial.STATISTICS
        for category, metrics in kept["results"][name].items()
    ]
