"""`trainyard ls`."""

import click

from trainyard.cli.cluster import on_cluster
from trainyard.cli.output import format_option, print_json, print_table, print_yaml
from trainyard.cluster.kubectl import JOB, Kubectl


@click.command()
@click.option("-A", "--all-namespaces", is_flag=True, help="Of every namespace.")
@format_option("table", "json", "yaml", "name")
@on_cluster
def command(kubectl: Kubectl, all_namespaces: bool, output: str) -> None:
    """List the jobs of a cluster."""
    from trainyard.cluster.jobs import HEADINGS, now, row, unseen

    found = kubectl.get(JOB, *(["--all-namespaces"] if all_namespaces else []))["items"]
    if output in ("json", "yaml"):
        (print_json if output == "json" else print_yaml)(found)
    elif output == "name":
        for job in found:
            click.echo(job["metadata"]["name"])
    elif not found:
        click.echo(f"no jobs in {'any namespace' if all_namespaces else kubectl.current_namespace()}", err=True)
    else:
        prefix = ["NAMESPACE"] if all_namespaces else []
        rows = [[*(job["metadata"]["namespace"] for _ in prefix), *row(job, now())] for job in found]
        print_table([*prefix, *HEADINGS], rows)
        for job in found:
            warning = unseen(job, now())
            if warning is not None:
                click.echo(f"{job['metadata']['name']}: {warning}", err=True)
