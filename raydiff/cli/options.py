"""The options that several commands and jobs take, each with its name and its help."""

from __future__ import annotations

from typing import Annotated

import typer

from raydiff import methods, verbosity
from raydiff.cli import completion
from raydiff.nn.engine import Engine
from raydiff.scoring.map_place import Maps
from raydiff.selection.search_settings import Scheduler, Search

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
LayoutOption = Annotated[
    str,
    typer.Option(
        "--layout",
        help="How the folder lies: auto, or the name of a layout in docs/input.md.",
        autocompletion=completion.layouts,
    ),
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
Name = Annotated[
    str, typer.Option("--model", help="Which of the run's models, by name.", autocompletion=completion.models)
]
Method = Annotated[
    str, typer.Option(help=f"One of {', '.join(methods.names())}.", autocompletion=completion.one_of(methods.names()))
]
Preset = Annotated[
    str,
    typer.Option(
        help=f"Train settings to begin with: {', '.join(methods.PRESETS)}.",
        autocompletion=completion.one_of(methods.PRESETS),
    ),
]
Backbone = Annotated[str | None, typer.Option(help="Any timm backbone with feature maps, or several (a,b).")]
Weights = Annotated[
    str | None,
    typer.Option(
        "--backbone-weights",
        help="`package`, `hub`, `random`, or the URI of a safetensors or .pth file.",
        autocompletion=completion.one_of(("package", "hub", "random")),
    ),
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
EngineOption = Annotated[
    Engine,
    typer.Option(help="What computes features on CPUs: torch, or openvino, which may be faster (raydiff[openvino])."),
]
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


def _settle_verbosity(verbose: bool) -> bool:
    """Called while a command line is read, and so before Ray is loaded."""
    if verbose:
        verbosity.show_all()
    else:
        verbosity.hush()
    return verbose


Verbose = Annotated[
    bool,
    typer.Option("--verbose", callback=_settle_verbosity, help="Show what Ray says, too; otherwise only its warnings."),
]
