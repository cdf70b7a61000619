"""The steps of a run as commands: `raydiff index | train | tune | calibrate | score | evaluate | report`."""

from __future__ import annotations

from typing import Annotated

import typer

from raydiff.cli import completion, documents, options
from raydiff.cli.answer import Answer, answering
from raydiff.cli.method_settings import changes, with_levels
from raydiff.cli.settings_file import configurable
from raydiff.cli.shown import print_results, print_scored
from raydiff.errors import SettingsError
from raydiff.model.rate import DEFAULT_RATE
from raydiff.progress import console
from raydiff.selection.search_settings import SearchSettings

app = typer.Typer()

DEFAULT_SEARCH = SearchSettings()


@app.command(epilog="Example: raydiff index --data s3://plant/line4 --out s3://plant/runs/may")
@configurable
@answering
def index(
    data: options.Data,
    out: options.Out,
    score: Annotated[str | None, typer.Option(help="Another folder, of images to be scored (plain folders).")] = None,
    pack: Annotated[
        bool, typer.Option(help="Pack the files into OUT as an archive of few large ones, for jobs/score_archive.py.")
    ] = False,
    normal: options.NormalOption = None,
    anomalous: options.AnomalousOption = None,
    part_from: options.PartFromOption = None,
    bit_depth: options.BitDepth = None,
    levels: options.LevelsOption = None,
    pages: options.PagesOption = None,
    layout: options.LayoutOption = "auto",
    verbose: options.Verbose = False,
) -> Answer:
    """Find the images, write the image table and say what is in it."""
    from raydiff import steps
    from raydiff.images import pack as packing
    from raydiff.images.index import print_report
    from raydiff.images.layouts import known
    from raydiff.images.layouts.folder_names import FolderNames
    from raydiff.images.levels import Levels
    from raydiff.images.pages import Pages
    from raydiff.images.parts import PartPattern

    by = Levels.of_options(bit_depth, levels)
    which = Pages.parse(pages)
    wanted = known.parse(layout)
    if pack:
        if score:
            raise SettingsError("--pack takes one folder; give it as --data, without --score")
        if normal or anomalous:
            raise SettingsError("--pack makes an archive, whose images have no labels; leave out --normal, --anomalous")
        if wanted:
            raise SettingsError("--pack takes all images of a folder, however they lie; leave out --layout")
        if part_from is not None:
            raise SettingsError("--pack keeps files as they are; give --part-from to jobs/score_archive.py instead")
        if by:
            raise SettingsError("--pack keeps files as they are; leave out --bit-depth and --levels")
        packed = packing.pack(data, out, which)
        packing.print_packed(packed, out)
        return Answer({"packed": out, **packed._asdict()})

    named = FolderNames.parse(normal, anomalous)
    found = steps.index(data, out, score, named, PartPattern.parse(part_from), by, which, wanted)
    print_report(found)
    return Answer(documents.indexed(found))


@app.command(epilog="Example: raydiff train --out runs/may --method lafite --preset small --backbone-weights hub")
@configurable
@answering
def train(
    out: options.Out,
    method: options.Method,
    preset: options.Preset = "small",
    backbone: options.Backbone = None,
    backbone_weights: options.Weights = None,
    view: options.ViewOption = None,
    roi: options.RoiOption = None,
    settings: options.Set = None,
    workers: options.WorkersOption = None,
    seed: options.Seed = 0,
    save_as: Annotated[str | None, typer.Option(help="The model's name, by default the method's.")] = None,
    bit_depth: options.BitDepth = None,
    levels: options.LevelsOption = None,
    verbose: options.Verbose = False,
) -> Answer:
    """Fit a method on the run's normal images."""
    from raydiff import steps
    from raydiff.run_folder import RunFolder
    from raydiff.training.workers import Workers

    asked = Workers.parse(workers) if workers else None
    given = with_levels(changes(method, backbone, backbone_weights, settings, view=view, roi=roi), bit_depth, levels)
    steps.check_recipe(out, method, preset, given)
    model = steps.train(out, method, preset, given, asked, seed, save_as)
    return Answer(documents.trained(model, RunFolder(out).model(save_as or method)))


@app.command(epilog="Example: raydiff tune --out runs/may --model lafite,glad --scheduler asha --trials-per-gpu 4")
@configurable
@answering
def tune(
    out: options.Out,
    model: Annotated[
        str | None,
        typer.Option(
            help="Which of the run's models, with commas between; by default all called as their method.",
            autocompletion=completion.models,
        ),
    ] = None,
    save_as: Annotated[str | None, typer.Option(help="Tune a copy of the model under this name.")] = None,
    space: Annotated[str | None, typer.Option(help="A Python file that defines STAGES.")] = None,
    search: options.SearchOption = DEFAULT_SEARCH.search,
    trials: Annotated[int, typer.Option(help="Trials a stage, with --search optuna.")] = DEFAULT_SEARCH.trials,
    scheduler: options.SchedulerOption = DEFAULT_SEARCH.scheduler,
    trials_per_gpu: options.TrialsPerGpu = DEFAULT_SEARCH.trials_per_gpu,
    pseudo_images: options.PseudoImages = None,
    seed: options.Seed = DEFAULT_SEARCH.seed,
    address: options.Address = None,
    gpus: options.Gpus = None,
    verbose: options.Verbose = False,
) -> Answer:
    """Choose score settings on made anomalies; no labelled defect is looked at.

    Run again after it was killed, it takes the trials that were finished from OUT/work.
    """
    from raydiff import cluster, steps
    from raydiff.run_folder import RunFolder
    from raydiff.selection.trials import trials_table

    how = SearchSettings.parse(
        {
            "search": search,
            "trials": trials,
            "scheduler": scheduler,
            "trials_per_gpu": trials_per_gpu,
            "seed": seed,
        }
    )
    if address or gpus:
        cluster.connect(address, gpus)
    found = steps.sweep(out, model.split(",") if model else None, how, save_as, space, pseudo_images)
    console.print(trials_table(found))
    run = RunFolder(out)
    console.print(f"all trials of the run: {run.trials}, drawn in {run.trials_plot}", markup=False)
    return Answer(documents.tuned(run, found))


@app.command(epilog="Example: raydiff calibrate --out runs/may --model lafite --false-alarm-rate 0.01")
@configurable
@answering
def calibrate(
    out: options.Out,
    model: options.Name,
    false_alarm_rate: Annotated[
        float | None,
        typer.Option(
            help=f"Wanted false-alarm rate on normal images, by default {DEFAULT_RATE:g}; of a budget the model's own."
        ),
    ] = None,
    pseudo_images: options.PseudoImages = None,
    alarms_per_day: Annotated[
        float | None, typer.Option(help="Of a calibrated model: so many alarms a day, on an archive like --archive.")
    ] = None,
    archive: Annotated[
        str | None, typer.Option(help="A folder of jobs/score_archive.py, scored by this model.")
    ] = None,
    images_per_day: Annotated[
        float | None, typer.Option(help="How many images a day has, where the archive does not say the days.")
    ] = None,
    verbose: options.Verbose = False,
) -> Answer:
    """Set the alarm threshold from held-out normal images, or from a budget of alarms (--alarms-per-day)."""
    from raydiff import steps
    from raydiff.run_folder import RunFolder

    if (alarms_per_day is None) != (archive is None) or (images_per_day is not None and archive is None):
        raise SettingsError("a budget is --alarms-per-day together with --archive (and --images-per-day); give both")
    if alarms_per_day is not None and archive is not None:
        if pseudo_images is not None:
            raise SettingsError("a budget makes no anomalies and looks at none; leave out --pseudo-images")
        from raydiff.selection.budget import Budget

        fitted, came_to = steps.calibrate_to_budget(
            out, model, archive, Budget(alarms_per_day, images_per_day), false_alarm_rate
        )
        return Answer(documents.calibrated(fitted, RunFolder(out).model(model)) | documents.budget(came_to))
    with steps.serving(out, model) as handle:
        rate = DEFAULT_RATE if false_alarm_rate is None else false_alarm_rate
        found = steps.calibrate(handle, out, model, rate, pseudo_images)
    return Answer(documents.calibrated(found, RunFolder(out).model(model)))


@app.command(epilog="Example: raydiff score --out runs/may --model lafite --maps tiff")
@configurable
@answering
def score(
    out: options.Out,
    model: options.Name,
    maps: options.MapsOption = "none",
    verbose: options.Verbose = False,
) -> Answer:
    """Score the run's test images (jobs/score_archive.py scores any other images)."""
    from raydiff import steps
    from raydiff.model.description import describe
    from raydiff.run_folder import RunFolder

    with steps.serving(out, model) as handle:
        found = steps.score(handle, out, model, maps)
    print_scored(found)
    run = RunFolder(out)
    return Answer(documents.scored(found, run.scores(model, describe(run.model(model))["id"])))


@app.command(epilog="Example: raydiff evaluate --out runs/may --model lafite")
@configurable
@answering
def evaluate(out: options.Out, model: options.Name, size: options.Size = None) -> Answer:
    """Metrics of the test images' scores and maps, where the data has labels."""
    from raydiff import steps

    found = steps.evaluate(out, model, size)
    print_results([(model, found)])
    return Answer(found)


@app.command(epilog="Example: raydiff report --out runs/may")
@configurable
@answering
def report(
    out: Annotated[str | None, typer.Option(help="A run's folder.")] = None,
    scores: Annotated[str | None, typer.Option(help="Or a folder of jobs/score_archive.py.")] = None,
) -> Answer:
    """Write the report of a run, or of a scored archive: one HTML file."""
    if out is not None and scores is None:
        from raydiff import steps

        place = steps.report(out)
    elif scores is not None and out is None:
        from raydiff.report.archive import write_archive_report

        place = write_archive_report(scores)
    else:
        raise SettingsError("give either --out, a run's folder, or --scores, a folder of jobs/score_archive.py")
    console.print(f"report: {place}", markup=False)
    return Answer({"report": place})
