"""The command line, `raydiff index | train | tune | calibrate | score | evaluate | report | serve | cluster`."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from raydiff import methods
from raydiff.errors import RaydiffError, SettingsError
from raydiff.model.rate import DEFAULT_RATE
from raydiff.progress import console, duration
from raydiff.scoring.map_place import Maps
from raydiff.selection.search_settings import Scheduler, Search, SearchSettings
from raydiff.stopping import stop, stop_at_sigterm
from raydiff.views import View

if TYPE_CHECKING:
    from raydiff.evaluation.evaluate import Evaluation
    from raydiff.scoring.bulk import Summary

DEFAULT_SEARCH = SearchSettings()

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)

cluster_app = typer.Typer(no_args_is_help=True, help="A Ray cluster of one's own on this machine, for trying things.")
app.add_typer(cluster_app, name="cluster")


Data = Annotated[
    str, typer.Option(help="Images: a folder, file:// or s3:// URI, or a table (CSV, JSON lines, Parquet, URIs).")
]
NormalOption = Annotated[
    list[str] | None,
    typer.Option("--normal", help="A folder's name that means normal images, as OK in line4/OK; several with commas."),
]
AnomalousOption = Annotated[
    list[str] | None,
    typer.Option("--anomalous", help="A folder's name that means defects, as NG in line4/NG; several with commas."),
]
PartFromOption = Annotated[
    str | None,
    typer.Option(
        help="Which part an image shows: a regular expression, searched for in its path. Parts are held out whole."
    ),
]
PagesOption = Annotated[
    str | None,
    typer.Option("--pages", help="Which pages of a TIFF or DICOM are images: first, all (each a row) or a number."),
]
BitDepth = Annotated[
    list[str] | None,
    typer.Option(help="Bits of a camera that keeps 10, 12 or 14 in 16-bit files, which look dark; bolt=12 for one's."),
]
LevelsOption = Annotated[
    list[str] | None,
    typer.Option("--levels", help="The stored values of black and white, LOW,HIGH; for signed, 32-bit, floats too."),
]
Out = Annotated[str, typer.Option(help="The run's folder; local or an object-storage URI.")]
Name = Annotated[str, typer.Option("--model", help="Which of the run's models, by name.")]
Method = Annotated[str, typer.Option(help=f"One of {', '.join(methods.names())}.")]
Preset = Annotated[str, typer.Option(help="Train settings to begin with: demo, small or paper.")]
Backbone = Annotated[str | None, typer.Option(help="Any timm backbone with feature maps, or several (a,b).")]
Weights = Annotated[
    str | None,
    typer.Option("--backbone-weights", help="`package`, `hub`, `random`, or the URI of a safetensors or .pth file."),
]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set", help="Another train setting, e.g. image_size=320, backbone.grid=16 or lafite.train_steps=2000."
    ),
]
ViewOption = Annotated[
    str | None,
    typer.Option(
        "--view", help="What the networks see: tile=auto or tile=512,overlap=64 cuts large images into tiles; fit=pad."
    ),
]
RoiOption = Annotated[
    str | None,
    typer.Option(
        "--roi", help="Where to look: a mask (white), a folder of CATEGORY.png, or `auto`: the product on each image."
    ),
]
WorkersOption = Annotated[
    str | None,
    typer.Option(
        help="Training workers: 4, or 1-4 for as many as find room. By default one a GPU, or one with a node's CPUs."
    ),
]
Address = Annotated[
    str | None,
    typer.Option(
        help="The Ray cluster: its head's HOST:PORT. By default RAY_ADDRESS (`ray job submit` sets it), or a Ray here."
    ),
]
Gpus = Annotated[
    int | None, typer.Option(min=1, help="Ask an autoscaling cluster for so many GPUs, and wait until they are there.")
]
Seed = Annotated[int, typer.Option(help="Seed of everything random.")]
Rate = Annotated[float, typer.Option(help="Wanted false-alarm rate on normal images.")]
MapsOption = Annotated[Maps, typer.Option(help="Write anomaly maps: none, tiff (float, MVTec's layout) or png.")]
Size = Annotated[int | None, typer.Option(help="Evaluate pixels at SIZE x SIZE; at the images' own size by default.")]
PseudoImages = Annotated[
    int | None,
    typer.Option(help="Tune on at most so many held-out normal images, and made anomalies, of each category."),
]
SearchOption = Annotated[Search, typer.Option(help="grid tries every candidate, optuna samples them.")]
SchedulerOption = Annotated[
    Scheduler,
    typer.Option(help="fifo scores every candidate to the end, asha stops the worse half at 1/4 and at 1/2 of it."),
]
TrialsPerGpu = Annotated[int, typer.Option(help="Trials that share a GPU at the same time.")]


@app.command(epilog="Example: raydiff index --data s3://plant/line4 --out s3://plant/runs/may")
def index(
    data: Data,
    out: Out,
    score: Annotated[str | None, typer.Option(help="Another folder, of images to be scored (plain folders).")] = None,
    pack: Annotated[
        bool, typer.Option(help="Pack the files into OUT as an archive of few large ones, for jobs/score_archive.py.")
    ] = False,
    normal: NormalOption = None,
    anomalous: AnomalousOption = None,
    part_from: PartFromOption = None,
    bit_depth: BitDepth = None,
    levels: LevelsOption = None,
    pages: PagesOption = None,
) -> None:
    """Find the images, write the image table and say what is in it."""
    from raydiff import steps
    from raydiff.images import pack as packing
    from raydiff.images.index import print_report
    from raydiff.images.layouts.folder_names import FolderNames
    from raydiff.images.levels import Levels
    from raydiff.images.pages import Pages
    from raydiff.images.parts import PartPattern

    by = Levels.of_options(bit_depth, levels)
    which = Pages.parse(pages)
    if pack:
        if score:
            raise SettingsError("--pack takes one folder; give it as --data, without --score")
        if normal or anomalous:
            raise SettingsError("--pack makes an archive, whose images have no labels; leave out --normal, --anomalous")
        if part_from is not None:
            raise SettingsError("--pack keeps files as they are; give --part-from to jobs/score_archive.py instead")
        if by:
            raise SettingsError("--pack keeps files as they are; leave out --bit-depth and --levels")
        packing.print_packed(packing.pack(data, out, which), out)
        return

    named = FolderNames.parse(normal, anomalous)
    print_report(steps.index(data, out, score, named, PartPattern.parse(part_from), by, which))


@app.command(epilog="Example: raydiff train --out runs/may --method lafite --preset small --backbone-weights hub")
def train(
    out: Out,
    method: Method,
    preset: Preset = "small",
    backbone: Backbone = None,
    backbone_weights: Weights = None,
    view: ViewOption = None,
    roi: RoiOption = None,
    settings: Set = None,
    workers: WorkersOption = None,
    seed: Seed = 0,
    save_as: Annotated[str | None, typer.Option(help="The model's name, by default the method's.")] = None,
    bit_depth: BitDepth = None,
    levels: LevelsOption = None,
) -> None:
    """Fit a method on the run's normal images."""
    from raydiff import steps
    from raydiff.training.workers import Workers

    asked = Workers.parse(workers) if workers else None
    given = with_levels(changes(method, backbone, backbone_weights, settings, view=view, roi=roi), bit_depth, levels)
    steps.check_recipe(out, method, preset, given)
    steps.train(out, method, preset, given, asked, seed, save_as)


@app.command(epilog="Example: raydiff tune --out runs/may --model lafite,glad --scheduler asha --trials-per-gpu 4")
def tune(
    out: Out,
    model: Annotated[
        str | None,
        typer.Option(help="Which of the run's models, with commas between; by default all called as their method."),
    ] = None,
    save_as: Annotated[str | None, typer.Option(help="Tune a copy of the model under this name.")] = None,
    space: Annotated[str | None, typer.Option(help="A Python file that defines STAGES.")] = None,
    search: SearchOption = DEFAULT_SEARCH.search,
    trials: Annotated[int, typer.Option(help="Trials a stage, with --search optuna.")] = DEFAULT_SEARCH.trials,
    scheduler: SchedulerOption = DEFAULT_SEARCH.scheduler,
    trials_per_gpu: TrialsPerGpu = DEFAULT_SEARCH.trials_per_gpu,
    pseudo_images: PseudoImages = None,
    seed: Seed = DEFAULT_SEARCH.seed,
    address: Address = None,
    gpus: Gpus = None,
) -> None:
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


@app.command(epilog="Example: raydiff calibrate --out runs/may --model lafite --false-alarm-rate 0.01")
def calibrate(out: Out, model: Name, false_alarm_rate: Rate = DEFAULT_RATE, pseudo_images: PseudoImages = None) -> None:
    """Set the alarm threshold from held-out normal images."""
    from raydiff import steps

    with steps.serving(out, model) as handle:
        steps.calibrate(handle, out, model, false_alarm_rate, pseudo_images)


@app.command(epilog="Example: raydiff score --out runs/may --model lafite --maps tiff")
def score(out: Out, model: Name, maps: MapsOption = "none") -> None:
    """Score the run's test images (jobs/score_archive.py scores any other images)."""
    from raydiff import steps

    with steps.serving(out, model) as handle:
        print_scored(steps.score(handle, out, model, maps))


@app.command(epilog="Example: raydiff evaluate --out runs/may --model lafite")
def evaluate(out: Out, model: Name, size: Size = None) -> None:
    """Metrics of the test images' scores and maps, where the data has labels."""
    from raydiff import steps

    print_results([(model, steps.evaluate(out, model, size))])


@app.command(epilog="Example: raydiff report --out runs/may")
def report(
    out: Annotated[str | None, typer.Option(help="A run's folder.")] = None,
    scores: Annotated[str | None, typer.Option(help="Or a folder of jobs/score_archive.py.")] = None,
) -> None:
    """Write the report of a run, or of a scored archive: one HTML file."""
    from raydiff import steps
    from raydiff.report.archive import write_archive_report

    if (out is None) == (scores is None):
        raise SettingsError("give either --out, a run's folder, or --scores, a folder of jobs/score_archive.py")
    console.print(f"report: {write_archive_report(scores) if scores else steps.report(out or '')}", markup=False)


@app.command(epilog="Example: raydiff serve --model runs/may/models/lafite")
def serve(
    model: Annotated[str, typer.Option(help="URI of a model folder, as OUT/models/lafite.")],
    host: Annotated[
        str, typer.Option(help="The address to listen on; 0.0.0.0 lets in whoever reaches this machine.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535)] = 8000,
    replicas: Annotated[int, typer.Option(min=1, help="Copies of the model, each on a GPU or a CPU of its own.")] = 1,
    limits: Annotated[
        list[str] | None,
        typer.Option("--set", help="A limit on requests: max_bytes, max_pixels, max_images or max_seconds, =NUMBER."),
    ] = None,
    address: Address = None,
) -> None:
    """Serve a model over HTTP: a page to inspect images with, and an API. RAYDIFF_SERVE_TOKEN guards it."""
    from raydiff.scoring.service import Arguments
    from raydiff.scoring.serving import serve_model

    given: dict[str, str] = {}
    for item in limits or []:
        name, equals, value = item.partition("=")
        if not equals or name == "model":
            raise SettingsError(f"--set {item!r} is no limit, as --set max_pixels=100000000 is one")
        given[name] = value
    serve_model(Arguments.parse({"model": model, **given}), host, port, replicas, address)


@app.command(epilog="Example: raydiff demo-images --out demo/images")
def demo_images(
    out: Annotated[str, typer.Option(help="A local folder, new or drawn by this command before.")],
    kind: Annotated[
        Literal["small", "large"],
        typer.Option(help="small: three products at 192 px; large: two at 3,000 x 2,000, with defects of 6 to 24 px."),
    ] = "small",
    seed: Seed = 0,
) -> None:
    """Draw inspection images: several products, several kinds of defect, masks."""
    if kind == "large":
        from raydiff.images.large_demo import draw as draw_large

        draw_large(out, seed=seed)
        return
    from raydiff.images.demo import draw

    draw(out, seed=seed)


@cluster_app.command(epilog="Example: raydiff cluster up --nodes 3")
def up(
    nodes: Annotated[int, typer.Option(min=1, help="With more than one, the head runs no tasks.")] = 1,
) -> None:
    """Start a Ray cluster on this machine's loopback, with a token, that stays until `raydiff cluster down`."""
    from raydiff.cluster import local as local_cluster

    cluster = local_cluster.up(nodes)
    console.print(f"Ray is up with {nodes} node{'s' * (nodes > 1)}, its dashboard at {cluster.dashboard}", markup=False)
    console.print(f"to use it:  . {cluster.env_file()}", markup=False)
    console.print("and then:   ray job submit --working-dir . -- python jobs/train_all.py ...", markup=False)


@cluster_app.command()
def down() -> None:
    """End the cluster that `raydiff cluster up` has started, and nothing else."""
    from raydiff.cluster import local as local_cluster

    local_cluster.down()
    console.print("the local cluster has ended")


def changes(
    method: str,
    backbone: str | None,
    weights: str | None,
    settings: list[str] | None,
    among: Sequence[str] = (),
    view: str | None = None,
    roi: str | None = None,
) -> dict[str, Any]:
    """Train settings of one method given on the command line, as nested values.

    A setting that does not name its method is for all methods `among` which this one was chosen that have it.

    Raises:
        SettingsError: if a --set is not NAME=VALUE, --view is no view, or --roi no mask that can be read.
    """
    first, *further = backbone.split(",") if backbone else [None]
    theirs = {"weights": weights} if weights else {}
    given = [f"backbone.name={first}"] if first else []
    given += [f"backbone.weights={weights}"] if weights else []
    given += [f"further_backbones={json.dumps([{'name': name} | theirs for name in further])}"] if further else []
    seen = View.values(view) if view else {}
    if roi:
        from raydiff.images.regions import regions

        seen["roi"] = regions(roi)
    given += [f"view={json.dumps(seen)}"] if seen else []
    found: dict[str, Any] = {}
    for item in [*given, *(settings or [])]:
        name, equals, text = item.partition("=")
        if not equals:
            raise SettingsError(f"--set {item!r} is not NAME=VALUE, as in --set train_steps=2000")
        *groups, last = name.split(".")
        if groups and groups[0] in methods.names():
            if groups.pop(0) != method:
                continue  # lafite.train_steps=2000 is for lafite alone
        elif _passes(method, name.split(".")[0], among):
            continue  # bank_size=2000 is for those that have a bank
        place = found
        for group in groups:
            place = place.setdefault(group, {})
            if not isinstance(place, dict):
                raise SettingsError(
                    f"--set {item!r}: {group} was given a value of its own before; give one or the other"
                )
        try:
            place[last] = json.loads(text)
        except ValueError:
            place[last] = text
    return found


def with_levels(
    settings: dict[str, Any], bit_depth: Sequence[str] | None, levels: Sequence[str] | None
) -> dict[str, Any]:
    """Changes of train settings, and what --bit-depth and --levels say.

    Raises:
        SettingsError: if it is said twice, or means nothing.
    """
    from raydiff.images.levels import Levels

    by = Levels.of_options(bit_depth, levels)
    if by is None:
        return settings
    if "levels" in settings:
        raise SettingsError("--set levels and --bit-depth or --levels say the same thing; give one of them")
    return {**settings, "levels": by.model_dump(exclude_none=True)}


def _passes(method: str, setting: str, among: Sequence[str]) -> bool:
    having = [other for other in among if setting in methods.get(other).TrainSettings.model_fields]
    return bool(having) and method not in having


def print_results(evaluations: Iterable[tuple[str, Evaluation]]) -> None:
    """The results of evaluated models, by name, and what they leave out; nothing where there are none."""
    from raydiff.evaluation.results_table import left_out, results_table

    found = list(evaluations)
    if not found:
        return
    console.print(results_table(found))
    for line in left_out(evaluation for _, evaluation in found):
        console.print(line, markup=False)


def print_scored(summary: Summary | None) -> None:
    """What a bulk run did, in one line; None: nothing was missing."""
    if summary is None:
        console.print("scored: nothing was missing")
        return
    rate = f", {summary.rate:.1f} images/s after start-up" if summary.rate else ""
    console.print(
        f"scored: {summary.images} images, {summary.scored_now} of them now in {duration(summary.seconds)}{rate}; "
        f"{summary.alarms} alarms, {summary.errors} errors",
        markup=False,
    )


def run(command: Callable[..., Any]) -> None:
    """Run a function by its command line; an error of ours becomes one line on standard error and exit status 1."""
    job = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
    job.command()(command)
    _explained(job)


def main() -> None:
    """Entry point of `raydiff`."""
    _explained(app)


def _explained(command: Callable[[], Any]) -> None:
    stop_at_sigterm()
    try:
        command()
    except Exception as error:
        found = _ours(error)
        if found is None:
            raise
        print(f"error: {found}", file=sys.stderr)
        sys.exit(1)
    except SystemExit as end:
        if end.code == signal.SIGTERM:  # from Ray's own handler
            stop()
        raise


def _ours(error: Exception) -> RaydiffError | None:
    if "ray" not in sys.modules:  # importing it takes seconds
        return error if isinstance(error, RaydiffError) else None
    from raydiff.cluster.task_errors import ours

    return ours(error)
