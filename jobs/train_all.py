"""The main job: from normal images to tuned, calibrated models, a scored test set and a report.

    ray job submit --working-dir . -- python jobs/train_all.py --data s3://plant/line4 --out s3://plant/runs/may

With no Ray running, `python jobs/train_all.py ...` starts one on this machine. Run again with the same --out it goes on
where it stopped.
"""

from typing import Annotated

import typer

from raydiff import cli, methods, steps
from raydiff.images.index import print_report
from raydiff.metrics.results_table import results_table
from raydiff.progress import console
from raydiff.selection.calibrate import DEFAULT_RATE


def main(
    data: cli.Data,
    out: cli.Out,
    methods_: Annotated[str, typer.Option("--methods", help="Which methods, with commas between.")] = ",".join(
        methods.names()
    ),
    preset: cli.Preset = "small",
    backbone: cli.Backbone = None,
    backbone_weights: cli.Weights = None,
    settings: cli.Set = None,
    workers: cli.Workers = None,
    seed: cli.Seed = 0,
    false_alarm_rate: cli.Rate = DEFAULT_RATE,
    maps: cli.MapsOption = "tiff",
    size: cli.Size = None,
) -> None:
    """Train, tune, calibrate, score and evaluate every method on one set of images."""
    names = methods_.split(",")
    changes = {name: cli.changes(name, backbone, backbone_weights, settings) for name in names}
    for name in names:  # a mistake in the settings should show before an hour of work, not after
        methods.recipe(name, preset, changes[name])
    print_report(steps.index(data, out))
    for name in names:
        steps.train(out, name, preset, changes[name], workers, seed)
        steps.tune(out, name, seed=seed)
        with steps.serving(out, name) as handle:
            steps.calibrate(handle, out, name, false_alarm_rate)
            cli.print_summary(steps.score(handle, out, name, maps))
        steps.evaluate(out, name, size)
    place = steps.report(out)
    console.print(results_table(steps.results(out)))
    console.print(f"chosen by pseudo-validation, without a label: {steps.chosen(out)}", markup=False)
    console.print(f"report: {place}", markup=False)


if __name__ == "__main__":
    cli.run(main)
