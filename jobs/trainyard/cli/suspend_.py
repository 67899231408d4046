"""`trainyard suspend`."""

import click

from trainyard.cli.cluster import on_cluster
from trainyard.cluster.kubectl import Kubectl


@click.command()
@click.argument("name")
@on_cluster
def command(kubectl: Kubectl, name: str) -> None:
    """Save a checkpoint of a job and free its pods; `trainyard resume` goes on at the next step."""
    from trainyard.cluster.lifecycle import suspend

    suspend(kubectl, name, suspended=True)
    click.echo(f"{name}: saving a checkpoint, then its pods go", err=True)
