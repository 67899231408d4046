"""`trainyard submit`."""

import contextlib

import click

from trainyard.cli.cluster import on_cluster
from trainyard.cli.output import set_option
from trainyard.cluster.kubectl import Kubectl


@click.command()
@click.argument("file")
@set_option()
@click.option("-f", "--follow", is_flag=True, help="Follow the job's log until it has ended.")
@click.option("--dry-run", is_flag=True, help="Check everything, also on the cluster, and change nothing.")
@on_cluster
def command(kubectl: Kubectl, file: str, overrides: tuple[str, ...], follow: bool, dry_run: bool) -> None:
    """Train on a cluster: upload what the manifest names on this machine, and apply it.

    Uploads go into the job's storage by their content, so that the same model or code goes up once. Credentials come
    from the environment, as for `run`.
    """
    from trainyard.cli.logs_ import show
    from trainyard.cluster.jobs import ended
    from trainyard.cluster.upload import needed, placed, upload
    from trainyard.errors import NotFoundError, TrainyardError
    from trainyard.plan.checks import load

    loaded = load(file, overrides)
    namespace = kubectl.namespace or loaded.job.metadata.namespace or kubectl.current_namespace()
    there, name = Kubectl(namespace, kubectl.context), loaded.job.name
    with contextlib.suppress(NotFoundError):
        if state := ended(there.job(name)):
            fix = f"trainyard rm {name} -n {namespace}, then submit it again: its run in storage goes on"
            raise TrainyardError(f"{name} has ended ({state}), and a job runs once. Fix: {fix}")
    manifest = placed(loaded.job, namespace)
    there.apply(manifest, dry_run=True)  # what the cluster refuses is refused before anything goes up
    if dry_run:
        for each in needed(loaded.job):
            click.echo(f"would upload {'.'.join(each.where)}: {each.source} ({each.size / 1e6:.1f} MB)", err=True)
        click.echo(f"{name}: valid, and the cluster would take it")
        return
    upload(loaded.job, namespace, lambda text: click.echo(text, err=True))
    click.echo(there.apply(manifest))
    if follow:
        show(there, name, 0)
    elif loaded.job.spec.suspend:
        click.echo(f"it is suspended: trainyard resume {name} -n {namespace} starts it", err=True)
    else:
        click.echo(f"follow it: trainyard logs -f {name} -n {namespace}", err=True)
