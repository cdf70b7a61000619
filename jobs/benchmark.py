"""The measuring stick: how well methods find defects and are chosen without labels, and the bulk path's speed.

    python jobs/benchmark.py --suite accuracy --spec benchmark.yaml --out bench
    python jobs/benchmark.py --suite pseudo --spec benchmark.yaml --out bench
    python jobs/benchmark.py --suite speed --model runs/may/models/lafite --data s3://plant/line4 --out speed

docs/benchmark.md says what stands in such a file, and what comes out. The first two measure the same: after one, the
other only makes its tables. Speed wants an idle machine and at least 2,000 images.
"""

from typing import Annotated, Literal

import typer

from raydiff import cli, cluster, storage
from raydiff.cli import options
from raydiff.errors import SettingsError
from raydiff.nn.engine import Engine
from raydiff.progress import console

OF_SUITE = {"accuracy": ("--spec",), "pseudo": ("--spec",), "speed": ("--model", "--data")}


def main(
    out: Annotated[str, typer.Option(help="A folder for the results; what lies there already is not measured again.")],
    suite: Annotated[Literal["accuracy", "pseudo", "speed"], typer.Option(help="What to measure.")] = "speed",
    spec: Annotated[str | None, typer.Option(help="accuracy, pseudo: data sets, contenders, seeds; YAML.")] = None,
    at_once: Annotated[
        int | None, typer.Option(min=1, help="accuracy, pseudo: data sets and seeds at work at once; 1 by default.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="speed: a model folder.")] = None,
    data: Annotated[str | None, typer.Option(help="speed: a folder of images, a table or a packed archive.")] = None,
    engine: Annotated[
        Engine | None, typer.Option(help="speed: what computes features on CPUs, torch or openvino; torch by default.")
    ] = None,
    address: options.Address = None,
    verbose: options.Verbose = False,
) -> None:
    """Measure accuracy, the choice without labels, or speed."""
    for option, foreign in (("--engine", engine and suite != "speed"), ("--at-once", at_once and suite == "speed")):
        if foreign:
            raise SettingsError(f"--suite {suite} takes no {option}; leave it out")
    given = {"--spec": spec, "--model": model, "--data": data}
    for option, value in given.items():
        if (value is None) == (option in OF_SUITE[suite]):
            wanted = " and ".join(OF_SUITE[suite])
            raise SettingsError(f"--suite {suite} takes {wanted}, and {'needs' if value is None else 'not'} {option}")
    places = {name: storage.absolute(value) for name, value in {**given, "--out": out}.items() if value}
    if suite == "speed":
        from raydiff.benchmark import speed

        cluster.connect(address)
        console.print(speed.measure(places["--model"], places["--data"], places["--out"], engine or "torch"))
        return
    from raydiff.benchmark import suite as suites
    from raydiff.benchmark import tables
    from raydiff.benchmark.spec import Spec

    wanted_cells = Spec.read(places["--spec"])
    storage.probe(places["--out"])
    cluster.connect(address)
    results = suites.run(wanted_cells, places["--out"], at_once or 1)
    shown = tables.accuracy(results) if suite == "accuracy" else tables.pseudo(results)
    for place in suites.write(results, shown, f"raydiff benchmark: {suite}", places["--out"], suite):
        console.print(place, markup=False)


if __name__ == "__main__":
    cli.run(main)
