"""The main job: from normal images to tuned, calibrated models, a scored test set and a report.

    ray job submit --working-dir . -- python jobs/train_all.py --data s3://plant/line4 --out s3://plant/runs/may

The reference without diffusion comes first, and each method's results as soon as it is evaluated. `--per-category` fits
a model for each category, in a run of its own under OUT/categories.
With no Ray running, `python jobs/train_all.py ...` starts one on this machine. Run again with the same --out it goes on
where it stopped.
"""

import shlex
import time
from collections.abc import Sequence
from typing import Annotated

import typer

from raydiff import cli, methods, storage, typed
from raydiff.images.layouts.folder_names import FolderNames
from raydiff.images.pages import Pages
from raydiff.images.parts import PartPattern
from raydiff.model.rate import DEFAULT_RATE, check_rate
from raydiff.progress import console, duration
from raydiff.run_folder import RunFolder
from raydiff.selection.champion import REFERENCE
from raydiff.selection.search_settings import SearchSettings

METHODS = ",".join(sorted(methods.names(), key=lambda name: name != REFERENCE))  # all, the reference first


def main(
    data: cli.Data,
    out: cli.Out,
    methods_: Annotated[str, typer.Option("--methods", help="Which methods, with commas between.")] = METHODS,
    preset: cli.Preset = "small",
    backbone: cli.Backbone = None,
    backbone_weights: cli.Weights = None,
    view: cli.ViewOption = None,
    roi: cli.RoiOption = None,
    settings: cli.Set = None,
    workers: cli.WorkersOption = None,
    seed: cli.Seed = 0,
    pseudo_images: cli.PseudoImages = None,
    false_alarm_rate: cli.Rate = DEFAULT_RATE,
    maps: cli.MapsOption = "tiff",
    size: cli.Size = None,
    address: cli.Address = None,
    gpus: cli.Gpus = None,
    per_category: Annotated[bool, typer.Option("--per-category", help="A model for each category.")] = False,
    normal: cli.NormalOption = None,
    anomalous: cli.AnomalousOption = None,
    part_from: cli.PartFromOption = None,
    bit_depth: cli.BitDepth = None,
    levels: cli.LevelsOption = None,
    pages: cli.PagesOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what it would take; write nothing.")] = False,
    verbose: cli.Verbose = False,
) -> None:
    """Train, tune, calibrate, score and evaluate every method on one set of images."""
    began = time.monotonic()
    if not dry_run:
        console.print("loading Ray and torch", markup=False)
    # Here, because what Ray says is settled before it is loaded, and --help need not wait.
    from raydiff import cluster, steps
    from raydiff.at_work import at_work
    from raydiff.images.index import print_report
    from raydiff.selection.pseudo_validation import PseudoValidationSettings
    from raydiff.training.workers import Workers

    names = methods_.split(",")
    plain = {name: cli.changes(name, backbone, backbone_weights, settings, names, view, roi) for name in names}
    changes = {name: cli.with_levels(given, bit_depth, levels) for name, given in plain.items()}
    # a mistake in the settings should show before an hour of work, not after
    recipes = {name: methods.recipe(name, preset, changes[name]) for name in names}
    by = methods.levels_of(recipes)
    asked = Workers.parse(workers) if workers else None
    check_rate(false_alarm_rate)
    PseudoValidationSettings.at_most(pseudo_images)
    named = FolderNames.parse(normal, anomalous)
    parts = PartPattern.parse(part_from)
    which = Pages.parse(pages)
    if dry_run:  # imported here, because planning loads all that a run may need
        from raydiff.planning.plan import print_plan
        from raydiff.planning.training import plan_training

        given = data, out, recipes, per_category, asked, pseudo_images, false_alarm_rate, maps, address
        print_plan(plan_training(*given, named=named, part_from=parts, pages=which))
        return
    for place in (data, out):
        storage.probe(place)
    methods.check(recipes)
    with at_work(RunFolder(out).uri):
        found = steps.index(data, out, named=named, part_from=parts, levels=by, pages=which)
        print_report(found)
        steps.check_enough(out, per_category, found.unreadable)
        cluster.connect(address, gpus)
        runs = list(steps.split(out).values()) if per_category else [out]
        reports = []
        for run in runs:
            for name in names:
                steps.train(run, name, preset, changes[name], asked, seed)
                steps.tune(run, name, SearchSettings(seed=seed), pseudo_images=pseudo_images)
                tested = steps.has_test_images(run)
                with steps.serving(run, name) as handle:
                    steps.calibrate(handle, run, name, false_alarm_rate, pseudo_images)
                    if tested:
                        cli.print_scored(steps.score(handle, run, name, maps))
                if tested:
                    evaluation = steps.evaluate(run, name, size)
                    if (run, name) != (runs[-1], names[-1]):  # after which comes the table of all
                        console.print(f"{name} after {duration(time.monotonic() - began)}:", markup=False)
                        cli.print_results([(name, evaluation)])
            reports.append(steps.report(run))
        console.print(f"all done in {duration(time.monotonic() - began)}", markup=False)
        _print_end(runs, reports)


def _print_end(runs: Sequence[str], reports: Sequence[str]) -> None:
    """The results, which model was chosen, the report, and what to do next."""
    from raydiff import steps
    from raydiff.report.facts import archive_command

    cli.print_results(pair for run in runs for pair in steps.results(run).items())
    for run, place in zip(runs, reports, strict=True):
        for sentence in steps.choice(run):
            console.print(sentence, markup=False)
        if not steps.has_test_images(run):
            console.print("there are no test images, so nothing here says how many defects are found", markup=False)
        console.print(f"report: {place}", markup=False)
    model = RunFolder(runs[0]).model(steps.chosen(runs[0]) or "")
    raydiff, python, named = typed.program("raydiff"), typed.program("python"), typed.place(model)
    console.print("next:", markup=False)
    console.print(f"  inspect images in a browser: {raydiff} serve --model {shlex.quote(named)}", markup=False)
    console.print(f"  score an archive: {archive_command(named, python)}", markup=False)


if __name__ == "__main__":
    cli.run(main)
