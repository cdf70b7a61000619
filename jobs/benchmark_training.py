"""What more workers are worth: samples/s of a training with one worker and with several, a core or a GPU each.

    raydiff cluster up --nodes 3    # on two cores: a head without work and two nodes of one core each
    python jobs/benchmark_training.py --address HOST:PORT --data s3://plant/line4 --out bench --method lafite

All train the same method on the same examples with the same batch, which the workers share; the model is thrown away.
Start-up is not counted. Run it on an idle cluster, and long enough (--set train_steps=...) that its first steps, which
are slow, weigh little.
"""

from typing import Annotated

import typer

from raydiff import cli, cluster, methods, steps, storage
from raydiff.cli import options
from raydiff.cli.method_settings import changes
from raydiff.errors import SettingsError
from raydiff.methods.base import GradientSettings
from raydiff.progress import console
from raydiff.run_folder import RunFolder
from raydiff.training.train import train
from raydiff.training.workers import Workers


def main(
    data: options.Data,
    out: Annotated[str, typer.Option(help="A new folder; benchmark.json goes there.")],
    method: options.Method,
    preset: options.Preset = "small",
    backbone: options.Backbone = None,
    backbone_weights: options.Weights = None,
    settings: options.Set = None,
    most: Annotated[int, typer.Option(min=2, help="The larger number of workers.")] = 2,
    address: options.Address = None,
) -> None:
    """Train with one worker and with several, and print the ratio of their speeds."""
    recipe = methods.recipe(method, preset, changes(method, backbone, backbone_weights, settings))
    if not isinstance(recipe, GradientSettings):
        raise SettingsError(f"{method} takes no gradient steps, so more workers do not help; choose another --method")
    steps.index(data, out)
    cluster.connect(address)
    run = RunFolder(out)
    trained = {}
    for count in (1, most):
        workers = Workers(count, count)
        trained[count] = train(method, recipe, run.table("fit"), run.model(f"{method}-{count}"), run.work, workers).card
    found = {
        "samples_per_second": {count: recipe.batch_size / card["seconds_a_step"] for count, card in trained.items()},
        "waiting_for_data": {count: card["waiting_for_data"] for count, card in trained.items()},
        "ratio": trained[1]["seconds_a_step"] / trained[most]["seconds_a_step"],
    }
    storage.write_json(storage.join(run.uri, "benchmark.json"), found)
    console.print(found)


if __name__ == "__main__":
    cli.run(main)
