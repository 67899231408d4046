"""`trainyard wait`."""

import click

from trainyard.cli.cluster import on_cluster
from trainyard.cluster.kubectl import JOB, Kubectl


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
@click.option(
    "--timeout", default="0", help="How long, as 30s, 10m or 2h; then it ends with exit code 6. Default: for ever."
)
@on_cluster
def command(kubectl: Kubectl, name: str, what: str, timeout: str) -> None:
    """Wait until a job has ended, or for another condition. A job that failed makes it end with exit code 5."""
    from trainyard.cluster.jobs import condition
    from trainyard.errors import ExitCode

    limit = "-1s" if timeout == "0" else timeout
    # A job that failed will never be complete: either end is waited for.
    kind = "Finished" if what == "Complete" else what
    kubectl.run("wait", f"{JOB}/{name}", f"--for=condition={kind}", f"--timeout={limit}", timeout=False)
    job = kubectl.job(name)
    if failed := condition(job, "Failed"):
        click.echo(f"{name} failed: {failed['message']}", err=True)
        raise click.exceptions.Exit(int(ExitCode.JOB_FAILED))
    click.echo(f"{name}: {job['status']['state']}")
