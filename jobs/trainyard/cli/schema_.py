"""`trainyard schema`."""

import click

from trainyard.cli.output import print_json, print_yaml
from trainyard.spec.schema import crd, json_schema


@click.command()
@click.option("--crd", "want_crd", is_flag=True, help="The CustomResourceDefinition, as YAML.")
def command(want_crd: bool) -> None:
    """Print the JSON Schema of the manifest, for editors; or its CRD."""
    if want_crd:
        print_yaml(crd())
    else:
        print_json(json_schema())
