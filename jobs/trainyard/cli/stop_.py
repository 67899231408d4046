"""`trainyard stop`."""

import click

from trainyard.cli.cluster import on_cluster
from trainyard.cluster.kubectl import Kubectl


@click.command()
@click.argument("name")
@on_cluster
def command(kubectl: Kubectl, name: str) -> None:
    """Save a checkpoint of a job, wait until it is committed, and delete the job. Its storage stays.

    The same manifest, applied again, goes on from there.
    """
    from trainyard.cluster.lifecycle import stop

    checkpoint = stop(kubectl, name, lambda text: click.echo(f"{name}: {text}", err=True))
    click.echo(f"{name}: stopped" + (f"; its newest checkpoint is {checkpoint}" if checkpoint else ""))
