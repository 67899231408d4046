"""`trainyard status`."""

import click

from trainyard.cli.cluster import on_cluster
from trainyard.cli.output import format_option, print_json, print_yaml
from trainyard.cluster.kubectl import Kubectl


@click.command()
@click.argument("name")
@format_option("table", "json", "yaml")
@on_cluster
def command(kubectl: Kubectl, name: str, output: str) -> None:
    """Show what a job on a cluster does, why it waits, and what has happened to it."""
    from trainyard.cluster.jobs import describe, events_of, now

    job = kubectl.job(name)
    if output != "table":
        (print_json if output == "json" else print_yaml)(job.get("status", {}))
        return
    pods = kubectl.get("pods", f"--selector=trainyard.dev/job-name={name}")["items"]
    events = events_of(job, kubectl.get("events")["items"])
    click.echo(describe(job, pods, events, now()), nl=False)
