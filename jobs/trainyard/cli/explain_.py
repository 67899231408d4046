"""`trainyard explain`."""

import difflib
import textwrap

import click

from trainyard.errors import NotFoundError
from trainyard.spec.answers import REMOVED
from trainyard.spec.catalogue import arguments
from trainyard.spec.fields import Entry, entries, explain
from trainyard.spec.tasks import TASKS


@click.command()
@click.argument("field", default="spec")
def command(field: str) -> None:
    """Show what FIELD of the manifest means: `trainyard explain workers.count`. Fields count from spec."""
    found = explain(field)
    if found is None:
        names = [".".join(entry.path[1:]) for entry in entries() if entry.path[0] == "spec"]
        names += [f"trainingArguments.{name}" for name in (*arguments(), *REMOVED)]
        near = difflib.get_close_matches(field, names, n=1, cutoff=0.5)
        raise NotFoundError(f"there is no field {field}.{f' Did you mean {near[0]}?' if near else ''}")
    entry, children = found
    click.echo(f"{'.'.join(entry.path)}  <{entry.type}>{_facts(entry)}\n")
    click.echo(textwrap.fill(entry.help, 96, initial_indent="  ", subsequent_indent="  "))
    if entry.path[-1] == "columns":
        click.echo("\n  Columns by task:")
        for task in TASKS.values():
            click.echo(f"    {task.name}: {task.columns_in_words}")
    if children:
        click.echo("\nFIELDS")
    for child in children:
        click.echo(f"  {child.path[-1]}  <{child.type}>{_facts(child)}")
        click.echo(textwrap.fill(child.help, 96, initial_indent="    ", subsequent_indent="    "))


def _facts(entry: Entry) -> str:
    required = " required" if entry.required else ""
    return f"{required}{f' default {entry.default}' if entry.default is not None else ''}"
