"""`trainyard validate`."""

import click

from trainyard.cli.output import set_option
from trainyard.errors import TrainyardError
from trainyard.plan.plan import check
from trainyard.spec.manifest import load


@click.command()
@click.argument("files", metavar="FILE...", nargs=-1, required=True)
@set_option()
def command(files: tuple[str, ...], overrides: tuple[str, ...]) -> None:
    """Check manifests: every mistake at once, with its line and the fix.

    Looks at the text only: data, model and storage are looked at by `trainyard run`, before anything starts.
    """
    failed: TrainyardError | None = None
    for file in files:
        try:
            loaded = load(file, overrides)
            if problems := check(loaded.job.spec):
                raise loaded.error(problems)
            click.echo(f"{file}: {loaded.job.name} is valid")
        except TrainyardError as error:
            click.echo(str(error), err=True)
            failed = error
    if failed is not None:
        raise click.exceptions.Exit(int(failed.exit_code))
