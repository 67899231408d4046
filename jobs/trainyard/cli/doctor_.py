"""`trainyard doctor`."""

import click

from trainyard.cli.cluster import on_cluster
from trainyard.cli.output import set_option
from trainyard.cluster.kubectl import Kubectl


@click.command()
@click.argument("file", required=False)
@set_option()
@on_cluster
def command(kubectl: Kubectl, file: str | None, overrides: tuple[str, ...]) -> None:
    """Find out why a cluster does not run jobs: API server, CRD, an operator that watches the namespace, permissions.

    With a manifest it also runs a small job with its image, storage and workers, and deletes it: that shows whether
    the image can be pulled, the storage can be written, and the workers reach each other. Exits with 7 if something
    is wrong.
    """
    from trainyard.cluster.doctor import examine
    from trainyard.errors import ExitCode
    from trainyard.spec.manifest import load

    job = load(file, overrides).job if file else None
    if job is not None and kubectl.namespace is None and job.metadata.namespace:
        kubectl = Kubectl(job.metadata.namespace, kubectl.context)
    well = True
    for finding in examine(kubectl, job, lambda text: click.echo(text, err=True)):
        click.echo(f"{'ok  ' if finding.well else 'FAIL'}  {finding.what}: {finding.told}")
        well = well and finding.well
    if not well:
        raise click.exceptions.Exit(int(ExitCode.UNREACHABLE))
