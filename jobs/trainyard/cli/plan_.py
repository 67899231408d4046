"""`trainyard plan`."""

from dataclasses import asdict
from typing import Any

import click

from trainyard.cli.cluster import on_cluster
from trainyard.cli.output import format_option, human_size, print_json, print_table, set_option
from trainyard.cluster.jobs import objects
from trainyard.cluster.kubectl import Kubectl
from trainyard.cluster.upload import needed, placed
from trainyard.plan.facts import gather
from trainyard.plan.notes import notes
from trainyard.plan.plan import Plan, check, keep_last, plan
from trainyard.spec.manifest import load
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
    loaded = load(file, overrides)
    if problems := check(loaded.job.spec):
        raise loaded.error(problems)
    made = plan(loaded.job, gather(loaded.job.spec))
    if output == "json":
        print_json(asdict(made))
    elif output == "yaml":
        click.echo(_comments(made) + dump(resolved(loaded.job, made)), nl=False)
    else:
        rows = [(name, *_parted(text)) for name, text in notes(made).items()]
        print_table(("WHAT", "VALUE", "REASON"), rows)
    if cluster and output == "table":
        _on_cluster(kubectl, loaded.job)
    for warning in made.warnings:
        click.echo(f"warning: {warning}", err=True)


def _on_cluster(kubectl: Kubectl, job: TrainerJob) -> None:
    namespace = kubectl.namespace or job.metadata.namespace or kubectl.current_namespace()
    for upload in needed(job):
        click.echo(f"upload   {'.'.join(upload.where)}: {upload.source} ({human_size(upload.size)})")
    click.echo(f"make     {', '.join(objects(job))} in {namespace}")
    click.echo(
        Kubectl(namespace, kubectl.context).diff(placed(job, namespace))
        or "the job is there as it is: nothing would change"
    )


def resolved(job: TrainerJob, made: Plan) -> dict[str, Any]:
    """The manifest with every default and every choice of the plan written down."""
    manifest: dict[str, Any] = job.model_dump(by_alias=True, mode="json", exclude_none=True)
    spec = manifest["spec"]
    owned = ("deepspeed", "fsdp", "fsdp_config")
    spec["trainingArguments"] = {name: value for name, value in made.arguments.items() if name not in owned}
    spec["checkpoint"]["keepLast"] = keep_last(job.spec)
    if "deepspeed" in made.arguments:
        spec["strategy"]["deepspeed"]["config"] = made.arguments["deepspeed"]
    return manifest


def _comments(made: Plan) -> str:
    return "".join(f"# {name}: {text}\n" for name, text in notes(made).items())


def _parted(text: str) -> tuple[str, str]:
    value, _, reason = text.partition(": ")
    return (value, reason) if reason else ("", value)
