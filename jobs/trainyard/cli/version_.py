"""`trainyard version`."""

from importlib.metadata import PackageNotFoundError, version

import click

from trainyard import __version__
from trainyard.cli.output import format_option, print_json, print_table

_PACKAGES = ("torch", "transformers", "accelerate", "deepspeed", "datasets", "ray", "obstore", "pydantic")


@click.command()
@format_option("table", "json")
def command(output: str) -> None:
    """Show the versions of trainyard and of what it trains with."""
    found = {"trainyard": __version__}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    if output == "json":
        print_json(found)
    else:
        print_table(("PACKAGE", "VERSION"), list(found.items()))
