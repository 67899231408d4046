"""`trainyard init`."""

from importlib.resources import files

import click
from jinja2 import Environment, StrictUndefined

from trainyard.spec.tasks import TASKS


@click.command()
@click.argument("task", type=click.Choice(sorted(TASKS)), default="text-classification")
@click.option("--name", default="my-job", show_default=True, help="Name of the job.")
@click.option("--model", help="Hub id, folder or URI of the model.")
@click.option("--data", help="Training data: a file, folder, hub name or URI.")
def command(task: str, name: str, model: str | None, data: str | None) -> None:
    """Write a commented manifest for TASK to standard output: trainyard init text-classification > job.yaml."""
    text = files(__package__).joinpath("job.yaml.j2").read_text(encoding="utf-8")
    # YAML, not HTML: nothing to escape.
    template = Environment(  # noqa: S701
        undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
    click.echo(template.from_string(text).render(task=TASKS[task], name=name, model=model, data=data), nl=False)
