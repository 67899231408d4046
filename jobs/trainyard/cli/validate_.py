"""`trainyard validate`."""

import click

from trainyard.cli.output import set_option
from trainyard.errors import JobError, TrainyardError
from trainyard.plan.checks import load
from trainyard.plan.facts import gather
from trainyard.plan.plan import doubts


@click.command()
@click.argument("files", metavar="FILE...", nargs=-1, required=True)
@set_option()
def command(files: tuple[str, ...], overrides: tuple[str, ...]) -> None:
    """Check manifests: every mistake at once, with its line and the fix.

    Checks the text and, where they are on this machine, the model's config.json, the number of rows and the labels.
    `trainyard run` checks the storage, and that all inputs exist, before anything starts.
    """
    failed: TrainyardError | None = None
    for file in files:
        try:
            loaded = load(file, overrides)
            facts = gather(loaded.job.spec)
            if facts.problem is not None:
                raise JobError(f"{file}: {facts.problem}")
            click.echo(f"{file}: {loaded.job.name} is valid")
            for doubt in doubts(loaded.job, facts):
                click.echo(f"{file}: warning: {doubt}", err=True)
        except TrainyardError as error:
            click.echo(str(error), err=True)
            failed = error
    if failed is not None:
        raise click.exceptions.Exit(int(failed.exit_code))
