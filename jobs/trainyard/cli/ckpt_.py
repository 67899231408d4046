"""`trainyard ckpt`."""

import click

from trainyard.checkpoint.catalogue import Checkpoint, list_checkpoints, read_manifest
from trainyard.cli.output import format_option, human_size, print_json, print_table
from trainyard.cli.runs import open_named
from trainyard.errors import NotFoundError
from trainyard.storage.store import Store


@click.group()
def command() -> None:
    """Look at the checkpoints of a run."""


@command.command()
@click.argument("run", metavar="RUN")
@format_option("table", "json", "name")
def ls(run: str, output: str) -> None:
    """List the checkpoints of a run: a manifest, a run's folder, or its URI."""
    store = open_named(run)
    found = list_checkpoints(store)
    if not found:
        raise NotFoundError(f"{store.url()} has no checkpoints")
    rows = [_row(store, checkpoint) for checkpoint in found]
    if output == "json":
        print_json(rows)
    elif output == "name":
        for row in rows:
            click.echo(row["name"])
    else:
        headings = ("NAME", "STEP", "ATTEMPT", "STATE", "SIZE", "COMMITTED", "METRICS")
        print_table(headings, [[row[heading.lower()] for heading in headings] for row in rows])


def _row(store: Store, checkpoint: Checkpoint) -> dict[str, object]:
    committed, metrics = "", checkpoint.reason
    if checkpoint.state == "Committed":
        try:
            manifest = read_manifest(store, checkpoint.id)
            committed = manifest.created_at
            shown = {
                name: value
                for name, value in manifest.metrics.items()
                if name in ("loss", "eval_loss", "eval_accuracy", "eval_f1")
            }
            metrics = " ".join(f"{name}={value:.4g}" for name, value in shown.items())
        except (ValueError, NotFoundError) as error:
            metrics = str(error)
    return {
        "name": str(checkpoint.id),
        "step": checkpoint.id.step,
        "attempt": checkpoint.id.attempt,
        "state": checkpoint.state,
        "size": human_size(checkpoint.size),
        "committed": committed,
        "metrics": metrics,
    }
