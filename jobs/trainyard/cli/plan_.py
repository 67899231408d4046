"""`trainyard plan`."""

from dataclasses import asdict
from typing import Any

import click

from trainyard.cli.cluster import on_cluster
from trainyard.cli.output import format_option, human_size, print_json, print_table, set_option
from trainyard.cluster.jobs import objects
from trainyard.cluster.kubectl import Kubectl
from trainyard.cluster.upload import needed, placed
from trainyard.errors import JobError
from trainyard.plan.checks import load
from trainyard.plan.facts import gather
from trainyard.plan.notes import notes
from trainyard.plan.plan import Plan, plan
from trainyard.plan.resolved import resolved
from trainyard.spec.model import TrainerJob
from trainyard.spec.yamltext import dump


@click.command()
@click.argument("file")
@format_option("table", "yaml", "json")
@set_option()
@click.option("--cluster", is_flag=True, help="Also show what would be made and changed on the cluster.")
@on_cluster
def command(kubectl: Kubectl, file: str, output: str, overrides: tuple[str, ...], cluster: bool) -> None:
    """Show what a job would do, and why, without doing it.

    -o yaml prints the fully resolved job: a manifest with every choice written down, which runs the same.
    """
    if cluster and output == "yaml":
        raise click.UsageError("-o yaml prints a manifest; with --cluster give -o table or -o json")
    loaded = load(file, overrides)
    facts = gather(loaded.job.spec)
    if facts.problem is not None:
        raise JobError(facts.problem)
    made = plan(loaded.job, facts.elsewhere() if cluster else facts)
    if output == "json":
        print_json(asdict(made) | ({"cluster": _on_cluster(kubectl, loaded.job)} if cluster else {}))
    elif output == "yaml":
        click.echo(_comments(made) + dump(resolved(loaded.job, made)), nl=False)
    else:
        rows = [(name, *_parted(text)) for name, text in notes(made).items()]
        print_table(("WHAT", "VALUE", "REASON"), rows)
        if cluster:
            _show(**_on_cluster(kubectl, loaded.job))
    for warning in made.warnings:
        click.echo(f"warning: {warning}", err=True)


def _on_cluster(kubectl: Kubectl, job: TrainerJob) -> dict[str, Any]:
    """What would be uploaded, made and changed."""
    namespace = kubectl.namespace or job.metadata.namespace or kubectl.current_namespace()
    uploads = [
        {"field": ".".join(upload.where), "source": str(upload.source), "bytes": upload.size} for upload in needed(job)
    ]
    diff = Kubectl(namespace, kubectl.context).diff(placed(job, namespace))
    return {"namespace": namespace, "uploads": uploads, "objects": list(objects(job)), "diff": diff}


def _show(namespace: str, uploads: list[dict[str, Any]], objects: list[str], diff: str) -> None:
    for upload in uploads:
        click.echo(f"upload   {upload['field']}: {upload['source']} ({human_size(upload['bytes'])})")
    click.echo(f"make     {', '.join(objects)} in {namespace}")
    click.echo(diff or "the job is there as it is: nothing would change")


def _comments(made: Plan) -> str:
    return "".join(f"# {name}: {text}\n" for name, text in notes(made).items())


def _parted(text: str) -> tuple[str, str]:
    value, _, reason = text.partition(": ")
    return (value, reason) if reason else ("", value)
