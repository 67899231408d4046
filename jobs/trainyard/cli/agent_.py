"""`trainyard agent`."""

import click


@click.command(hidden=True)
def command() -> None:
    """Do a pod's part of a job: the first process of the pods that the operator makes."""
    from trainyard.launch.agent import run

    run()
