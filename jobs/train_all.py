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
from raydiff.cli import documents, options
from raydiff.cli.answer import Answer, answering
from raydiff.cli.method_settings import changes, with_levels
from raydiff.cli.settings_file import configurable
from raydiff.cli.shown import print_results, print_scored
from raydiff.images import table
from raydiff.images.layouts import known
from raydiff.images.layouts.folder_names import FolderNames
from raydiff.images.pages import Pages
from raydiff.images.parts import PartPattern
from raydiff.model.rate import DEFAULT_RATE, check_rate
from raydiff.progress import console, duration
from raydiff.run_folder import RunFolder
from raydiff.selection.champion import REFERENCE
from raydiff.selection.search_settings import SearchSettings

METHODS = ",".join(sorted(methods.names(), key=lambda name: name != REFERENCE))  # all, the reference first


@configurable
@answering
def main(
    data: options.Data,
    out: options.Out,
    methods_: Annotated[str, typer.Option("--methods", help="Which methods, with commas between.")] = METHODS,
    preset: options.Preset = "small",
    backbone: options.Backbone = None,
    backbone_weights: options.Weights = None,
    view: options.ViewOption = None,
    roi: options.RoiOption = None,
    settings: options.Set = None,
    workers: options.WorkersOption = None,
    seed: options.Seed = 0,
    pseudo_images: options.PseudoImages = None,
    false_alarm_rate: options.Rate = DEFAULT_RATE,
    maps: options.MapsOption = "tiff",
    size: options.Size = None,
    address: options.Address = None,
    gpus: options.Gpus = None,
    per_category: Annotated[bool, typer.Option("--per-category", help="A model for each category.")] = False,
    normal: options.NormalOption = None,
    anomalous: options.AnomalousOption = None,
    part_from: options.PartFromOption = None,
    bit_depth: options.BitDepth = None,
    levels: options.LevelsOption = None,
    pages: options.PagesOption = None,
    layout: options.LayoutOption = "auto",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what it would take; write nothing.")] = False,
    verbose: options.Verbose = False,
) -> Answer:
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
    plain = {name: changes(name, backbone, backbone_weights, settings, names, view, roi) for name in names}
    given = {name: with_levels(values, bit_depth, levels) for name, values in plain.items()}
    # a mistake in the settings should show before an hour of work, not after
    recipes = {name: methods.recipe(name, preset, given[name]) for name in names}
    by = methods.levels_of(recipes)
    asked = Workers.parse(workers) if workers else None
    check_rate(false_alarm_rate)
    PseudoValidationSettings.at_most(pseudo_images)
    named = FolderNames.parse(normal, anomalous)
    parts = PartPattern.parse(part_from)
    which = Pages.parse(pages)
    wanted = known.parse(layout)
    if dry_run:  # imported here, because planning loads all that a run may need
        from raydiff.planning.plan import print_plan
        from raydiff.planning.training import plan_training

        planned = data, out, recipes, per_category, asked, pseudo_images, false_alarm_rate, maps, address
        plan = plan_training(*planned, named=named, part_from=parts, pages=which, layout=wanted)
        print_plan(plan)
        return Answer(documents.planned(plan))
    for place in (data, out):
        storage.probe(place)
    methods.check(recipes)
    with at_work(RunFolder(out).uri):
        found = steps.index(data, out, named=named, part_from=parts, levels=by, pages=which, layout=wanted)
        print_report(found)
        steps.check_enough(out, per_category, found.unreadable)
        cluster.connect(address, gpus)
        runs = list(steps.split(out).values()) if per_category else [out]
        reports = []
        for run in runs:
            for name in names:
                steps.train(run, name, preset, given[name], asked, seed)
                steps.tune(run, name, SearchSettings(seed=seed), pseudo_images=pseudo_images)
                tested = steps.has_test_images(run)
                with steps.serving(run, name) as handle:
                    steps.calibrate(handle, run, name, false_alarm_rate, pseudo_images)
                    if tested:
                        print_scored(steps.score(handle, run, name, maps))
                if tested:
                    evaluation = steps.evaluate(run, name, size)
                    if (run, name) != (runs[-1], names[-1]):  # after which comes the table of all
                        console.print(f"{name} after {duration(time.monotonic() - began)}:", markup=False)
                        print_results([(name, evaluation)])
            reports.append(steps.report(run))
        console.print(f"all done in {duration(time.monotonic() - began)}", markup=False)
        _print_end(runs, reports)
        return Answer({"runs": [documents.run(run, place) for run, place in zip(runs, reports, strict=True)]})


def _print_end(runs: Sequence[str], reports: Sequence[str]) -> None:
    """The results, which model was chosen, the report, and what to do next."""
    from raydiff import steps
    from raydiff.report.facts import archive_command

    print_results(pair for run in runs for pair in steps.results(run).items())
    for run, place in zip(runs, reports, strict=True):
        for sentence in steps.choice(run):
            console.print(sentence, markup=False)
        if not steps.has_test_images(run):
            console.print("there are no test images, so nothing here says how many defects are found", markup=False)
        console.print(f"report: {place}", markup=False)
    first = RunFolder(runs[0])
    model, uris = first.model(steps.chosen(first.uri) or ""), table.read(first.table("fit"))["uri"].to_pylist()
    raydiff, python, named = typed.program("raydiff"), typed.program("python"), typed.place(model)
    console.print("next:", markup=False)
    console.print(f"  inspect images in a browser: {raydiff} serve --model {shlex.quote(named)}", markup=False)
    console.print(f"  score an archive: {archive_command(named, uris, python)}", markup=False)


if __name__ == "__main__":
    cli.run(main)
