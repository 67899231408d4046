"""`trainyard resume`."""

import click

from trainyard.cli.cluster import on_cluster
from trainyard.cluster.kubectl import Kubectl


@click.command()
@click.argument("name")
@on_cluster
def command(kubectl: Kubectl, name: str) -> None:
    """Let a suspended job go on at the step after its newest checkpoint."""
    from trainyard.cluster.lifecycle import suspend

    suspend(kubectl, name, suspended=False)
    click.echo(f"{name}: going on", err=True)
