"""`trainyard rm`."""

import sys

import click

from trainyard.cli.cluster import on_cluster
from trainyard.cluster.kubectl import Kubectl


@click.command()
@click.argument("name")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@on_cluster
def command(kubectl: Kubectl, name: str, yes: bool) -> None:
    """Delete a job from the cluster. What it has in storage stays.

    Its pods have their grace period to save a checkpoint, and nobody waits for them; `trainyard stop` does.
    """
    from trainyard.cluster.jobs import condition
    from trainyard.cluster.lifecycle import delete

    job = kubectl.job(name)
    if not condition(job, "Finished") and not yes and sys.stdin.isatty():
        click.confirm(f"{name} has not ended. Delete it?", abort=True, err=True)
    delete(kubectl, name)
    click.echo(
        f"{name}: deleted; its run stays in {job.get('status', {}).get('resultUri', 'storage').removesuffix('/final')}"
    )
