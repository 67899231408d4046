"""`trainyard agent`."""

import click

from trainyard import extras


@click.command(hidden=True)
def command() -> None:
    """Do a pod's part of a job: the first process of the pods that the operator makes."""
    extras.need("train", "the agent of a pod")
    from trainyard.launch.agent import run

    run()
