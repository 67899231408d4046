"""`trainyard logs`."""

import click

from trainyard.cli.cluster import on_cluster, run_of
from trainyard.cluster.kubectl import Kubectl
from trainyard.errors import NotFoundError


@click.command()
@click.argument("name")
@click.option("-f", "--follow", is_flag=True, help="Follow until the job has ended, also through restarts.")
@click.option("--worker", default=0, show_default=True, help="Which worker; 0 also drives the job.")
@click.option("--tail", type=int, help="Only so many of the last lines.")
@on_cluster
def command(kubectl: Kubectl, name: str, follow: bool, worker: int, tail: int | None) -> None:
    """Show the log of a job on a cluster: of its pods, or of storage when they are gone.

    With --follow it waits until the job starts, continues when its pods are replaced, and ends with the job. It exits
    with 0 if the job is complete, and with 5 if it failed.
    """
    from trainyard.cluster import logs
    from trainyard.cluster.jobs import now, unseen

    if follow:
        show(kubectl, name, worker)
        return
    text = logs.now(kubectl, name, worker, tail)
    if text is None:
        job = kubectl.job(name)
        warning = unseen(job, now())
        if warning is not None:
            raise NotFoundError(f"{name} has no log yet: {warning}")
        text = logs.stored(run_of(job), worker)
        text = "".join(text.splitlines(keepends=True)[-tail:]) if tail is not None else text
    click.echo(text, nl=False)


def show(kubectl: Kubectl, name: str, worker: int) -> None:
    """Follow a job's log to its end, and exit as the job ended."""
    from trainyard.cluster import logs
    from trainyard.cluster.jobs import condition
    from trainyard.errors import ExitCode

    shown = False
    for line in logs.follow(kubectl, name, worker, lambda text: click.echo(f"{name}: {text}", err=True)):
        click.echo(line, nl=False)
        shown = True
    job = kubectl.job(name)
    if not shown:
        try:
            click.echo(logs.stored(run_of(job), worker), nl=False)
        except NotFoundError as error:
            click.echo(str(error), err=True)
    if failed := condition(job, "Failed"):
        click.echo(f"{name} failed: {failed['message']}", err=True)
        raise click.exceptions.Exit(int(ExitCode.JOB_FAILED))
