"""`raydiff recipe`."""

from __future__ import annotations

from typing import Annotated

import typer

from raydiff.cli import completion, options
from raydiff.cli.answer import Answer, answering
from raydiff.cli.method_settings import changes
from raydiff.cli.settings_file import configurable
from raydiff.errors import SettingsError
from raydiff.model.rate import DEFAULT_RATE
from raydiff.progress import console

app = typer.Typer()


@app.command(epilog="Example: raydiff recipe lafite_mpdd --data /data/MPDD --out recipes/lafite_mpdd")
@configurable
@answering
def recipe(
    name: Annotated[
        str | None, typer.Argument(help="A recipe's name; left out: all are named.", autocompletion=completion.recipes)
    ] = None,
    data: Annotated[str | None, typer.Option(help="The data set's folder; left out: the recipe is told.")] = None,
    out: Annotated[str | None, typer.Option(help="A folder for the run and its results.")] = None,
    preset: options.Preset = "paper",
    backbone: options.Backbone = None,
    backbone_weights: options.Weights = None,
    settings: options.Set = None,
    seeds: Annotated[str, typer.Option(help="With commas between.")] = "0",
    pseudo_images: options.PseudoImages = None,
    false_alarm_rate: options.Rate = DEFAULT_RATE,
    address: options.Address = None,
    verbose: options.Verbose = False,
) -> Answer:
    """Run a published result's recipe, and show what was published beside what comes out."""
    import inspect

    from raydiff import recipes, storage
    from raydiff.recipes.registry import function

    if name is None:
        titles = {each: recipes.get(each).title for each in recipes.names()}
        for each, title in titles.items():
            console.print(f"{each}: {title}", markup=False)
        return Answer(titles)
    found = recipes.get(name)
    if data is None:
        console.print(inspect.getdoc(function(name)), markup=False)
        return Answer(found)
    if out is None:
        raise SettingsError("a recipe that is run needs --out, a folder for the run and its results")
    given = changes(found.method, backbone, backbone_weights, settings)
    data, out = storage.absolute(data), storage.absolute(out)
    spec = found.spec(
        data,
        preset,
        given,
        seeds=_numbers(seeds),
        pseudo_images=pseudo_images,
        false_alarm_rate=false_alarm_rate,
    )
    spec.check()
    storage.probe(out)

    from raydiff import cluster
    from raydiff.benchmark import suite, tables
    from raydiff.recipes.comparison import compared

    cluster.connect(address)
    results = suite.run(spec, out)
    changed = [f"preset {preset}"] if preset != "paper" else []
    changed += [f"{key}={value}" for key, value in given.items()]
    changed += [f"pseudo_images={pseudo_images}"] if pseudo_images else []
    table = compared(found, results, ", ".join(changed))
    written = suite.write(results, [table, *tables.accuracy(results)], found.title, out, name)
    for place in written:
        console.print(place, markup=False)
    return Answer({"recipe": found, "changed": changed, **written._asdict()})


def _numbers(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(each) for each in text.split(","))
    except ValueError:
        raise SettingsError(f"--seeds {text!r} is no list of whole numbers, as in --seeds 0,1,2") from None
