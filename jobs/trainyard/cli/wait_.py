"""`trainyard wait`."""

import math
import re

import click

from trainyard.cli.cluster import on_cluster
from trainyard.cluster.kubectl import Kubectl

_UNITS = {"s": 1, "m": 60, "h": 3600}


@click.command()
@click.argument("name")
@click.option(
    "--for",
    "what",
    default="Finished",
    show_default=True,
    type=click.Choice(["Accepted", "Running", "Suspended", "Complete", "Finished"]),
    help="Condition to wait for.",
)
@click.option("--timeout", default="0", help="How long, as 30s, 10m or 2h; then it exits with 6. Default: no limit.")
@on_cluster
def command(kubectl: Kubectl, name: str, what: str, timeout: str) -> None:
    """Wait until a job has ended, or for another condition.

    Exits with 5 if the job failed, and with 3 if its manifest is not accepted.
    """
    from trainyard.cluster.jobs import condition
    from trainyard.cluster.lifecycle import wait
    from trainyard.errors import ExitCode

    job = wait(kubectl, name, what, _seconds(timeout), lambda text: click.echo(f"{name}: {text}", err=True))
    if failed := condition(job, "Failed"):
        click.echo(f"{name} failed: {failed['message']}", err=True)
        raise click.exceptions.Exit(int(ExitCode.JOB_FAILED))
    click.echo(f"{name}: {job['status']['state']}")


def _seconds(text: str) -> float:
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smh]?)", text)
    if found is None:
        raise click.BadParameter(f"{text!r} is no time: give 30s, 10m or 2h", param_hint="--timeout")
    return float(found[1]) * _UNITS[found[2] or "s"] or math.inf
