"""`trainyard run`."""

import os
import sys

import click

from trainyard import extras
from trainyard.cli.output import format_option, print_json, set_option


@click.command()
@click.argument("file")
@set_option()
@click.option("-q", "--quiet", is_flag=True, help="No progress; only the result.")
@format_option("table", "json")
def command(file: str, overrides: tuple[str, ...], quiet: bool, output: str) -> None:
    """Train on this machine, with as many processes as the manifest's workers make.

    The same command again goes on from the newest committed checkpoint. Ctrl-C saves a checkpoint and stops;
    a second Ctrl-C stops at once.
    """
    extras.need("train", "training here")
    from trainyard.errors import ExitCode
    from trainyard.launch import orphans
    from trainyard.launch.local import run
    from trainyard.launch.progress import evaluation
    from trainyard.plan.checks import load

    loaded = load(file, overrides)
    finished = run(loaded, quiet)
    if output == "json":
        document = {"exitCode": int(finished.exit_code), "final": finished.final, "metrics": finished.metrics}
        print_json({**document, "message": finished.message})
    elif finished.exit_code is ExitCode.OK:
        job = loaded.job
        measured = f" ({evaluation(finished.metrics)})" if finished.metrics and evaluation(finished.metrics) else ""
        click.echo(f"{job.name} is complete{measured}")
        click.echo(f"  model:  {finished.final}")
        if job.spec.task is not None:  # of a script's model only the script knows the use
            click.echo(f"  report: {finished.final}/report.html")
            click.echo(f"  use it: trainyard predict {finished.final}{_example(job.spec.task)}")
    else:
        click.echo(f"{loaded.job.name}: {finished.message}", err=True)
    if finished.at_once:
        sys.stdout.flush()
        sys.stderr.flush()
        orphans.end()  # Ray's daemons: by themselves some would only notice after half a minute
        os._exit(int(finished.exit_code))
    raise click.exceptions.Exit(int(finished.exit_code))


def _example(task: str) -> str:
    return " image.png" if task == "image-classification" else ' "…"'
