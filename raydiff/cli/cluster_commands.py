"""`raydiff cluster up | down`."""

from __future__ import annotations

from typing import Annotated

import typer

from raydiff.cli.answer import Answer, answering
from raydiff.cli.settings_file import configurable
from raydiff.progress import console

app = typer.Typer(no_args_is_help=True, help="A Ray cluster of one's own on this machine, for trying things.")


@app.command(epilog="Example: raydiff cluster up --nodes 3")
@configurable
@answering
def up(
    nodes: Annotated[int, typer.Option(min=1, help="With more than one, the head runs no tasks.")] = 1,
) -> Answer:
    """Start a Ray cluster on this machine's loopback, with a token, that stays until `raydiff cluster down`."""
    from raydiff.cluster import local as local_cluster

    cluster = local_cluster.up(nodes)
    console.print(f"Ray is up with {nodes} node{'s' * (nodes > 1)}, its dashboard at {cluster.dashboard}", markup=False)
    env_file = str(cluster.env_file())
    console.print(f"to use it:  . {env_file}", markup=False)
    console.print("and then:   ray job submit --working-dir . -- python jobs/train_all.py ...", markup=False)
    found = {"address": cluster.gcs, "dashboard": cluster.dashboard, "env_file": env_file, "nodes": len(cluster.nodes)}
    return Answer(found)


@app.command()
def down() -> None:
    """End the cluster that `raydiff cluster up` has started, and nothing else."""
    from raydiff.cluster import local as local_cluster

    local_cluster.down()
    console.print("the local cluster has ended")
